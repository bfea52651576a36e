"""Normalisation of mel bands by a clip's group (``task.profile_normalize``), as a trained model does it.

Sums over frames are kept in one row: how many frames, then each band's sum, then each band's sum of squares. Rows of
clips add up to the row of their group. Letters: B clips, M mel bands, F frames.
"""

from dataclasses import dataclass

import numpy as np

from fairseq_neupronet.profiles.band_statistics import BandStatistics, BandSums


@dataclass(frozen=True)
class BandNormalization:
    """What a checkpoint knows of it.

    Attributes:
        prior: the statistics of the training split.
        prior_frames: a group's statistics are shrunk toward them as if they came from so many more frames.
    """

    prior: BandStatistics
    prior_frames: float

    @property
    def n_sums(self) -> int:
        """Numbers of a row, 1 + 2 M."""
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
