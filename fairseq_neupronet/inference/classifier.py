"""What one trained model and several as one have in common: sound is labelled, profiles are enrolled in a bank."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.inference.clips import Sound, name_of
from fairseq_neupronet.inference.results import Prediction, Unreadable
from fairseq_neupronet.networks.in_groups import BATCH
from fairseq_neupronet.profiles.profile import Bank, Profile

Profiles = str | Sequence[str | None] | None


class Request(NamedTuple):
    """Sounds to be embedded or labelled.

    Attributes:
        sounds: files or arrays.
        names: of each sound's profile; None: each of its windows is alone.
        remembered: what is enrolled of each sound's profile, None for a sound without one; None in place of the list:
            the group of a clip are the clips of its profile among the sounds.
        window, hop, sample_rate, batch_size: see :meth:`Classifier.stream`.
    """

    sounds: list[Sound]
    names: list[str | None]
    remembered: list[Profile | None] | None
    window: float | None = None
    hop: float | None = None
    sample_rate: int | None = None
    batch_size: int = BATCH

    @classmethod
    def of(cls, sounds: Sound | Sequence[Sound], profiles: Profiles = None, **options) -> "Request":
        """A request for one sound or several, whose profiles are named one by one or all at once; none is looked up."""
        sounds = [sounds] if isinstance(sounds, str | Path | np.ndarray | Tensor) else list(sounds)
        names = [profiles] * len(sounds) if profiles is None or isinstance(profiles, str) else list(profiles)
        return cls(sounds, names, None, **options)

    @property
    def paths(self) -> list[str]:
        """What to call the sounds."""
        return [name_of(sound, number) for number, sound in enumerate(self.sounds)]


class Classifier(ABC):
    """Labels sound, and learns profiles from a few clips each.

    Sound is the path of an audio file (any format that libsndfile reads, any rate, any channels) or an array
    (samples,) or (samples, channels), full scale ±1. What is longer than the model takes at once is cut into windows.
    """

    _bank: Bank | None = None

    # ---- what a model has to say of itself -------------------------------------------------------------------------

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """K names, in the order of the probabilities."""

    @property
    @abstractmethod
    def uses_profiles(self) -> bool:
        """Whether a clip's class depends on its group."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """What tells this model's embeddings from those of any other."""

    @abstractmethod
    def nothing(self) -> Profile:
        """What is remembered of no clip."""

    @abstractmethod
    def remember(self, name: str, request: Request) -> Profile:
        """What is remembered of sounds, which are of the profile of a name.

        Raises:
            InputError: no sound, or one that cannot be read.
        """

    @abstractmethod
    def label(self, request: Request) -> Iterator[Prediction | Unreadable]:
        """One outcome a sound, in their order."""

    @abstractmethod
    def require_profiles(self, verb: str) -> None:
        """Raises InputError where the model has no profiles that could be ``verb``, which is the sentence's word."""

    # ---- profiles --------------------------------------------------------------------------------------------------

    @property
    def bank(self) -> Bank:
        """The profiles enrolled so far."""
        self._bank = self._bank or Bank(self.digest, self.nothing())
        return self._bank

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
        profile = self.remember(name, Request.of(sounds, sample_rate=sample_rate))
        self.bank.add(name, profile)
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
        self._bank = Bank.load(path, Bank(self.digest, self.nothing()))

    # ---- use --------------------------------------------------------------------------------------------------------

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
        outcomes = []
        for outcome in self.stream(sounds, profiles, **options):
            if isinstance(outcome, Unreadable):
                raise InputError(outcome.sentence)
            outcomes.append(outcome)
        return outcomes

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
        options = {"window": window, "hop": hop, "sample_rate": sample_rate, "batch_size": batch_size}
        return self.label(self._request(sounds, profiles, together, **options))

    def _request(self, sounds, profiles=None, together: bool = False, **options) -> Request:
        """The request that the arguments of :meth:`stream` make, with what is enrolled of the profiles."""
        request = Request.of(sounds, profiles, **options)
        names, n_sounds = request.names, len(request.sounds)
        if len(names) != n_sounds:
            raise InputError(f"{len(names)} profiles for {n_sounds} sounds; give one name a sound, or one for all")
        if any(name is not None for name in names):
            self.require_profiles("used")
        if together:
            return request
        return request._replace(remembered=[None if name is None else self.bank[name] for name in names])
