"""InfoNCE of wav2vec 2.0 (Baevski et al. 2020, equation 3), without a copy of the negatives per anchor.

Tensor letters: A anchors, N negatives per anchor, B clips, T encoder steps, C width of the projected features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairseq_neupronet.backbones.wav2vec2.negatives import Negatives

# Most entries of one (anchors, all steps) product: 128 MiB of float32.
_MAX_PRODUCT = 2**25
_EPS = 1e-8


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
    """Cosine similarities of each anchor with its positive and its negatives, divided by the temperature.

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
