"""``dot`` pooling within groups side by side, with its gradient in closed form. Letters: as in group_blocks."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairseq_neupronet.networks.group_blocks import GroupBlocks


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
