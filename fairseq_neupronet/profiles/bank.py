"""Enrolled profiles: the embeddings of a few clips each, in a file of their own.

Letters: N enrolled clips of all profiles, D embedding width, P profiles, S sums.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fairseq_neupronet.data.npz import read_npz
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file

_FORMAT = "neupronet profile bank 1"
_ARRAYS = ("format", "model", "names", "clips", "embeddings", "band_sums")
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Profile:
    """What is kept of a profile's clips.

    Attributes:
        embeddings: (clips, D); D is 0 for a model that pools none.
        sums: (S,) float64 of the mel bands and of what batch norms hear, of all clips together; S is 0 for a model that
            normalises by neither.
    """

    embeddings: Tensor
    sums: np.ndarray

    def __add__(self, other: "Profile") -> "Profile":
        return Profile(torch.cat([self.embeddings, other.embeddings]), self.sums + other.sums)


class Bank:
    """Profiles by name. Neither sound nor file names are kept, so that nothing else has to be removed with a profile.

    Args:
        digest: of the model that made the embeddings, :meth:`Checkpoint.digest`.
        width: D.
        n_sums: S.
    """

    def __init__(self, digest: str, width: int, n_sums: int):
        self.digest, self.width, self.n_sums = digest, width, n_sums
        self._profiles: dict[str, Profile] = {}

    @property
    def clips(self) -> dict[str, int]:
        """How many clips each profile has, by name, in the order of their enrolment."""
        return {name: len(profile.embeddings) for name, profile in self._profiles.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._profiles

    def __getitem__(self, name: str) -> Profile:
        """A profile.

        Raises:
            InputError: no such profile.
        """
        if name not in self._profiles:
            known = ", ".join([*self._profiles][:10]) + (", …" if len(self._profiles) > 10 else "")
            raise InputError(f"profile {name!r} is not enrolled; known are: {known or 'none'}")
        return self._profiles[name]

    def get(self, name: str) -> Profile:
        """A profile; one without clips where it is not enrolled."""
        empty = Profile(torch.zeros(0, self.width), np.zeros(self.n_sums))
        return self._profiles.get(name, empty)

    def add(self, name: str, profile: Profile) -> None:
        """Enrol clips, beside those that the profile has.

        Raises:
            InputError: a name that is empty, too long, or not printable.
        """
        if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
            raise InputError(f"profile {name[:40]!r}: give a name of 1 to {_LONGEST_NAME} printable characters")
        self._profiles[name] = self.get(name) + profile

    def forget(self, name: str) -> None:
        """Remove a profile; a file that holds it is to be saved again.

        Raises:
            InputError: no such profile.
        """
        self[name]
        del self._profiles[name]

    def save(self, path: str | Path) -> None:
        """Write the bank as a whole, in place of what the file was.

        Raises:
            InputError: the file cannot be written.
        """
        profiles = self._profiles.values()
        with atomic_file(path, "wb") as file:
            np.savez(
                file,
                format=np.array(_FORMAT),
                model=np.array(self.digest),
                names=np.array([*self._profiles], str),
                clips=np.array([*self.clips.values()], np.int64),
                embeddings=torch.cat([torch.zeros(0, self.width), *(each.embeddings for each in profiles)]).numpy(),
                band_sums=np.array([each.sums for each in profiles]).reshape(len(profiles), self.n_sums),
            )

    @classmethod
    def load(cls, path: str | Path, digest: str | None = None) -> "Bank":
        """Read a bank.

        Args:
            path: the file.
            digest: of the model that is to use it; None for any.

        Raises:
            InputError: no such file, no bank, damaged, or another model's.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such profile bank; make one with neupronet enrol")
        try:
            written_as, model, names, clips, embeddings, sums = read_npz(path, _ARRAYS).values()
        except ValueError as error:
            raise InputError(
                f"{path}: not a profile bank, or a damaged one ({str(error).splitlines()[0]}); make one "
                "with neupronet enrol"
            ) from None
        sound = (
            str(written_as) == _FORMAT
            and names.dtype.kind == "U"
            and clips.dtype == np.int64
            and embeddings.dtype == np.float32
            and embeddings.ndim == 2
            and names.shape == clips.shape
            and (clips > 0).all()
            and clips.sum() == len(embeddings)
            and np.isfinite(embeddings).all()
            and sums.dtype == np.float64
            and sums.ndim == 2
            and len(sums) == len(names)
            and np.isfinite(sums).all()
        )
        if not sound:
            raise InputError(
                f"{path}: not a profile bank of this version, or a damaged one; make one with neupronet enrol"
            )
        if digest is not None and str(model) != digest:
            raise InputError(
                f"{path}: a profile bank of another model ({str(model)[:12]}…, this one is {digest[:12]}…)"
                "; embeddings of different models do not compare, so enrol the clips again"
            )
        bank = cls(str(model), embeddings.shape[1], sums.shape[1])
        for name, end, count, row in zip(names.tolist(), np.cumsum(clips), clips, sums, strict=True):
            bank.add(name, Profile(torch.from_numpy(embeddings[end - count : end]), row))
        return bank
