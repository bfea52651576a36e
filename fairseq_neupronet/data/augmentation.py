"""SpecAugment for whole batches. Letters: B clips, M mel bands, F frames."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fairseq_neupronet.profiles.draws import below


@dataclass(frozen=True)
class SpecAugment:
    """SpecAugment (Park et al., Interspeech 2019) as the VocalSound baseline uses it, with a roll in time.

    The official implementation rolls the mel bands by mistake; ours rolls the frames. A mask never covers more
    than half of a clip's bands or frames, so that short clips keep something to hear.

    Attributes:
        frequency_mask: largest number of mel bands that one mask covers (0: none).
        time_mask: largest number of frames that one mask covers (0: none).
        time_roll: largest rotation in time, in frames (0: none).
    """

    DRAWS = 5  # a clip's uniform draws: size and place of the two masks, roll

    frequency_mask: int = 48
    time_mask: int = 192
    time_roll: int = 1024

    def __call__(self, source: Tensor, lengths: np.ndarray, uniform: np.ndarray) -> Tensor:
        """Mask and roll every clip within its own frames.

        Args:
            source: (B, M, F) float, zeros where frame ≥ length.
            lengths: (B,) frames of each clip.
            uniform: (B, DRAWS) in [0, 1).

        Returns:
            (B, M, F), a changed copy; masked cells are 0.
        """
        n_mels, n_frames = source.shape[1:]
        bands = below(uniform[:, 0], min(self.frequency_mask, n_mels // 2) + 1)
        first_band = below(uniform[:, 1], n_mels - bands + 1)
        frames = below(uniform[:, 2], np.minimum(self.time_mask, lengths // 2) + 1)
        first_frame = below(uniform[:, 3], lengths - frames + 1)
        roll = below(uniform[:, 4], 2 * self.time_roll + 1) - self.time_roll

        places = np.arange(n_frames)
        origin = np.where(places < lengths[:, None], (places - roll[:, None]) % lengths[:, None], places)  # (B, F)
        kept_bands = _outside(np.arange(n_mels), first_band, bands)
        kept_frames = _outside(origin, first_frame, frames)

        def on_device(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(source.device)

        rolled = source.gather(2, on_device(origin).unsqueeze(1).expand_as(source))
        rolled *= on_device(kept_bands).unsqueeze(2)
        rolled *= on_device(kept_frames).unsqueeze(1)
        return rolled


def _outside(places: np.ndarray, first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Whether a place is outside a mask of ``count`` places from ``first`` on. (B, P) or (P,), (B,) → (B, P) bool."""
    return (places < first[:, None]) | (places >= (first + count)[:, None])
