"""Profile pooling: for each clip, one embedding of the profile that it belongs to (NeuProNet paper; official
options ``use_profile_attention``, ``use_cossim_attention``, ``use_dot_softmax_attention`` and their combinations).

Tensor letters: B clips, B' clips that may be pooled (B' = B in training), D embedding width; where groups stand side by
side, G groups, S clips of the largest.

For clip i with embedding e_i and group G_i (the clips of its profile), profile embeddings p_j:

==========  ==========================================================================================
mean        mean over G_i of p_j
profile     mean over G_i of p_j + e_i * softmax over D of p_j
cosine      mean over G_i of w_ij p̂_j; p̂ L2-normalised; w = cos(e_i, p_j) or 1 - cos(e_i, p_j)
dot         sum of softmax over G_i of (p_j . e_i / temperature), times p_j
==========  ==========================================================================================

``+`` chains them in the order profile, cosine, dot: each step replaces p_j by the vector v_ij that the step would
have averaged, and only the last one reduces over the group (the mean, or the softmax of ``dot``).

Every v_ij of these chains is scale_ij * (p_j + e_i * s_j), s_j a function of p_j alone, so that its norm and its
product with e_i are sums of matrix products: no (B, B', D) tensor and no loop over clips is needed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fairseq_neupronet.config.model import COSINE_SIGNS, NeuProNetOptions
from fairseq_neupronet.errors import InputError

_EPS = 1e-12


@dataclass(frozen=True)
class PoolingOptions:
    """What a pooling may depend on beside its three tensors.

    Args:
        temperature: divides the scores of ``dot``; 5 in the official CNN model, 1 in the transformer model.
        cosine_sign: ``similarity`` weighs by the cosine (CNN model), ``distance`` by 1 - cosine (transformer model).
    """

    temperature: float = NeuProNetOptions.temperature
    cosine_sign: str = NeuProNetOptions.cosine_sign


PoolingFunction = Callable[[Tensor, Tensor, Tensor, PoolingOptions], Tensor]
POOLINGS: dict[str, PoolingFunction] = {}


def register_pooling(name: str) -> Callable[[PoolingFunction], PoolingFunction]:
    """Make ``function(clip (B, D), profile (B', D), same_profile (B, B') bool, options) -> (B, D)`` known by a name."""

    def register(function: PoolingFunction) -> PoolingFunction:
        POOLINGS[name] = function
        return function

    return register


def same_profile_mask(codes: Tensor, other_codes: Tensor | None = None) -> Tensor:
    """Mark which clips share a profile.

    Args:
        codes: (B,) integer profile codes.
        other_codes: (B',) codes of the clips that may be pooled; ``codes`` themselves when left out.

    Returns:
        (B, B') bool, True where the codes are equal.
    """
    other_codes = codes if other_codes is None else other_codes
    return codes[:, None] == other_codes[None, :]


class GroupBlocks(NamedTuple):
    """Where the clips of a batch stand when each group has a row of its own.

    Attributes:
        index: (G, S) int64 clips of each group; 0 where it has fewer than S.
        filled: (G, S) bool, True where ``index`` is a clip.
        place: (B,) int64, where each clip stands in the flattened (G · S).
    """

    index: Tensor
    filled: Tensor
    place: Tensor

    @property
    def has_gaps(self) -> bool:
        """Whether some group has fewer than S clips."""
        return self.filled.numel() > len(self.place)

    def lay_out(self, rows: Tensor) -> Tensor:
        """(B, D) → (G, S, D), zeros where there is no clip."""
        return _LayOut.apply(rows, self)

    def collect(self, blocks: Tensor) -> Tensor:
        """(G, S, D) → (B, D)."""
        return _Collect.apply(blocks, self)


class _LayOut(torch.autograd.Function):
    """Its gradient is the other: each clip stands in one place, so that nothing has to be added up."""

    @staticmethod
    def forward(ctx, rows: Tensor, blocks: GroupBlocks) -> Tensor:
        ctx.blocks = blocks
        laid_out = rows.index_select(0, blocks.index.flatten()).unflatten(0, blocks.index.shape)
        return laid_out.masked_fill_(~blocks.filled.unsqueeze(2), 0) if blocks.has_gaps else laid_out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _Collect.apply(gradient, ctx.blocks), None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx, blocks: Tensor, layout: GroupBlocks) -> Tensor:
        ctx.layout = layout
        return blocks.flatten(0, 1).index_select(0, layout.place)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _LayOut.apply(gradient, ctx.layout), None


def group_blocks(codes: Tensor) -> GroupBlocks:
    """Lay out clips by their codes (B,), B at least 1."""
    n_clips = len(codes)
    order = codes.argsort(stable=True)
    _, sizes = torch.unique_consecutive(codes[order], return_counts=True)
    n_groups, largest = len(sizes), int(sizes.max())
    group = torch.arange(n_groups).repeat_interleave(sizes)
    rank = torch.arange(n_clips) - (sizes.cumsum(0) - sizes)[group]
    place = torch.empty(n_clips, dtype=torch.int64)
    place[order] = group * largest + rank
    index = torch.zeros(n_groups * largest, dtype=torch.int64)
    filled = torch.zeros(n_groups * largest, dtype=torch.bool)
    index[place], filled[place] = torch.arange(n_clips), True
    return GroupBlocks(index.view(n_groups, largest), filled.view(n_groups, largest), place)


class DotInBlocks(torch.autograd.Function):
    """Each clip's sum over its group of softmax(p_j . e_i / temperature) p_j: (B, D), (B, D) → (B, D)."""

    @staticmethod
    def forward(ctx, clip: Tensor, profile: Tensor, blocks: GroupBlocks, temperature: float) -> Tensor:
        clips, profiles = blocks.lay_out(clip), blocks.lay_out(profile)
        scores = torch.bmm(clips, profiles.mT).div_(temperature)
        if blocks.has_gaps:
            scores.masked_fill_(~blocks.filled.unsqueeze(1), -torch.inf)
        weights = torch.softmax(scores, dim=2)
        ctx.save_for_backward(clips, profiles, weights)
        ctx.blocks, ctx.temperature = blocks, temperature
        return blocks.collect(torch.bmm(weights, profiles))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        clips, profiles, weights = ctx.saved_tensors
        gradient = ctx.blocks.lay_out(gradient)
        by_weights = torch.bmm(gradient, profiles.mT)
        by_scores = torch._softmax_backward_data(by_weights, weights, 2, weights.dtype).div_(ctx.temperature)
        by_profile = torch.bmm(weights.mT, gradient).baddbmm_(by_scores.mT, clips)
        return ctx.blocks.collect(torch.bmm(by_scores, profiles)), ctx.blocks.collect(by_profile), None, None


def _attention(*steps: str) -> PoolingFunction:
    """Build the pooling that chains ``steps`` (any of profile, cosine, dot; none is the mean).

    It takes any number of leading dimensions, so that several groups can be pooled at once.
    """

    def pool(clip: Tensor, profile: Tensor, same_profile: Tensor, options: PoolingOptions) -> Tensor:
        gate = torch.softmax(profile, dim=-1) if "profile" in steps else None
        scale, others = None, ~same_profile
        if "cosine" in steps or "dot" in steps:
            product = clip @ profile.mT
            if gate is not None:
                product = product + clip.square() @ gate.mT
        if "cosine" in steps:
            square = profile.square().sum(-1).unsqueeze(-2)
            if gate is not None:
                square = square + 2 * clip @ (profile * gate).mT + clip.square() @ gate.square().mT
            norm = square.clamp(min=_EPS**2).sqrt()
            cosine = product / norm / clip.norm(dim=-1, keepdim=True).clamp(min=_EPS)
            scale = (cosine if options.cosine_sign == "similarity" else 1 - cosine) / norm
        if "dot" in steps:
            scores = (product if scale is None else scale * product) / options.temperature
            # The lowest finite number, not -inf: a row without any member stays finite, and so do its gradients.
            scores = scores.masked_fill(others, torch.finfo(scores.dtype).min)
            weights = torch.softmax(scores, dim=-1)
        else:
            weights = same_profile / same_profile.sum(-1, keepdim=True).clamp(min=1).to(clip.dtype)
        # Another group's scale must not turn 0 * inf into NaN, nor a row without members into a uniform softmax.
        weights = (weights if scale is None else weights * scale).masked_fill(others, 0)
        pooled = weights @ profile
        return pooled if gate is None else pooled + clip * (weights @ gate)

    def pool_blocks(clip: Tensor, profile: Tensor, blocks: GroupBlocks, options: PoolingOptions) -> Tensor:
        if steps == ("dot",):
            return DotInBlocks.apply(clip, profile, blocks, options.temperature)
        members = blocks.filled.unsqueeze(1).expand(-1, blocks.index.shape[1], -1)
        return blocks.collect(pool(blocks.lay_out(clip), blocks.lay_out(profile), members, options))

    pool.in_blocks = pool_blocks
    return pool


for _length in range(4):
    for _steps in combinations(("profile", "cosine", "dot"), _length):
        POOLINGS["+".join(_steps) or "mean"] = _attention(*_steps)


class ProfilePooling(nn.Module):
    """Pool the profile embeddings of each clip's group.

    Args:
        pooling: a name in :data:`POOLINGS`: mean, profile, cosine, dot, or a combination such as ``cosine+dot``.
        temperature: see :class:`PoolingOptions`.
        cosine_sign: see :class:`PoolingOptions`.
        normalize: as the official CNN model does. Acts only where the pooling has a cosine step: the clip embedding
            is L2-normalised before everything else, its half of the concatenation too, and the pooled one at the end.

    Raises:
        InputError: unknown pooling or sign, or a temperature that is not positive.
    """

    def __init__(
        self,
        pooling: str = NeuProNetOptions.pooling,
        temperature: float = NeuProNetOptions.temperature,
        cosine_sign: str = NeuProNetOptions.cosine_sign,
        normalize: bool = NeuProNetOptions.normalize_embeddings,
    ):
        super().__init__()
        if pooling not in POOLINGS:
            raise InputError(f"Unknown pooling {pooling!r}; known are {', '.join(POOLINGS)}.")
        if cosine_sign not in COSINE_SIGNS:
            raise InputError(f"Unknown cosine_sign {cosine_sign!r}; known are {', '.join(COSINE_SIGNS)}.")
        if not 0 < temperature < float("inf"):
            raise InputError(f"The temperature of the pooling has to be positive, not {temperature}.")
        self.pooling = pooling
        self.options = PoolingOptions(temperature, cosine_sign)
        self.normalize = normalize and "cosine" in pooling.split("+")

    def extra_repr(self) -> str:
        return f"{self.pooling}, {self.options}, normalize={self.normalize}"

    def within(self, clip: Tensor, profile: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Pool each clip over the clips of its code, for clips (B, D), profiles (B, D) and codes (B,).

        The same as :meth:`forward` with the codes' mask. On a CPU many small groups are laid side by side, padded to
        the largest, so that time and memory grow with the number of groups and not with the batch's square.
        """
        in_blocks = getattr(POOLINGS[self.pooling], "in_blocks", None)
        if in_blocks is None or codes.device.type != "cpu":
            return self(clip, profile, same_profile_mask(codes))
        blocks = group_blocks(codes)
        if blocks.index.numel() * blocks.index.shape[1] >= len(codes) ** 2:
            return self(clip, profile, same_profile_mask(codes))
        return self._pool(clip, profile, lambda *embeddings: in_blocks(*embeddings, blocks, self.options))

    def forward(self, clip: Tensor, profile: Tensor, same_profile: Tensor) -> tuple[Tensor, Tensor]:
        """Pool; the mask may be rectangular, so a part of the clips can be pooled over all of them.

        Args:
            clip: (B, D) clip embeddings.
            profile: (B', D) profile embeddings.
            same_profile: (B, B') bool. Each row should hold a True (a clip belongs to its own group); the pooled
                embedding of a row without one is defined as 0.

        Returns:
            The clip embeddings (B, D), L2-normalised where ``normalize`` acts, and the pooled ones (B, D).
        """
        function = POOLINGS[self.pooling]
        return self._pool(clip, profile, lambda *embeddings: function(*embeddings, same_profile, self.options))

    def _pool(self, clip: Tensor, profile: Tensor, pool: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        dtype = clip.dtype
        # Softmax scores at temperature 1 and squared norms do not survive half precision.
        with torch.autocast(clip.device.type, enabled=False):
            wide = torch.promote_types(dtype, torch.float32)
            clip, profile = clip.to(wide), profile.to(wide)
            if self.normalize:
                clip = F.normalize(clip, dim=-1)
            pooled = pool(clip, profile)
            if self.normalize:
                pooled = F.normalize(pooled, dim=-1)
        return clip.to(dtype), pooled.to(dtype)
