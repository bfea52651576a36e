"""The groups of a batch side by side, and ``dot`` pooling within them, its gradient in closed form.

Letters: B clips, G groups, S clips of the largest, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


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
