"""What training changes in whole batches of spectrograms. Letters: B clips, M mel bands, F frames."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from fairseq_neupronet.config.data import DataOptions
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.draws import below


class FrequencyWarp:
    """Stretch each clip's frequencies by a factor of its own, as if its voice had a longer or shorter vocal tract.

    Vocal tract length perturbation (Jaitly and Hinton, ICML workshop on deep learning for audio, 2013), on mel bands:
    a band takes the value that is read, linearly between bands, at its centre times the factor. Beyond the outermost
    centres these bands are read.

    Args:
        limit: the factor's logarithm is uniform between −limit and limit; above 0, at most 1.
        centres: (M,) of the bands, in Hz, increasing.

    Raises:
        InputError: another limit.
    """

    DRAWS = 1  # of a clip: its factor

    def __init__(self, limit: float, centres: np.ndarray):
        if not 0 < limit <= 1:
            raise InputError(
                f"task.frequency_warp={limit}: give a number above 0, at most 1 (.1 stretches by some 10 "
                "%), or leave it unset for none"
            )
        self.limit, self.centres = limit, np.asarray(centres, float)

    def __call__(self, source: Tensor, uniform: np.ndarray) -> Tensor:
        """Stretch.

        Args:
            source: (B, M, F) float, zeros on padding, which stay.
            uniform: (B, DRAWS) in [0, 1).

        Returns:
            (B, M, F), a changed copy.
        """
        factor = np.exp((2 * uniform[:, 0] - 1) * self.limit)
        bands = np.arange(len(self.centres))
        place = np.interp(factor[:, None] * self.centres, self.centres, bands)  # (B, M), fractions of bands
        lower = np.minimum(place.astype(np.int64), max(len(bands) - 2, 0))
        share = torch.from_numpy((place - lower).astype(np.float32)).to(source.device).unsqueeze(2)
        lower = torch.from_numpy(lower).to(source.device).unsqueeze(2).expand_as(source)
        upper = (lower + 1).clamp_(max=len(bands) - 1)
        return torch.lerp(source.gather(1, lower), source.gather(1, upper), share)


@dataclass(frozen=True)
class SpecAugment:
    """SpecAugment (Park et al., Interspeech 2019) as the VocalSound baseline uses it, with a roll in time.

    The official implementation rolls the mel bands by mistake; ours rolls the frames. A mask never covers more
    than half of a clip's bands or frames, so that something is left of short clips.

    Attributes:
        frequency_mask: largest number of mel bands that one mask covers (0: none).
        time_mask: largest number of frames that one mask covers (0: none).
        time_roll: largest rotation in time, in frames (0: none).
    """

    DRAWS = 5  # a clip's uniform draws: size and place of the two masks, roll

    frequency_mask: int = DataOptions.frequency_mask
    time_mask: int = DataOptions.time_mask
    time_roll: int = DataOptions.time_roll

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


@dataclass(frozen=True)
class Mixup:
    """Add to each clip a share of another clip of its batch, in the features that the network receives.

    A clip keeps the greater share, its own length and its profile. The only clip of a batch stays as it is.

    Attributes:
        alpha: the greater share is that of a draw from Beta(alpha, alpha) (Zhang et al., §2); above 0.

    Raises:
        InputError: an alpha that is not positive and finite.
    """

    DRAWS = 2  # a clip's uniform draws: its share, its partner

    alpha: float

    def __post_init__(self):
        if not 0 < self.alpha < float("inf"):
            raise InputError(f"task.mixup={self.alpha}: give a number above 0, or leave it unset for none")

    def __call__(self, source: Tensor, uniform: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Mix.

        Args:
            source: (B, M, F) float, zeros on padding; a padded partner adds nothing there.
            uniform: (B, DRAWS) in [0, 1).

        Returns:
            The mixtures (B, M, F), the partners (B,) int64 and the clips' own shares (B,) float32, 1 without a partner.
        """
        n_clips = len(source)
        share = betaincinv(self.alpha, self.alpha, uniform[:, 0])
        share = np.maximum(share, 1 - share).astype(np.float32)
        places = np.arange(n_clips)
        if n_clips == 1:
            partner, share = places, np.ones(1, np.float32)
        else:
            other = below(uniform[:, 1], n_clips - 1)
            partner = other + (other >= places)
        own, partner = (torch.from_numpy(array).to(source.device) for array in (share, partner))
        weight = own[:, None, None]
        return source * weight + source[partner] * (1 - weight), partner, own


def _outside(places: np.ndarray, first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Whether a place is outside a mask of ``count`` places from ``first`` on. (B, P) or (P,), (B,) → (B, P) bool."""
    return (places < first[:, None]) | (places >= (first + count)[:, None])
