"""Batch norm for a training batch that has one value a channel, whose variance torch refuses to take."""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn

_STRIDE = 32  # the networks halve both axes five times


def is_one_value(image: Tensor) -> bool:
    """Whether such networks end with one value a channel for a batch (B, …, H, W)."""
    return len(image) == 1 and max(image.shape[-2:]) <= _STRIDE


@contextlib.contextmanager
def running_statistics(network: nn.Module) -> Iterator[None]:
    """Normalise by the running statistics, and leave them as they are."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and module.training]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True
