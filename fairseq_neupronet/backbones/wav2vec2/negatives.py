"""Negatives of the contrastive loss: from the anchor's own clip, and from clips of other profiles only.

Tensor letters: B clips, T encoder steps, A anchors (masked steps of all clips), N = n_within + n_across.

The official sampler joins steps before and after the anchor's profile before it reshapes, which gives most anchors
negatives from one side only, takes padded steps, and falls back to the anchor's own profile when a batch has no
other. Here each anchor draws for itself, from unpadded steps, and goes without where there is nothing to draw.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# A draw is this wide a random integer modulo the number of choices: the bias is below 1e-12 for any batch.
_DRAW = 2**62


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
