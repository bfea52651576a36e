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


class PaddedSwish:
    """Where the swish of a map can be written with zeros around it, so that it need not be copied to be padded.

    Args:
        like: for device and type.
        shape: (B, H, W, C) of the map.
        pad: (left, right, top, bottom).
    """

    def __init__(self, like: Tensor, shape: tuple[int, int, int, int], pad: tuple[int, int, int, int]):
        n_clips, height, width, n_channels = shape
        left, right, top, bottom = pad
        padded = like.new_empty(n_clips, top + height + bottom, left + width + right, n_channels)
        padded[:, :top], padded[:, top + height :] = 0, 0
        padded[:, :, :left], padded[:, :, left + width :] = 0, 0
        self.image = padded.permute(0, 3, 1, 2)  # (B, C, H, W), padded
        self.inside = padded[:, top : top + height, left : left + width]  # (B, H, W, C)
