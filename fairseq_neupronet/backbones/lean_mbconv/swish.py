"""Swish (SiLU) and its slope from one sigmoid, which is what it costs."""

import torch
from torch import Tensor


def swish_and_slope(x: Tensor, swish: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x · σ(x) and its derivative σ(x) + x · σ(x) · (1 − σ(x)).

    Args:
        x: any shape.
        swish: where to write x · σ(x), of the same shape; None for a new tensor.
    """
    sigmoid = torch.sigmoid(x)
    swish = torch.mul(x, sigmoid, out=swish)
    return swish, torch.lerp(swish, x.new_ones(()), sigmoid, out=sigmoid)
