"""Batch norm of a map that is held in portions. Letters: C channels, H × W cells."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


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
