"""The contrastive task of wav2vec 2.0 (Baevski et al., NeurIPS 2020): quantised targets, negatives and InfoNCE.

The official sampler of negatives joins steps before and after the anchor's profile before it reshapes, which gives most
anchors negatives from one side only, takes padded steps, and falls back to the anchor's own profile when a batch has no
other. Here each anchor draws for itself, from unpadded steps, and goes without where there is nothing to draw.

Tensor letters: B clips, T encoder steps, A anchors (masked steps of all clips), N negatives per anchor, within its clip
and across clips, C width of the features; of the quantiser N steps, G groups, V codewords each, D width of its result.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# A draw is this wide a random integer modulo the number of choices: the bias is below 1e-12 for any batch.
_DRAW = 2**62
# Most entries of one (anchors, all steps) product: 128 MiB of float32.
_MAX_PRODUCT = 2**25
_EPS = 1e-8


class Negatives(NamedTuple):
    """Drawn negatives.

    Attributes:
        index: (A, N) int64 into the flattened (B · T) steps, within-clip draws first; 0 where not valid.
        valid: (A, N) bool, False where an anchor had nothing to draw from.
        n_without_across: int64 scalar, anchors that wanted across-clip negatives and have no other group.
    """

    index: Tensor
    valid: Tensor
    n_without_across: Tensor


def _sort_by_block(block: Tensor, candidate: Tensor, n_blocks: int) -> tuple[Tensor, Tensor, Tensor]:
    """List the candidate steps block by block.

    Args:
        block: (B · T,) number below ``n_blocks`` of each step's block.
        candidate: (B · T,) bool.

    Returns:
        (B · T,) flat steps, candidates of block 0 first, non-candidates last; and per block (n_blocks,) where its
        candidates start in that list and how many there are.
    """
    # Non-candidates sort behind all blocks; counting without boolean indexing keeps the device busy.
    key = torch.where(candidate, block, n_blocks)
    count = torch.zeros(n_blocks + 1, dtype=torch.int64, device=block.device).scatter_add_(0, key, torch.ones_like(key))
    start = count.cumsum(0) - count
    return key.argsort(stable=True), start[:-1], count[:-1]


def _draw(n_choices: Tensor, n_draws: int, generator: torch.Generator | None) -> Tensor:
    """Draw (A, n_draws) numbers below n_choices (A,); 0 where there is no choice."""
    device = n_choices.device if generator is None else generator.device
    draws = torch.randint(_DRAW, (len(n_choices), n_draws), generator=generator, device=device)
    return draws.to(n_choices.device) % n_choices.clamp(min=1)[:, None]


def sample_negatives(
    anchor_clip: Tensor,
    anchor_step: Tensor,
    candidate: Tensor,
    group: Tensor,
    n_within: int,
    n_across: int,
    generator: torch.Generator | None = None,
) -> Negatives:
    """Draw negatives, uniformly and with replacement.

    Args:
        anchor_clip: (A,) int64 clip of each anchor.
        anchor_step: (A,) int64 step of each anchor.
        candidate: (B, T) bool, the steps that may be drawn (the unpadded ones).
        group: (B,) int64 codes; negatives across clips come from clips of another code. The profile, or the clip's
            number when only the anchor's own clip is to be left out.
        n_within: negatives per anchor from the other candidate steps of its own clip.
        n_across: negatives per anchor from all candidate steps of clips of other groups.
        generator: source of randomness; torch's global one when left out.

    Returns:
        The draws, on the device of ``candidate``.
    """
    n_clips, n_steps = candidate.shape
    flat_candidate = candidate.flatten()
    clip_of_step = torch.arange(n_clips, device=candidate.device).repeat_interleave(n_steps)
    parts = []

    by_clip, start, count = _sort_by_block(clip_of_step, flat_candidate, n_clips)
    is_candidate = candidate[anchor_clip, anchor_step]
    rank = candidate.cumsum(1)[anchor_clip, anchor_step] - 1
    n_others = count[anchor_clip] - is_candidate.long()
    draw = _draw(n_others, n_within, generator)
    draw = draw + (is_candidate[:, None] & (draw >= rank[:, None])).long()
    parts.append((by_clip, start[anchor_clip][:, None] + draw, n_others))

    order = group.argsort(stable=True)
    new_group = (group[order][1:] != group[order][:-1]).long()
    dense = torch.zeros_like(group, dtype=torch.int64)
    dense[order[1:]] = new_group.cumsum(0)
    by_group, start, count = _sort_by_block(dense[clip_of_step], flat_candidate, n_clips)
    own = dense[anchor_clip]
    n_others = count.sum() - count[own]
    # The anchor's own group is one block of the list: draws at or past its start jump over it.
    draw = _draw(n_others, n_across, generator)
    draw = draw + (draw >= start[own][:, None]).long() * count[own][:, None]
    parts.append((by_group, draw, n_others))

    valid = torch.cat([(n > 0)[:, None].expand_as(place) for _, place, n in parts], dim=1)
    index = torch.cat([steps[place.clamp(max=steps.numel() - 1)] for steps, place, _ in parts], dim=1)
    without = (n_others == 0).sum() if n_across > 0 else n_others.new_zeros(())
    return Negatives(index.masked_fill(~valid, 0), valid, without)


class _GatheredProduct(torch.autograd.Function):
    """Entries ``index`` (A, 1 + N) of ``queries`` (A, C) @ ``steps`` (B · T, C).T, in blocks of bounded size.

    ``torch.gather`` would keep the whole product for its backward pass: 2 GB at batch 512.
    """

    @staticmethod
    def forward(ctx, queries: Tensor, steps: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(queries, steps, index)
        ctx.rows = max(1, _MAX_PRODUCT // max(1, len(steps)))
        blocks = zip(queries.split(ctx.rows), index.split(ctx.rows), strict=True)
        return torch.cat([(some @ steps.T).gather(1, where) for some, where in blocks])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        queries, steps, index = ctx.saved_tensors
        parts, steps_gradient = [], torch.zeros_like(steps)
        for some, where, given in zip(*(x.split(ctx.rows) for x in (queries, index, gradient)), strict=True):
            product_gradient = given.new_zeros(len(some), len(steps)).scatter_add_(1, where, given)
            parts.append(product_gradient @ steps)
            steps_gradient.addmm_(product_gradient.T, some)
        return torch.cat(parts), steps_gradient, None


def _vector_keys(vectors: Tensor) -> Tensor:
    """Give vectors (M, C) integer keys (M,), equal for bitwise equal vectors and else with probability ~2^-63.

    A weighted sum of the bit patterns in wrapping integer arithmetic: exact in any order of summing, so equal vectors
    can be found without comparing (A, N, C) numbers.
    """
    # Adding 0 turns -0.0 into 0.0, which is equal to it.
    vectors = vectors.detach() + 0.0
    if vectors.dtype == torch.float64:
        bits = vectors.view(torch.int64)
    else:
        bits = vectors.float().view(torch.int32).long()
    fixed = torch.Generator().manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (vectors.shape[1],), generator=fixed) * 2 + 1
    return (bits * weights.to(bits.device)).sum(1)


def infonce_logits(
    anchors: Tensor, targets_all: Tensor, positive_index: Tensor, negatives: Negatives, temperature: float
) -> Tensor:
    """Cosine similarities of each anchor with its positive and its negatives, divided by the temperature (equation 3).

    The similarities are gathered from the product of all anchors with all steps, so that (A, N, C) is never laid out.

    Args:
        anchors: (A, C) projected transformer outputs at the masked steps.
        targets_all: (B · T, C) projected, perhaps quantised, true features of all steps.
        positive_index: (A,) int64 into ``targets_all``.
        negatives: drawn by :func:`sample_negatives`.
        temperature: ``logit_temp``.

    Returns:
        (A, 1 + N), the positive first. -inf for a negative that is not valid, and for one whose target equals the
        positive's exactly (common with quantised targets), as wav2vec 2.0 has it.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        wide = torch.promote_types(anchors.dtype, torch.float32)
        queries = F.normalize(anchors.to(wide), dim=-1, eps=_EPS) / temperature
        steps = F.normalize(targets_all.to(wide), dim=-1, eps=_EPS)
        index = torch.cat([positive_index[:, None], negatives.index], dim=1)
        logits = _GatheredProduct.apply(queries, steps, index)
    keys = _vector_keys(targets_all)
    same_as_positive = keys[negatives.index] == keys[positive_index][:, None]
    excluded = F.pad(~negatives.valid | same_as_positive, (1, 0), value=False)
    return logits.masked_fill(excluded, -torch.inf)


def infonce_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of logits (A, 1 + N) against index 0, summed over the anchors.

    An anchor without any negative adds 0, and so does a batch without anchors; the gradient path stays.
    """
    target = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return F.cross_entropy(logits, target, reduction="sum")


class CodebookQuantizer(nn.Module):
    """Replaces each step by a codeword of each group: drawn by the step's scores in training, else the likeliest.

    The Gumbel product quantiser (section 2; Jang et al., ICLR 2017), its parameters, numbers and draws fairseq's. The
    codeword lookup is a product of matrices: fairseq lays out (N, G·V, D/G) to sum over codewords, hundreds of
    megabytes for a batch of a recipe's size.

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
