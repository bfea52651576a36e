"""A trained model, ready for use. Letter: K classes."""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.inference import clips, results
from fairseq_neupronet.inference.checkpoint import Checkpoint, in_groups, load_network, read_checkpoint
from fairseq_neupronet.inference.classifier import Classifier, Profiles, Request
from fairseq_neupronet.inference.clips import Sound, choose_windows, name_of
from fairseq_neupronet.inference.picture import Inspection
from fairseq_neupronet.inference.results import Clip, Embeddings, Finished, Prediction, Unreadable
from fairseq_neupronet.networks.in_groups import InGroups, attention
from fairseq_neupronet.profiles.enrolment import path_keys
from fairseq_neupronet.profiles.profile import Profile


def load(path: str | Path | Sequence[str | Path], *, recipe=None, data=None) -> Classifier:
    """Load a trained model for use, or several as one.

    Args:
        path: a checkpoint of fine-tuning, such as ``checkpoint_best.pt``; a list of several makes an
            :class:`~fairseq_neupronet.inference.ensemble.Ensemble` of them.
        recipe: the feature recipe (name, yaml file or :class:`FeatureRecipe`), where the checkpoint has none. Of
            several models one for all, or a list with one a model, None where its checkpoint has one.
        data: the folder it was trained on, for a converted checkpoint that does not know its classes. Of several
            models as ``recipe``.

    Raises:
        InputError: a checkpoint that cannot be used, see :func:`~fairseq_neupronet.inference.checkpoint.
            read_checkpoint`; or models that do not go together.
    """
    from fairseq_neupronet.inference.ensemble import Ensemble, one_a_model

    paths = [path] if isinstance(path, str | Path) else list(path)
    recipes, folders = one_a_model("recipe", recipe, len(paths)), one_a_model("data", data, len(paths))
    models = [
        TrainedModel(each, recipe=recipe, data=folder)
        for each, recipe, folder in zip(paths, recipes, folders, strict=True)
    ]
    return models[0] if len(models) == 1 else Ensemble(models)


class TrainedModel(Classifier):
    """One trained model in use; see :class:`~fairseq_neupronet.inference.classifier.Classifier`.

    Args:
        path, recipe, data: see :func:`load`, for one model.

    Attributes:
        limits: seconds of a window and of a sound that stays whole, in an ensemble; None: the model's own.
        alongside: the other models of an ensemble, where their sample rates are others, so that sounds are cut alike.
    """

    def __init__(self, path: str | Path, *, recipe=None, data: str | Path | None = None):
        self.checkpoint = read_checkpoint(path, recipe, data)
        self.network = load_network(self.checkpoint)
        self.in_groups = in_groups(self.checkpoint, self.network)
        self.limits: tuple[float, float] | None = None
        self.alongside: list[Checkpoint] = []

    @property
    def classes(self) -> list[str]:
        return self.checkpoint.classes

    @property
    def features(self) -> FeatureRecipe:
        """How spectrograms are computed."""
        return self.checkpoint.recipe

    @property
    def uses_profiles(self) -> bool:
        return self.network.needs.any

    @cached_property
    def digest(self) -> str:
        return self.checkpoint.digest()

    def in_float32(self) -> "TrainedModel":
        """The same model and bank, computed in float32 also where it was trained with ``task.bfloat16``."""
        twin = copy.copy(self)
        twin.checkpoint = replace(self.checkpoint, bfloat16=False)
        twin.in_groups = in_groups(twin.checkpoint, self.network)
        return twin

    def nothing(self) -> Profile:
        return self.in_groups.nothing(self.checkpoint.model.decoder_embed_dim)

    def remember(self, name: str, request: Request) -> Profile:
        return _remember(self.in_groups, self._read(request), name)

    def require_profiles(self, verb: str) -> None:
        if self.uses_profiles:
            return
        if not self.network.profiling:
            raise InputError(
                f"{self.checkpoint.path}: was trained without profiles (task.profiling=false), so that "
                f"none can be {verb}; train a model with task.profiling=true"
            )
        raise InputError(
            f"{self.checkpoint.path}: a model of model.grouping=none classifies each clip alone, so that no "
            f"profile can be {verb}; train one of another model.grouping"
        )

    def embed(
        self,
        sounds: Sound | Sequence[Sound],
        profiles: Profiles = None,
        *,
        failures: list[Unreadable] | None = None,
        **options,
    ) -> Embeddings:
        """Embeddings of all clips.

        Args:
            sounds, profiles: as :meth:`predict`.
            failures: takes the sounds that cannot be read, whose clips are left out; None raises at the first.
            options: see :meth:`stream`.

        Raises:
            InputError: as :meth:`predict`; no sound can be read.
        """
        request = self._request(sounds, profiles, **options)
        return results.gather_embeddings(self._classified(request), request.paths, failures)

    def inspect(
        self,
        sound: Sound,
        profile: str | None = None,
        *,
        number: int = 1,
        window: float | None = None,
        hop: float | None = None,
        sample_rate: int | None = None,
    ) -> Inspection:
        """All there is to show of one window of a sound.

        Args:
            sound: a file or an array.
            profile: its profile, enrolled; None where it is alone.
            number: which window, from 1.
            window, hop, sample_rate: as :meth:`stream`.

        Raises:
            InputError: as :meth:`predict`, or a sound without so many windows.
        """
        checkpoint, path = self.checkpoint, name_of(sound, 0)
        (remembered,) = self._request([sound], profile).remembered
        windows = choose_windows(checkpoint, window, hop)
        cut = windows.cut(clips.stream_sound(windows.rate, sound, 0, sample_rate))
        for place, waveform in itertools.islice(cut, max(0, number - 1), max(0, number)):
            clip = clips.make_clip(checkpoint, 0, place, waveform)
            results.fill([clip], self.in_groups.classify([spectrogram := clip.spectrogram], [remembered]))
            weights = None
            if self.network.needs.embeddings and remembered is not None:
                weights = attention(self.network, clip.clip, clip.profile, remembered.embeddings)
            probabilities = clip.logits.softmax(dim=0).numpy()
            title = [path, self.classes[int(probabilities.argmax())], *([f"profile {profile}"] if profile else [])]
            return Inspection(
                "  ·  ".join(title),
                clip.start,
                waveform.numpy(),
                spectrogram,
                checkpoint.recipe,
                self.classes,
                probabilities,
                None if weights is None else weights.numpy(),
            )
        raise InputError(f"{path}: has no window {number}; give a lower number, from 1 up")

    def label(self, request: Request) -> Iterator[Prediction | Unreadable]:
        return results.gather_predictions(self._classified(request), request.paths, request.names, self.classes)

    def _classified(self, request: Request) -> Iterator[Clip | Finished]:
        """The classified clips of all sounds."""
        events = self._read(request)
        if request.remembered is None:
            paths, size = request.paths, request.batch_size
            return iter(_classify_together(self.in_groups, events, request.names, paths, size))
        return _classify_each(self.in_groups, events, request.remembered, request.batch_size)

    def _read(self, request: Request) -> Iterator[Clip | Finished]:
        """The clips of all sounds."""
        everyone = (self.checkpoint, *self.alongside)
        windows = [choose_windows(each, request.window, request.hop, self.limits) for each in everyone]
        return clips.read_clips(self.checkpoint, request.sounds, windows, request.sample_rate)


def _in_batches(
    events: Iterable[Clip | Finished], size: int, compute: Callable[[list[Clip]], None]
) -> Iterator[Clip | Finished]:
    """Pass events on in their order, once ``compute`` has been given their clips, ``size`` at a time."""
    waiting: list[Clip | Finished] = []
    clips: list[Clip] = []
    for event in events:
        waiting.append(event)
        if isinstance(event, Clip):
            clips.append(event)
        if len(clips) == size:
            compute(clips)
            yield from waiting
            waiting, clips = [], []
    if clips:
        compute(clips)
    yield from waiting


def _classify_each(
    in_groups: InGroups, events: Iterable[Clip | Finished], profiles: Sequence[Profile | None], batch_size: int
) -> Iterator[Clip | Finished]:
    """Classify clips as they come, each in the group of what is remembered; ``profiles`` are those of the inputs."""

    def classify(clips: list[Clip]) -> None:
        results.fill(
            clips, in_groups.classify([clip.spectrogram for clip in clips], [profiles[clip.source] for clip in clips])
        )

    return _in_batches(events, batch_size, classify)


def _remember(in_groups: InGroups, events: Iterable[Clip | Finished], name: str) -> Profile:
    """What is remembered of the clips of all inputs, which are of the profile of a name.

    Raises:
        InputError: there is no input, or one cannot be read.
    """
    passed: list[Clip | Finished] = []
    gathered = in_groups.gather(_spectrograms(events, passed))
    for event in passed:
        if isinstance(event, Finished) and event.failure:
            raise InputError(event.failure.sentence)
    if not gathered:
        raise InputError(f"profile {name!r}: no sound is given; enrol one clip at least")
    return in_groups.remember(gathered)


def _spectrograms(events: Iterable[Clip | Finished], passed: list[Clip | Finished]) -> Iterator[np.ndarray]:
    """The spectrograms of clips as they come, which the clips let go of; ``passed`` takes all events."""
    for event in events:
        passed.append(event)
        if isinstance(event, Clip):
            yield event.spectrogram
            event.spectrogram = None


def _classify_together(
    in_groups: InGroups,
    events: Iterable[Clip | Finished],
    names: Sequence[str | None],
    paths: Sequence[str],
    batch_size: int,
) -> list[Clip | Finished]:
    """Classify clips once all have come, each in the group of all clips of its input's name.

    Args:
        in_groups: the model.
        events: of :func:`~fairseq_neupronet.inference.clips.read_clips`.
        names: of the inputs' profiles; None makes each of an input's clips a group of its own.
        paths: of the inputs.
        batch_size: clips that are computed at a time.

    Returns:
        The events but for clips of an input that failed, which join no group.
    """
    passed: list[Clip | Finished] = []
    gathered = in_groups.gather(_spectrograms(events, passed), batch_size)
    failed = {event.source for event in passed if isinstance(event, Finished) and event.failure}
    clips = [event for event in passed if isinstance(event, Clip)]
    gathered = [each for clip, each in zip(clips, gathered, strict=True) if clip.source not in failed]
    clips = [clip for clip in clips if clip.source not in failed]
    if clips:
        numbers: dict = {}
        named = [place if names[clip.source] is None else names[clip.source] for place, clip in enumerate(clips)]
        codes = np.array([numbers.setdefault(name, len(numbers)) for name in named])
        results.fill(
            clips, in_groups.together(gathered, codes, lambda: path_keys([paths[clip.source] for clip in clips]))
        )
    return [event for event in passed if isinstance(event, Finished) or event.source not in failed]
