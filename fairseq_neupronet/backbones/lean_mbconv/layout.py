"""Channels-last maps as tables, their batch statistics, and swish with its slope.

Letters: B clips, C channels, H × W cells.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

PORTION = 2**21  # numbers of a map that are worked on at a time: 8 MiB


def portions(n_clips: int, n_numbers: int) -> list[slice]:
    """Clips that are worked on together.

    Args:
        n_clips: B.
        n_numbers: of a clip's map.
    """
    size = max(1, PORTION // n_numbers)
    return [slice(start, start + size) for start in range(0, n_clips, size)]


def cells(image: Tensor) -> Tensor:
    """(B, C, H, W) in channels-last order → a view (B, H · W, C)."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def rows(image: Tensor) -> Tensor:
    """(B, C, H, W) in channels-last order → a view (B · H · W, C)."""
    return image.permute(0, 2, 3, 1).flatten(0, 2)


def image(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """The inverse of :func:`cells`; also of :func:`rows` where these are unflattened to clips."""
    return cells.unflatten(-2, size).permute(0, 3, 1, 2)


class Padded:
    """Room for a map with zeros around it: what is written there need not be copied to be padded.

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


def pad_image(image: Tensor, pad: tuple[int, int, int, int]) -> Tensor:
    """``F.pad`` of zeros for a channels-last map (B, C, H, W), which would fill all of it before it copies."""
    padded = Padded(image, image.permute(0, 2, 3, 1).shape, pad)
    padded.inside.copy_(image.permute(0, 2, 3, 1))
    return padded.image


def swish_and_slope(x: Tensor, swish: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x · σ(x) and its derivative σ(x) + x · σ(x) · (1 − σ(x)).

    Args:
        x: any shape.
        swish: where to write x · σ(x), of the same shape; None for a new tensor.
    """
    sigmoid = torch.sigmoid(x)
    swish = torch.mul(x, sigmoid, out=swish)
    return swish, torch.lerp(swish, x.new_ones(()), sigmoid, out=sigmoid)


def update_running(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, n_values: int) -> None:
    """Move the running statistics, (C,) each, as a training pass of the module would."""
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (n_values / max(1, n_values - 1)), norm.momentum)


class Normalization(NamedTuple):
    """A batch norm with the statistics of one batch; (C,) each."""

    mean: Tensor
    inverse_deviation: Tensor
    scale: Tensor
    shift: Tensor

    @classmethod
    def measured(cls, parts: list[Tensor], weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d):
        """Take the statistics of all portions (clips, C, H, W) together, and move the running ones."""
        measured = [torch.batch_norm_update_stats(part, None, None, 0.0) for part in parts]
        means, variances = (torch.stack(each) for each in zip(*measured, strict=True))
        n_values = sum(part.numel() for part in parts) // len(weight)
        share = means.new_tensor([part.numel() / len(weight) / n_values for part in parts])
        mean = share @ means
        variance = share @ (variances + (means - mean).square())
        update_running(norm, mean, variance, n_values)
        inverse_deviation = (variance + norm.eps).rsqrt()
        scale = weight * inverse_deviation
        return cls(mean, inverse_deviation, scale, bias - mean * scale)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addcmul(_by_channel(self.shift), x, _by_channel(self.scale))


class NormalizationBackward:
    """Collects the gradient of the normalised map portion by portion, then turns it into the input's."""

    def __init__(self, normalization: Normalization):
        self._normalization = normalization
        self._n_values = 0
        self._by_weight, self._by_bias = torch.zeros_like(normalization.mean), torch.zeros_like(normalization.mean)

    def add(self, x: Tensor, gradient: Tensor) -> None:
        """x: the input; both (clips, C, H, W)."""
        norm = self._normalization
        self._n_values += x.numel() // x.shape[1]
        _, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, norm.scale, None, None, norm.mean, norm.inverse_deviation, True, 0.0, [False, True, True]
        )
        self._by_weight += by_weight
        self._by_bias += by_bias

    def finish(self) -> tuple[Tensor, Tensor]:
        """Gradients of weight and bias (Ioffe and Szegedy 2015, section 3)."""
        norm = self._normalization
        self._slope = -norm.scale * norm.inverse_deviation * self._by_weight / self._n_values
        self._offset = -norm.scale * self._by_bias / self._n_values - self._slope * norm.mean
        return self._by_weight, self._by_bias

    def by_input(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The input's gradient, once all portions are added."""
        bent = torch.addcmul(_by_channel(self._offset), x, _by_channel(self._slope))
        return bent.addcmul_(gradient, _by_channel(self._normalization.scale))


def _by_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
