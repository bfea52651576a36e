"""A trained model, ready for use. Letters: N clips, D embedding width, K classes."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.audio.streaming import stream_audio
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.inference import hearing
from fairseq_neupronet.inference.bank import Bank, Profile
from fairseq_neupronet.inference.checkpoint import read_checkpoint
from fairseq_neupronet.inference.clips import choose_windows
from fairseq_neupronet.inference.grouping import attention, classify_together, classify_with_enrolled
from fairseq_neupronet.inference.hearing import Clip, Finished, Sound, name_of
from fairseq_neupronet.inference.network import load_network
from fairseq_neupronet.inference.picture import Heard
from fairseq_neupronet.inference.results import Embeddings, Prediction, Unreadable
from fairseq_neupronet.modules.network import Classified

_BATCH = 32
Profiles = str | Sequence[str | None] | None


def load(path: str | Path, *, recipe=None, data: str | Path | None = None) -> "TrainedModel":
    """Load a trained model for use.

    Args:
        path: a checkpoint of fine-tuning, such as ``checkpoint_best.pt``.
        recipe: the feature recipe (name, yaml file or :class:`FeatureRecipe`), where the checkpoint has none.
        data: the folder it was trained on, for a converted checkpoint that does not know its classes.

    Raises:
        InputError: a checkpoint that cannot be used; see :func:`~fairseq_neupronet.inference.checkpoint.
            read_checkpoint`.
    """
    return TrainedModel(path, recipe=recipe, data=data)


class TrainedModel:
    """Labels sound, and learns profiles from a few clips each.

    Sound is the path of an audio file (any format that libsndfile reads, any rate, any channels) or an array
    (samples,) or (samples, channels), full scale ±1. What is longer than the model hears at once is cut into windows.

    Args:
        path, recipe, data: see :func:`load`.

    Attributes:
        bank: the profiles enrolled so far.
    """

    def __init__(self, path: str | Path, *, recipe=None, data: str | Path | None = None):
        self.checkpoint = read_checkpoint(path, recipe, data)
        self.network = load_network(self.checkpoint)
        self._bank: Bank | None = None

    @property
    def classes(self) -> list[str]:
        """K names, in the order of the probabilities."""
        return self.checkpoint.classes

    @property
    def features(self) -> FeatureRecipe:
        """How spectrograms are computed."""
        return self.checkpoint.recipe

    @property
    def uses_profiles(self) -> bool:
        """Whether the model hears a clip with its group."""
        return self.pools or self.checkpoint.bands is not None

    @property
    def pools(self) -> bool:
        """Whether profile embeddings of a group are pooled."""
        return self.network.profiling and self.checkpoint.model.grouping != "none"

    @cached_property
    def digest(self) -> str:
        """What tells this model's embeddings from those of any other."""
        return self.checkpoint.digest()

    # ---- profiles ------------------------------------------------------------------------------------------------

    @property
    def bank(self) -> Bank:
        if self._bank is None:
            bands = self.checkpoint.bands
            width = self.checkpoint.model.decoder_embed_dim if self.pools else 0
            self._bank = Bank(self.digest, width, bands.n_sums if bands else 0)
        return self._bank

    @contextlib.contextmanager
    def borrowed_bank(self) -> Iterator[Bank]:
        """An empty bank in place of the model's own, for as long as the context lasts."""
        own, self._bank = self._bank, None
        try:
            yield self.bank
        finally:
            self._bank = own

    def enrol(self, name: str, sounds: Sound | Sequence[Sound], *, sample_rate: int | None = None) -> int:
        """Add clips to a profile, which begins with them where it is new. Only embeddings are kept, and for models of
        ``task.profile_normalize`` sums over the frames of each mel band.

        A model that both pools profiles and normalises by them embeds a clip as the profile is when the clip is
        enrolled; evaluation, which has the sound at hand, embeds it as the profile is with the clip to be labelled.

        Args:
            name: of the profile.
            sounds: its clips.
            sample_rate: of arrays, in Hz; None where they have the recipe's.

        Returns:
            How many clips (windows of long files) were added.

        Raises:
            InputError: a model without profiles, a sound that cannot be read (nothing is enrolled then), a bad name.
        """
        self._refuse_profiles("enrolled")
        sounds = _listed(sounds)
        events = self._gathered(sounds, None, None, sample_rate, _BATCH)
        for event in events:
            if isinstance(event, Finished) and event.failure:
                raise InputError(event.failure.sentence)
        clips = [event for event in events if isinstance(event, Clip)]
        if not clips:
            raise InputError(f"profile {name!r}: no sound is given; enrol one clip at least")
        bank = self.bank
        sums = sum((clip.sums for clip in clips), np.zeros(bank.n_sums))
        if self.checkpoint.bands:
            self._embed_normalized(clips, [bank.get(name).sums + sums] * len(clips))
        embeddings = [clip.profile for clip in clips] if self.pools else [torch.zeros(0)] * len(clips)
        bank.add(name, Profile(torch.stack(embeddings), sums))
        return len(clips)

    def forget(self, name: str) -> None:
        """Remove a profile; save the bank again to remove it from its file. Raises InputError where there is none."""
        self.bank.forget(name)

    def save_bank(self, path: str | Path) -> None:
        """Write the enrolled profiles. Raises InputError where the file cannot be written."""
        self.bank.save(path)

    def load_bank(self, path: str | Path) -> None:
        """Replace the enrolled profiles by those of a file.

        Raises:
            InputError: a model without profiles, no bank, a damaged one, or another model's.
        """
        self._refuse_profiles("enrolled")
        self._bank = Bank.load(path, self.digest)

    def _refuse_profiles(self, verb: str) -> None:
        if self.uses_profiles:
            return
        if not self.network.profiling:
            raise InputError(f"{self.checkpoint.path}: was trained without profiles (task.profiling=false), so that "
                             f"none can be {verb}; train a model with task.profiling=true")
        raise InputError(f"{self.checkpoint.path}: a model of model.grouping=none hears each clip alone, so that no "
                         f"profile can be {verb}; train one of another model.grouping")

    # ---- use -----------------------------------------------------------------------------------------------------

    def predict(self, sounds: Sound | Sequence[Sound], profiles: Profiles = None, **options) -> list[Prediction]:
        """Label sounds.

        Args:
            sounds: files or arrays.
            profiles: the enrolled profile of all sounds, or of each (None: heard alone).
            options: see :meth:`stream`.

        Returns:
            One prediction a sound, in their order.

        Raises:
            InputError: a sound that cannot be read, a profile that is not enrolled, options that do not go together.
        """
        predictions = []
        for outcome in self.stream(sounds, profiles, **options):
            if isinstance(outcome, Unreadable):
                raise InputError(outcome.sentence)
            predictions.append(outcome)
        return predictions

    def stream(
        self,
        sounds: Sound | Sequence[Sound],
        profiles: Profiles = None,
        *,
        together: bool = False,
        window: float | None = None,
        hop: float | None = None,
        sample_rate: int | None = None,
        batch_size: int = _BATCH,
    ) -> Iterator[Prediction | Unreadable]:
        """Label sounds one after another; one that cannot be read does not keep the others from it.

        Args:
            sounds: files or arrays.
            profiles: as :meth:`predict`.
            together: profiles need not be enrolled; the clips of a profile among the sounds are its group (protocol
                ``full``). All sounds are heard before the first result.
            window: seconds of a window; None for the length of the longest training clip. A sound no longer than that
                is heard as a whole.
            hop: seconds from one window to the next; None for the window's length.
            sample_rate: of arrays, in Hz; None where they have the recipe's.
            batch_size: windows that are computed at a time; the results do not depend on it.

        Raises:
            InputError: as :meth:`predict`, but for sounds that cannot be read.
        """
        sounds = _listed(sounds)
        names = self._names(profiles, len(sounds), together)
        return self._predictions(
            sounds, names, self._classified(sounds, names, together, window, hop, sample_rate, batch_size)
        )

    def _predictions(self, sounds, names, events) -> Iterator[Prediction | Unreadable]:
        times: list[tuple[float, float]] = []
        logits: list[Tensor] = []
        for event in events:
            if isinstance(event, Clip):
                times.append((event.start, event.end))
                logits.append(event.logits)
            elif event.failure:
                yield event.failure
            else:
                path = name_of(sounds[event.source], event.source)
                profile = names[event.source]
                yield Prediction(path, self.classes, profile, np.array(times), torch.stack(logits).numpy())
            if isinstance(event, Finished):
                times, logits = [], []

    def embed(
        self,
        sounds: Sound | Sequence[Sound],
        profiles: Profiles = None,
        *,
        together: bool = False,
        window: float | None = None,
        hop: float | None = None,
        sample_rate: int | None = None,
        batch_size: int = _BATCH,
        failures: list[Unreadable] | None = None,
    ) -> Embeddings:
        """Embeddings of all clips; arguments as :meth:`stream`.

        Args:
            failures: takes the sounds that cannot be read, whose clips are left out; None raises at the first.

        Raises:
            InputError: as :meth:`predict`; no sound can be read.
        """
        sounds = _listed(sounds)
        names = self._names(profiles, len(sounds), together)
        clips = []
        for event in self._classified(sounds, names, together, window, hop, sample_rate, batch_size):
            if isinstance(event, Clip):
                clips.append(event)
            elif event.failure:
                if failures is None:
                    raise InputError(event.failure.sentence)
                failures.append(event.failure)
                clips = [clip for clip in clips if clip.source != event.source]
        if not clips:
            raise InputError(failures[0].sentence if failures else "no sound is given; name one at least")

        def stacked(name: str) -> np.ndarray | None:
            rows = [getattr(clip, name) for clip in clips]
            return None if rows[0] is None else torch.stack(rows).numpy()

        return Embeddings(
            path=np.array([name_of(sounds[clip.source], clip.source) for clip in clips]),
            times=np.array([(clip.start, clip.end) for clip in clips]),
            **{name: stacked(name) for name in ("clip", "profile", "pooled", "fused", "logits")},
        )

    def inspect(
        self, sound: str | Path, profile: str | None = None, *, number: int = 1, window: float | None = None,
        hop: float | None = None,
    ) -> Heard:
        """All there is to show of one window of a file.

        Args:
            sound: the file.
            profile: its profile, enrolled; None hears it alone.
            number: which window, from 1.
            window, hop: as :meth:`stream`.

        Raises:
            InputError: as :meth:`predict`, or a file without so many windows.
        """
        (name,) = self._names(profile, 1, together=False)
        windows = choose_windows(self.checkpoint, window, hop)
        rate = self.features.sample_rate
        cut = itertools.islice(windows.cut(stream_audio(sound, rate)), max(0, number - 1), max(0, number))
        for place, waveform in cut:
            clip = hearing.make_clip(self.checkpoint, 0, place, waveform)
            spectrogram = clip.spectrogram
            self.classify([clip], [name])
            weights = None
            if self.pools and name is not None:
                weights = attention(self.network, clip.clip, clip.profile, self.bank[name].embeddings)
            probabilities = clip.logits.softmax(dim=0).numpy()
            title = f"{sound}  ·  {self.classes[int(probabilities.argmax())]}"
            return Heard(
                title if name is None else f"{title}  ·  profile {name}", clip.start, waveform.numpy(), spectrogram,
                self.features, self.classes, probabilities, None if weights is None else weights.numpy(),
            )  # fmt: skip
        raise InputError(f"{sound}: has no window {number}; give a lower number, from 1 up")

    # ---- inside --------------------------------------------------------------------------------------------------

    def _names(self, profiles: Profiles, n_sounds: int, together: bool) -> list[str | None]:
        names = [profiles] * n_sounds if profiles is None or isinstance(profiles, str) else list(profiles)
        if len(names) != n_sounds:
            raise InputError(f"{len(names)} profiles for {n_sounds} sounds; give one name a sound, or one for all")
        if any(name is not None for name in names):
            self._refuse_profiles("used")
            for name in () if together else dict.fromkeys(names):
                if name is not None:
                    self.bank[name]
        return names

    def _heard(self, sounds, window, hop, sample_rate, batch_size, compute) -> Iterator[Clip | Finished]:
        windows = choose_windows(self.checkpoint, window, hop)
        events = hearing.read_clips(self.checkpoint, sounds, windows, sample_rate)
        return hearing.in_batches(events, batch_size, compute)

    def _gathered(self, sounds, *options) -> list[Clip | Finished]:
        """All clips at once; embedded, unless other clips have to be heard before."""
        return list(self._heard(sounds, *options, (lambda clips: None) if self.checkpoint.bands else self._embed))

    def _embed(self, clips: list[Clip]) -> None:
        hearing.embed(self.checkpoint, self.network, clips)

    def _embed_normalized(self, clips: list[Clip], group_sums: list[np.ndarray]) -> None:
        """Embed clips, their mel bands normalised by the sums of their groups, each (S,)."""
        for start in range(0, len(clips), _BATCH):
            part = slice(start, start + _BATCH)
            hearing.normalize_by_groups(self.checkpoint, clips[part], group_sums[part])
            self._embed(clips[part])

    def _classified(self, sounds, names, together, *options) -> Iterator[Clip | Finished]:
        if together:
            return iter(self._classified_together(sounds, names, *options))

        def compute(clips: list[Clip]) -> None:
            self.classify(clips, [names[clip.source] for clip in clips])

        return self._heard(sounds, *options, compute)

    def classify(self, clips: list[Clip], names: list[str | None]) -> None:
        """Fill in everything of clips that have a spectrogram and its sums.

        Args:
            clips: B of them.
            names: of their profiles, each enrolled; None for a clip alone.
        """
        if self.checkpoint.bands:
            sums = [clip.sums + self._enrolled_sums(name) for clip, name in zip(clips, names, strict=True)]
            self._embed_normalized(clips, sums)
        else:
            self._embed(clips)
        pooled = names if self.pools else [None] * len(clips)
        _fill(clips, classify_with_enrolled(self.network, *_inputs(clips), pooled, self._bank))

    def _enrolled_sums(self, name: str | None) -> np.ndarray | float:
        return 0.0 if name is None else self.bank[name].sums

    def _classified_together(self, sounds, names, *options) -> list[Clip | Finished]:
        events = self._gathered(sounds, *options)
        failed = {event.source for event in events if isinstance(event, Finished) and event.failure}
        clips = [event for event in events if isinstance(event, Clip) and event.source not in failed]
        if not clips:
            return [event for event in events if isinstance(event, Finished)]
        named = [names[clip.source] for clip in clips]
        if self.checkpoint.bands:
            sums: dict[str, np.ndarray] = {}
            for clip, name in zip(clips, named, strict=True):
                sums[name] = sums.get(name, 0.0) + clip.sums
            self._embed_normalized(clips, [
                clip.sums if name is None else sums[name] for clip, name in zip(clips, named, strict=True)
            ])  # fmt: skip
        pooled = named if self.pools else [None] * len(clips)
        _fill(clips, classify_together(self.network, *_inputs(clips), pooled))
        return [event for event in events if isinstance(event, Finished) or event.source not in failed]


def _listed(sounds: Sound | Sequence[Sound]) -> list[Sound]:
    return [sounds] if isinstance(sounds, str | Path | np.ndarray | Tensor) else list(sounds)


def _inputs(clips: list[Clip]) -> tuple[Tensor, Tensor | None]:
    profile = None if clips[0].profile is None else torch.stack([clip.profile for clip in clips])
    return torch.stack([clip.clip for clip in clips]), profile


def _fill(clips: list[Clip], classified: Classified) -> None:
    for number, clip in enumerate(clips):
        clip.logits, clip.fused = classified.logits[number], classified.fused[number]
        clip.pooled = None if classified.pooled is None else classified.pooled[number]
