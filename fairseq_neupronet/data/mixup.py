"""Mixup (Zhang et al., ICLR 2018) for whole batches of grouped clips. Letters: B clips, M mel bands, F frames."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.draws import below


@dataclass(frozen=True)
class Mixup:
    """Add to each clip a share of another clip of its batch, in the features that the network hears.

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
