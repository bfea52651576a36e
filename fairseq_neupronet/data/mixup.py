"""Mixup (Zhang et al., ICLR 2018) for whole batches of grouped clips. Letters: B clips, M mel bands, F frames."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.draws import below

PARTNERS = ("any", "same_profile", "other_profile")


@dataclass(frozen=True)
class Mixup:
    """Add to each clip a share of another clip of its batch, in the features that the network hears.

    A clip keeps the greater share, its own length and its profile. With ``same_profile`` a mixture is therefore of one
    voice, and a group stays what it is; with ``other_profile`` a group hears others in the background.

    Attributes:
        alpha: the greater share is that of a draw from Beta(alpha, alpha) (Zhang et al., §2); above 0.
        partners: one of :data:`PARTNERS`, whom a clip is mixed with. One without such a clip in its batch stays alone.

    Raises:
        InputError: an alpha that is not positive and finite.
    """

    DRAWS = 2  # a clip's uniform draws: its share, its partner

    alpha: float
    partners: str = "any"

    def __post_init__(self):
        if not 0 < self.alpha < float("inf"):
            raise InputError(f"task.mixup={self.alpha}: give a number above 0, or leave it unset for none")

    def __call__(
        self, source: Tensor, profile: np.ndarray | None, uniform: np.ndarray
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mix.

        Args:
            source: (B, M, F) float, zeros on padding; a padded partner adds nothing there.
            profile: (B,) codes; None only with ``any``.
            uniform: (B, DRAWS) in [0, 1).

        Returns:
            The mixtures (B, M, F), the partners (B,) int64 and the clips' own shares (B,) float32, 1 without a partner.
        """
        share = betaincinv(self.alpha, self.alpha, uniform[:, 0])
        share = np.maximum(share, 1 - share).astype(np.float32)
        partner, found = self._partner(len(source), profile, uniform[:, 1])
        own = torch.from_numpy(np.where(found, share, np.float32(1))).to(source.device)
        partner = torch.from_numpy(partner).to(source.device)
        weight = own[:, None, None]
        return source * weight + source[partner] * (1 - weight), partner, own

    def _partner(self, n_clips: int, profile: np.ndarray | None, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A place in the batch for each clip, its own where it finds none, and whether it found one."""
        may_mix = ~np.eye(n_clips, dtype=bool)
        if self.partners != "any":
            same = profile[:, None] == profile[None]
            may_mix &= same if self.partners == "same_profile" else ~same
        count = may_mix.sum(axis=1)
        nth = below(uniform, count) + 1
        partner = (may_mix.cumsum(axis=1) < nth[:, None]).sum(axis=1)
        return np.where(count > 0, partner, np.arange(n_clips)), count > 0
