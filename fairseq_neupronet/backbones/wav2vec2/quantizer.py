"""fairseq's Gumbel quantiser with the codeword lookup as a product of matrices.

fairseq lays out (N, G·V, D/G) to sum over codewords, hundreds of megabytes for a batch of a recipe's size.
Letters: B clips, T steps, N = B·T, G groups, V codewords a group, D width of the quantised vectors.
"""

import torch
import torch.nn.functional as F
from fairseq.modules import GumbelVectorQuantizer
from torch import Tensor


class CodebookQuantizer(GumbelVectorQuantizer):
    """The same parameters, numbers and draws as the parent's, for groups with codebooks of their own, time first."""

    def forward(self, x: Tensor) -> dict:
        """Quantise.

        Args:
            x: (B, T, C).

        Returns:
            ``x`` (B, T, D), ``code_perplexity``, ``prob_perplexity``, ``num_vars`` and ``temp``.
        """
        n_clips, n_steps, width = x.shape
        scores = self.weight_proj(x.reshape(-1, width)).view(-1, self.groups, self.num_vars)
        hard = F.one_hot(scores.detach().argmax(dim=-1), self.num_vars).to(scores.dtype)
        chosen = hard
        if self.training:
            flat = scores.reshape(-1, self.num_vars).float()
            chosen = F.gumbel_softmax(flat, tau=self.curr_temp, hard=self.hard).type_as(scores).view_as(scores)
        codewords = self.vars.view(self.groups, self.num_vars, -1)
        quantized = torch.einsum("ngv,gvd->ngd", chosen, codewords).flatten(1)
        return {
            "x": quantized.view(n_clips, n_steps, quantized.shape[1]),
            "code_perplexity": _perplexity(_mean(hard.float())),
            "prob_perplexity": _perplexity(_mean(scores.float().softmax(dim=-1))),
            "num_vars": self.num_vars * self.groups,
            "temp": self.curr_temp,
        }


def _mean(rows: Tensor) -> Tensor:
    """Over the first dimension; of none zeros, not NaN, which a loss without any step would become."""
    return rows.mean(dim=0) if len(rows) else rows.sum(dim=0)


def _perplexity(shares: Tensor) -> Tensor:
    """Sum over groups of the exponentiated entropy; ``shares`` (G, V)."""
    return torch.exp(-(shares * torch.log(shares + 1e-7)).sum(dim=-1)).sum()
