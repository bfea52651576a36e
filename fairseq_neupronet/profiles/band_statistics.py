"""Mean and deviation of mel bands over the frames of clips, and normalisation by them.

Letters: N clips, G groups, M mel bands, F frames.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# A band that hardly moves within a group is not blown up: its deviation counts as this share of the training split's.
LEAST_DEVIATION = 0.01
_LISTED_ROWS = 1 << 14  # gathered at once: bounds memory


@dataclass(frozen=True)
class BandStatistics:
    """Of the training split, or of groups.

    Attributes:
        mean: (M,) or (G, M) float64.
        deviation: the same shape; positive.
    """

    mean: np.ndarray
    deviation: np.ndarray

    def to_dict(self) -> dict:
        """In plain containers, for checkpoints."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    @classmethod
    def from_dict(cls, plain: dict) -> "BandStatistics":
        """From :meth:`to_dict`."""
        return cls(np.array(plain["mean"]), np.array(plain["deviation"]))


@dataclass(frozen=True)
class BandSums:
    """Sums over frames, from which the statistics of any set of clips follow.

    Attributes:
        frames: (N,) float64, how many.
        total: (N, M) float64, their sum in each band.
        square: (N, M) float64, the sum of their squares.
    """

    frames: np.ndarray
    total: np.ndarray
    square: np.ndarray

    @classmethod
    def of_clips(cls, spectrograms: Iterable[np.ndarray], n_clips: int, n_mels: int) -> "BandSums":
        """Sums of clips (M, F), which are looked at one by one and not kept."""
        frames, total, square = np.empty(n_clips), np.empty((n_clips, n_mels)), np.empty((n_clips, n_mels))
        for number, spectrogram in enumerate(spectrograms):
            wide = spectrogram.astype(np.float64)
            frames[number] = wide.shape[1]
            total[number] = wide.sum(axis=1)
            square[number] = np.einsum("mf,mf->m", wide, wide)
        return cls(frames, total, square)

    def by_group(self, codes: np.ndarray, n_groups: int) -> "BandSums":
        """Sums of the clips of each group, (N,) codes below G → (G, …); every group has a clip."""
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(n_groups))
        return BandSums(*(np.add.reduceat(sums[order], starts, axis=0) for sums in vars(self).values()))

    def by_list(self, offsets: np.ndarray, members: np.ndarray) -> "BandSums":
        """Sums of G lists of clips: list g is ``members[offsets[g]:offsets[g + 1]]``, and not empty."""
        pieces, start, n_lists = [], 0, len(offsets) - 1
        while start < n_lists:
            stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + _LISTED_ROWS, side="right")) - 1)
            clips, starts = members[offsets[start] : offsets[stop]], offsets[start:stop] - offsets[start]
            pieces.append([np.add.reduceat(sums[clips], starts, axis=0) for sums in vars(self).values()])
            start = stop
        return BandSums(*(np.concatenate(parts) for parts in zip(*pieces, strict=True)))

    def take(self, clips: np.ndarray) -> "BandSums":
        """Of some clips."""
        return BandSums(*(sums[clips] for sums in vars(self).values()))

    def overall(self) -> BandStatistics:
        """Statistics over all frames of all clips (M,); a band that never moves counts as of deviation 1."""
        frames = self.frames.sum()
        mean = self.total.sum(axis=0) / frames
        variance = self.square.sum(axis=0) / frames - mean**2
        moves = variance > 1e-12 * np.maximum(mean**2, 1)
        return BandStatistics(mean, np.sqrt(np.where(moves, variance, 1.0)))

    def statistics(self, prior: BandStatistics, prior_frames: float) -> BandStatistics:
        """Statistics of each row, with the prior's added as if they came from so many more frames.

        Args:
            prior: (M,).
            prior_frames: how many; 0 takes the rows' own.

        Returns:
            (N, M).
        """
        return BandStatistics(*shrunk(self.frames[:, None], self.total, self.square, prior, prior_frames))


def shrunk(frames, total, square, prior: BandStatistics, prior_frames: float) -> tuple:
    """Mean and deviation (…, M) of bands with the prior's added as if they came from so many more frames.

    All of the arguments, the prior's attributes too, are numpy arrays, or all are tensors.

    Args:
        frames: (…, 1) or a number.
        total, square: (…, M), as of :class:`BandSums`.
        prior: (M,).
        prior_frames: how many.
    """
    frames = frames + prior_frames
    mean = (total + prior_frames * prior.mean) / frames
    square = (square + prior_frames * (prior.deviation**2 + prior.mean**2)) / frames
    least = (LEAST_DEVIATION * prior.deviation) ** 2
    return mean, (square - mean**2).clip(min=least) ** 0.5


@dataclass(frozen=True)
class BandNormalization:
    """Normalises the mel bands of clips by sums over the frames of their groups.

    The sums are a row: how many frames, then each band's sum, then each band's sum of squares. The rows of clips add up
    to the row of their group. Letters: B clips.

    Attributes:
        prior: the statistics of the training split.
        prior_frames: a group's statistics are shrunk toward them as if they came from so many more frames.
    """

    prior: BandStatistics
    prior_frames: float

    @property
    def n_sums(self) -> int:
        """How many numbers a row has, 1 + 2 M."""
        return 1 + 2 * len(self.prior.mean)

    def sums_of(self, spectrogram: np.ndarray) -> np.ndarray:
        """The row (1 + 2 M,) float64 of a clip (M, F)."""
        sums = BandSums.of_clips([spectrogram], 1, len(spectrogram))
        return np.concatenate([sums.frames, sums.total[0], sums.square[0]])

    def __call__(self, spectrograms: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
        """Normalise clips (M, F) by the rows of their groups (B, 1 + 2 M)."""
        total, square = np.split(rows[:, 1:], 2, axis=1)
        statistics = BandSums(rows[:, 0], total, square).statistics(self.prior, self.prior_frames)
        mean, deviation = (array.astype(np.float32)[:, :, None] for array in vars(statistics).values())
        return [(clip - mean[place]) / deviation[place] for place, clip in enumerate(spectrograms)]
