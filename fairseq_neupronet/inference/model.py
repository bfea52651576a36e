"""A trained model, ready for use. Letters: N clips, D embedding width, K classes."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.inference import enrolment
from fairseq_neupronet.inference.checkpoint import read_checkpoint
from fairseq_neupronet.inference.classifier import BATCH, Classifier
from fairseq_neupronet.inference.clips import choose_windows
from fairseq_neupronet.inference.hearing import Clip, Finished, Sound
from fairseq_neupronet.inference.inspection import inspect_window
from fairseq_neupronet.inference.network import load_network
from fairseq_neupronet.inference.outcomes import gather_embeddings, gather_predictions
from fairseq_neupronet.inference.picture import Heard
from fairseq_neupronet.inference.results import Embeddings, Prediction, Unreadable
from fairseq_neupronet.profiles.bank import Bank

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
        self._classifier = Classifier(self.checkpoint, self.network)
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
        return self.pools or self.checkpoint.bands is not None or self._classifier.adapts

    @property
    def pools(self) -> bool:
        """Whether profile embeddings of a group are pooled."""
        return self._classifier.pools

    @cached_property
    def digest(self) -> str:
        """What tells this model's embeddings from those of any other."""
        return self.checkpoint.digest()

    def in_float32(self) -> "TrainedModel":
        """The same model and bank, computed in float32 also where it was trained with ``task.bfloat16``."""
        twin = copy.copy(self)
        twin.checkpoint = replace(self.checkpoint, bfloat16=False)
        twin._classifier = Classifier(twin.checkpoint, self.network)
        return twin

    # ---- profiles ------------------------------------------------------------------------------------------------

    @property
    def bank(self) -> Bank:
        if self._bank is None:
            width = self.checkpoint.model.decoder_embed_dim if self.pools else 0
            self._bank = Bank(self.digest, width, self._classifier.n_sums)
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
        """Add clips to a profile, which begins with them where it is new. Only embeddings are kept, for models of
        ``task.profile_normalize`` sums over the frames of each mel band, and for those of ``task.adaptive_batch_norm``
        sums over what each batch norm hears of the clips of one call.

        A model that normalises mel bands by profiles and also pools them, or adapts batch norms to them, hears a clip
        as the profile is when the clip is enrolled; evaluation, which has the sound at hand, hears it as the profile is
        with the clip to be labelled.

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
        return enrolment.enrol(self._classifier, self.bank, name, _listed(sounds), sample_rate)

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
        self._bank = Bank.load(path, self.digest)

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
            f"{self.checkpoint.path}: a model of model.grouping=none hears each clip alone, so that no "
            f"profile can be {verb}; train one of another model.grouping"
        )

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
        batch_size: int = BATCH,
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
        events = self._classified(sounds, names, together, window, hop, sample_rate, batch_size)
        return gather_predictions(events, sounds, names, self.classes)

    def embed(
        self,
        sounds: Sound | Sequence[Sound],
        profiles: Profiles = None,
        *,
        together: bool = False,
        window: float | None = None,
        hop: float | None = None,
        sample_rate: int | None = None,
        batch_size: int = BATCH,
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
        events = self._classified(sounds, names, together, window, hop, sample_rate, batch_size)
        return gather_embeddings(events, sounds, failures)

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
            profile: its profile, enrolled; None hears it alone.
            number: which window, from 1.
            window, hop, sample_rate: as :meth:`stream`.

        Raises:
            InputError: as :meth:`predict`, or a sound without so many windows.
        """
        (name,) = self._names(profile, 1, together=False)
        windows = choose_windows(self.checkpoint, window, hop)
        return inspect_window(self._classifier, sound, windows, number, name, self._bank, sample_rate)

    def classify(self, clips: list[Clip], names: list[str | None]) -> None:
        """Fill in everything of clips that have a spectrogram and its sums.

        Args:
            clips: B of them.
            names: of their profiles, each enrolled; None for a clip alone.
        """
        self._classifier.classify(clips, names, self._bank)

    def _classified(self, sounds, names, together, window, hop, sample_rate, batch_size) -> Iterator[Clip | Finished]:
        windows = choose_windows(self.checkpoint, window, hop)
        if together:
            return iter(self._classifier.together(sounds, names, windows, sample_rate, batch_size))
        return self._classifier.with_enrolled(sounds, names, self._bank, windows, sample_rate, batch_size)

    def _names(self, profiles: Profiles, n_sounds: int, together: bool) -> list[str | None]:
        names = [profiles] * n_sounds if profiles is None or isinstance(profiles, str) else list(profiles)
        if len(names) != n_sounds:
            raise InputError(f"{len(names)} profiles for {n_sounds} sounds; give one name a sound, or one for all")
        if any(name is not None for name in names):
            self.require_profiles("used")
            for name in () if together else dict.fromkeys(names):
                if name is not None:
                    self.bank[name]
        return names


def _listed(sounds: Sound | Sequence[Sound]) -> list[Sound]:
    return [sounds] if isinstance(sounds, str | Path | np.ndarray | Tensor) else list(sounds)
