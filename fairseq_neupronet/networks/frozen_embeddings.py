"""Embeddings of a network that stands still, computed once for each clip. Letters: B clips, D embedding width."""

from collections.abc import Callable

import torch
from torch import Tensor


class FrozenEmbeddings:
    """Remembers embeddings by split and position, 4 · D bytes and some overhead each, where the network has them."""

    def __init__(self):
        self._rows: dict[str, dict[int, Tensor]] = {}

    def __call__(self, split: str, index: Tensor, embed: Callable[[list[int]], Tensor]) -> Tensor:
        """Embeddings (B, D) of a batch.

        Args:
            split: the split's name.
            index: (B,) positions of the batch's clips in the split.
            embed: computes the embeddings (n, D) of the clips that stand at n places of the batch.
        """
        rows = self._rows.setdefault(split, {})
        clips = index.tolist()
        for place, clip in enumerate(clips):
            if clip not in rows:
                # Alone: the last digits depend on the clips in a pass, and a resumed training meets them in others.
                rows[clip] = embed([place])[0]
        return torch.stack([rows[clip] for clip in clips])

    def clear(self) -> None:
        """Forget everything: the network has moved."""
        self._rows.clear()
