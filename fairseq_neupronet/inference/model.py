"""A trained model, ready for use. Letters: N clips, D embedding width, K classes."""

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.inference import clips, results
from fairseq_neupronet.inference.checkpoint import in_groups, load_network, read_checkpoint
from fairseq_neupronet.inference.clips import Sound, choose_windows, name_of, read_clips
from fairseq_neupronet.inference.picture import Heard
from fairseq_neupronet.inference.results import Clip, Embeddings, Finished, Prediction, Unreadable
from fairseq_neupronet.networks.in_groups import BATCH, attention
from fairseq_neupronet.profiles.bank import Bank
from fairseq_neupronet.profiles.profile import Profile

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
    (samples,) or (samples, channels), full scale ±1. What is longer than the model takes at once is cut into windows.

    Args:
        path, recipe, data: see :func:`load`.

    Attributes:
        bank: the profiles enrolled so far.
    """

    def __init__(self, path: str | Path, *, recipe=None, data: str | Path | None = None):
        self.checkpoint = read_checkpoint(path, recipe, data)
        self.network = load_network(self.checkpoint)
        self.in_groups = in_groups(self.checkpoint, self.network)
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
        """Whether a clip's class depends on its group."""
        return self.network.needs.any

    @cached_property
    def digest(self) -> str:
        """What tells this model's embeddings from those of any other."""
        return self.checkpoint.digest()

    def in_float32(self) -> "TrainedModel":
        """The same model and bank, computed in float32 also where it was trained with ``task.bfloat16``."""
        twin = copy.copy(self)
        twin.checkpoint = replace(self.checkpoint, bfloat16=False)
        twin.in_groups = in_groups(twin.checkpoint, self.network)
        return twin

    # ---- profiles ------------------------------------------------------------------------------------------------

    @property
    def bank(self) -> Bank:
        self._bank = self._bank or self._empty_bank()  # a model's digest takes time
        return self._bank

    def _empty_bank(self) -> Bank:
        return Bank(self.digest, self.in_groups.nothing(self.checkpoint.model.decoder_embed_dim))

    def enrol(self, name: str, sounds: Sound | Sequence[Sound], *, sample_rate: int | None = None) -> int:
        """Add clips to a profile, which begins with them where it is new.

        Only profile embeddings are kept, for models of ``task.profile_normalize`` sums over the frames of each mel
        band, and for those of ``task.adaptive_batch_norm`` sums over what each batch norm receives. The clips of one
        call are embedded by themselves: neither clips enrolled before nor those to be labelled sway what is kept.

        Args:
            name: of the profile.
            sounds: its clips.
            sample_rate: of arrays, in Hz; None where they have the recipe's.

        Returns:
            How many clips (windows of long files) were added.

        Raises:
            InputError: a model without profiles, a sound that cannot be read (nothing is enrolled then), a bad name.
        """
        self.require_profiles("enrolled")
        windows = choose_windows(self.checkpoint, None, None)
        events = read_clips(self.checkpoint, _listed(sounds), windows, sample_rate)
        self.bank.add(name, profile := clips.remember(self.in_groups, events, name))
        return profile.n_clips

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
        self.require_profiles("enrolled")
        self._bank = Bank.load(path, self._empty_bank())

    def require_profiles(self, verb: str) -> None:
        """Raises InputError where the model has no profiles that could be ``verb``, which is the sentence's word."""
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

    # ---- use -----------------------------------------------------------------------------------------------------

    def predict(self, sounds: Sound | Sequence[Sound], profiles: Profiles = None, **options) -> list[Prediction]:
        """Label sounds.

        Args:
            sounds: files or arrays.
            profiles: the enrolled profile of all sounds, or of each (None: alone).
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
        batch_size: int = BATCH,
    ) -> Iterator[Prediction | Unreadable]:
        """Label sounds one after another; one that cannot be read does not keep the others from it.

        Args:
            sounds: files or arrays.
            profiles: as :meth:`predict`.
            together: profiles need not be enrolled; the clips of a profile among the sounds are its group (protocol
                ``full``). All sounds are read before the first result.
            window: seconds of a window; None for the length of the longest training clip. A sound no longer than that
                stays whole.
            hop: seconds from one window to the next; None for the window's length.
            sample_rate: of arrays, in Hz; None where they have the recipe's.
            batch_size: windows that are computed at a time; the results do not depend on it.

        Raises:
            InputError: as :meth:`predict`, but for sounds that cannot be read.
        """
        sounds = _listed(sounds)
        events, names = self._classified(sounds, profiles, together, window, hop, sample_rate, batch_size)
        return results.gather_predictions(events, _paths(sounds), names, self.classes)

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
        sounds = _listed(sounds)
        events, _ = self._classified(sounds, profiles, **options)
        return results.gather_embeddings(events, _paths(sounds), failures)

    def inspect(
        self,
        sound: Sound,
        profile: str | None = None,
        *,
        number: int = 1,
        window: float | None = None,
        hop: float | None = None,
        sample_rate: int | None = None,
    ) -> Heard:
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
        (remembered,) = self._remembered(self._names(profile, 1))
        windows = choose_windows(checkpoint, window, hop).cut(clips.stream_sound(checkpoint, sound, 0, sample_rate))
        for place, waveform in itertools.islice(windows, max(0, number - 1), max(0, number)):
            clip = clips.make_clip(checkpoint, 0, place, waveform)
            spectrogram = clip.spectrogram
            results.fill([clip], self.in_groups.classify([spectrogram], [remembered]))
            weights = None
            if self.network.needs.embeddings and remembered is not None:
                weights = attention(self.network, clip.clip, clip.profile, remembered.embeddings)
            probabilities = clip.logits.softmax(dim=0).numpy()
            title = [path, self.classes[int(probabilities.argmax())], *([f"profile {profile}"] if profile else [])]
            return Heard(
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

    def _classified(
        self, sounds, profiles, together=False, window=None, hop=None, sample_rate=None, batch_size=BATCH
    ) -> tuple[Iterator[Clip | Finished], list[str | None]]:
        """The classified clips of sounds, and the names of the sounds' profiles."""
        names = self._names(profiles, len(sounds))
        events = read_clips(self.checkpoint, sounds, choose_windows(self.checkpoint, window, hop), sample_rate)
        if together:
            return iter(clips.classify_together(self.in_groups, events, names, _paths(sounds), batch_size)), names
        return clips.classify_each(self.in_groups, events, self._remembered(names), batch_size), names

    def _remembered(self, names: list[str | None]) -> list[Profile | None]:
        return [None if name is None else self.bank[name] for name in names]

    def _names(self, profiles: Profiles, n_sounds: int) -> list[str | None]:
        names = [profiles] * n_sounds if profiles is None or isinstance(profiles, str) else list(profiles)
        if len(names) != n_sounds:
            raise InputError(f"{len(names)} profiles for {n_sounds} sounds; give one name a sound, or one for all")
        if any(name is not None for name in names):
            self.require_profiles("used")
        return names


def _listed(sounds: Sound | Sequence[Sound]) -> list[Sound]:
    return [sounds] if isinstance(sounds, str | Path | np.ndarray | Tensor) else list(sounds)


def _paths(sounds: list[Sound]) -> list[str]:
    return [name_of(sound, number) for number, sound in enumerate(sounds)]
