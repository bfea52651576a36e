"""The Gumbel product quantiser of wav2vec 2.0 (Baevski et al., NeurIPS 2020, section 2; Jang et al., ICLR 2017).

The codeword lookup is a product of matrices: fairseq lays out (N, G·V, D/G) to sum over codewords, hundreds of
megabytes for a batch of a recipe's size. Parameters, numbers and draws are those of fairseq's.

Letters: N steps, C width of the steps, G groups, V codewords a group, D width of the quantised vectors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CodebookQuantizer(nn.Module):
    """Replaces each step by a codeword of each group: drawn by the step's scores in training, else the likeliest.

    Args:
        width: C.
        num_vars: V.
        groups: G, each with a codebook of its own.
        quantized_width: D.
        temperatures: of the draws, at the start and in the end, and the factor of one update.
    """

    def __init__(
        self, width: int, num_vars: int, groups: int, quantized_width: int, temperatures: tuple[float, float, float]
    ):
        super().__init__()
        self.groups, self.num_vars, self.temperatures = groups, num_vars, temperatures
        self.vars = nn.Parameter(torch.rand(1, groups * num_vars, quantized_width // groups))
        self.weight_proj = nn.Linear(width, groups * num_vars)
        nn.init.normal_(self.weight_proj.weight)
        nn.init.zeros_(self.weight_proj.bias)
        self.set_num_updates(0)

    def set_num_updates(self, num_updates: int) -> None:
        """The temperature falls with the number of updates."""
        start, end, factor = self.temperatures
        self.temperature = max(start * factor**num_updates, end)

    def forward(self, x: Tensor) -> dict:
        """Quantise steps (N, C).

        Returns:
            ``x`` (N, D), ``code_perplexity`` (), ``prob_perplexity`` (), ``num_vars`` G·V and ``temp``.
        """
        scores = self.weight_proj(x).view(-1, self.groups, self.num_vars)
        hard = F.one_hot(scores.detach().argmax(dim=-1), self.num_vars).to(scores.dtype)
        chosen = hard
        if self.training:
            flat = scores.reshape(-1, self.num_vars).float()
            chosen = F.gumbel_softmax(flat, tau=self.temperature, hard=True).type_as(scores).view_as(scores)
        codewords = self.vars.view(self.groups, self.num_vars, -1)
        return {
            "x": torch.einsum("ngv,gvd->ngd", chosen, codewords).flatten(1),
            "code_perplexity": _perplexity(_mean(hard.float())),
            "prob_perplexity": _perplexity(_mean(scores.float().softmax(dim=-1))),
            "num_vars": self.num_vars * self.groups,
            "temp": self.temperature,
        }


def _mean(rows: Tensor) -> Tensor:
    """Over the first dimension; of none zeros, not NaN, which a loss without any step would become."""
    return rows.mean(dim=0) if len(rows) else rows.sum(dim=0)


def _perplexity(shares: Tensor) -> Tensor:
    """Sum over groups of the exponentiated entropy; ``shares`` (G, V)."""
    return torch.exp(-(shares * torch.log(shares + 1e-7)).sum(dim=-1)).sum()
