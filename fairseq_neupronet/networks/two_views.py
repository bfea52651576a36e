"""A clip heard twice: as it is, and normalised by its profile; each view by a backbone and a head of its own.

What normalisation takes away, the clip's own level and colour, says something of its class too. The views err on
different clips, hence the product of their opinions (Hinton, Neural Computation 14, 2002). Each is
trained by its own loss: two networks that share one lean on whichever learns faster (Wang et al., CVPR 2020).

Letters: B clips, M mel bands, F frames, D embedding width, K classes.
"""

import torch
from torch import Tensor, nn

VIEWS = 2


class TwoBackbones(nn.Module):
    """A backbone for each view.

    Args:
        views: two of them, (B, M, F), (B, F) → (B, D).
    """

    def __init__(self, views: list[nn.Module]):
        super().__init__()
        self.views = nn.ModuleList(views)

    def forward(self, source: Tensor, padding_mask: Tensor) -> Tensor:
        """(B, 2 M, F), the clip's bands and then the other view's, to (B, 2 D)."""
        parts = source.chunk(VIEWS, dim=1)
        return torch.cat([view(part, padding_mask) for view, part in zip(self.views, parts, strict=True)], dim=1)


class TwoHeads(nn.Module):
    """A linear head for each view.

    Args:
        width: D.
        n_classes: K.
    """

    def __init__(self, width: int, n_classes: int):
        super().__init__()
        self.views = nn.ModuleList(nn.Linear(width, n_classes) for _ in range(VIEWS))

    def logits_of_views(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2 D) to the (B, K) of each view."""
        first, second = embedding.chunk(VIEWS, dim=1)
        return self.views[0](first), self.views[1](second)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, 2 D) to (B, K), the mean of the views' log-probabilities."""
        return self.together(*self.logits_of_views(embedding))

    @staticmethod
    def together(first: Tensor, second: Tensor) -> Tensor:
        """From the logits (B, K) of each view to the mean of their log-probabilities."""
        return (first.log_softmax(dim=1) + second.log_softmax(dim=1)) / VIEWS
