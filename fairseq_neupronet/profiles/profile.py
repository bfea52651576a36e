"""What a model needs of a clip's group, all that is ever remembered of a group, and the bank that keeps it in a file.

Letters: n clips, D embedding width, S sums of mel bands, T sums of batch norms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fairseq_neupronet.arrays import read_npz
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file


@dataclass(frozen=True)
class Needs:
    """What of its group a clip's class depends on.

    Attributes:
        embeddings: the profile embeddings of the group's clips are pooled.
        bands: mel bands are normalised over the group's frames.
        norms: batch norms take statistics of the group's clips.
    """

    embeddings: bool
    bands: bool
    norms: bool

    @property
    def any(self) -> bool:
        """Whether a clip's class depends on its group at all."""
        return self.embeddings or self.to_embed

    @property
    def to_embed(self) -> bool:
        """Whether a clip's embedding already depends on its group."""
        return self.bands or self.norms

    @classmethod
    def of(cls, task: Mapping, model: Mapping) -> "Needs":
        """The needs of a model as the sections ``task`` and ``model`` of its configuration describe it."""
        return cls(
            bool(task.get("profiling")) and str(model.get("grouping")) != "none",
            bool(task.get("profile_normalize")),
            task.get("adaptive_batch_norm") is not None,
        )


@dataclass(frozen=True)
class Profile:
    """What is remembered of a group's clips; profiles of different clips of a group add up.

    Attributes:
        embeddings: (n, D) profile embeddings; D is 0 for a model that pools none.
        bands: (S,) float64, how many frames, each mel band's sum over them, and each one's sum of squares; S is 0 for a
            model that does not normalise by them.
        norms: (T,) float64, how many clips, and sums over them of what batch norms receive (see
            :func:`~fairseq_neupronet.networks.adaptive_batch_norm.adapted_to_groups`); T is 0 for a model whose batch
            norms do not adapt.
    """

    embeddings: Tensor
    bands: np.ndarray
    norms: np.ndarray

    @classmethod
    def empty(cls, width: int, n_bands: int, n_norms: int) -> "Profile":
        """The profile of no clip, with D, S and T as given."""
        return cls(torch.zeros(0, width), np.zeros(n_bands), np.zeros(n_norms))

    @property
    def n_clips(self) -> int:
        """How many clips are remembered."""
        return len(self.embeddings)

    def __add__(self, other: "Profile") -> "Profile":
        return Profile(
            torch.cat([self.embeddings, other.embeddings]), self.bands + other.bands, self.norms + other.norms
        )


# The first format had the sums of bands and norms in one row.
_FORMATS = {
    "neupronet profile bank 1": ("model", "names", "clips", "embeddings", "band_sums"),
    "neupronet profile bank 2": ("model", "names", "clips", "embeddings", "bands", "norms"),
}
_FIRST, _LATEST = _FORMATS
_LONGEST_NAME = 200


class Bank:
    """Profiles by name. Neither sound nor file names are kept, so that nothing else has to be removed with a profile.

    Args:
        digest: of the model that made the profiles, :meth:`Checkpoint.digest`.
        empty: the model's profile of no clip, which says how much is remembered of one.
    """

    def __init__(self, digest: str, empty: Profile):
        self.digest, self.empty = digest, empty
        self._profiles: dict[str, Profile] = {}
        self._format = _LATEST

    @property
    def clips(self) -> dict[str, int]:
        """How many clips each profile has, by name, in the order of their enrolment."""
        return {name: profile.n_clips for name, profile in self._profiles.items()}

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

    def add(self, name: str, profile: Profile) -> None:
        """Enrol clips, beside those that the profile has.

        Raises:
            InputError: a name that is empty, too long, or not printable.
        """
        if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
            raise InputError(f"profile {name[:40]!r}: give a name of 1 to {_LONGEST_NAME} printable characters")
        self._profiles[name] = self._profiles.get(name, self.empty) + profile

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
        profiles = [self.empty, *self._profiles.values()]
        sums = {name: np.stack([getattr(each, name) for each in profiles])[1:] for name in ("bands", "norms")}
        if self._format == _FIRST:
            sums = {"band_sums": sums["bands"]}
        with atomic_file(path, "wb") as file:
            np.savez(
                file,
                format=np.array(self._format),
                model=np.array(self.digest),
                names=np.array([*self._profiles], str),
                clips=np.array([*self.clips.values()], np.int64),
                embeddings=torch.cat([each.embeddings for each in profiles]).float().numpy(),
                **sums,
            )

    @classmethod
    def load(cls, path: str | Path, empty: "Bank | None" = None) -> "Bank":
        """Read a bank of this version or the one before.

        Args:
            path: the file.
            empty: a bank of the model that is to use it; None where none is: a bank of the version before then keeps
                its sums as they are, and is saved as it was.

        Raises:
            InputError: no such file, no bank, damaged, or another model's.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such profile bank; make one with neupronet enrol")
        try:
            written_as = str(read_npz(path, ["format"])["format"])
            if written_as not in _FORMATS:
                raise ValueError(f"its format is {written_as[:40]!r}")
            model, names, clips, embeddings, *sums = read_npz(path, _FORMATS[written_as]).values()
        except ValueError as error:
            raise InputError(
                f"{path}: not a profile bank, or a damaged one ({str(error).splitlines()[0]}); make one "
                "with neupronet enrol"
            ) from None
        sound = (
            names.dtype.kind == "U"
            and clips.dtype == np.int64
            and embeddings.dtype == np.float32
            and embeddings.ndim == 2
            and names.shape == clips.shape
            and (clips > 0).all()
            and clips.sum() == len(embeddings)
            and np.isfinite(embeddings).all()
            and all(each.dtype == np.float64 and each.ndim == 2 for each in sums)
            and all(len(each) == len(names) and np.isfinite(each).all() for each in sums)
        )
        if sound and empty is not None and str(model) != empty.digest:
            raise InputError(
                f"{path}: a profile bank of another model ({str(model)[:12]}…, this one is {empty.digest[:12]}…)"
                "; embeddings of different models do not compare, so enrol the clips again"
            )
        if sound and len(sums) == 1:
            sums = np.split(*sums, [sums[0].shape[1] if empty is None else len(empty.empty.bands)], axis=1)
        widths = [each.shape[1] for each in (embeddings, *sums)] if sound else []
        expected = empty.empty if empty else Profile.empty(*widths) if sound else None
        if not sound or widths != [expected.embeddings.shape[1], len(expected.bands), len(expected.norms)]:
            raise InputError(
                f"{path}: not a profile bank of this version, or a damaged one; make one with neupronet enrol"
            )
        bank = cls(str(model), expected)
        bank._format = _LATEST if empty else written_as
        for name, end, count, *rows in zip(names.tolist(), np.cumsum(clips), clips, *sums, strict=True):
            bank.add(name, Profile(torch.from_numpy(embeddings[end - count : end]), *rows))
        return bank
