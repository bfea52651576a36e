"""What precedes a block's depthwise convolution: 1 × 1 convolution, batch norm and swish.

Letters: B clips, I channels of the input, C channels after the convolution, H × W cells, N = B · H · W.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_neupronet.backbones.lean_mbconv.layout import (
    Padded,
    cells,
    image,
    pad_image,
    rows,
    swish_and_slope,
    update_running,
)


class Expansion(NamedTuple):
    """What the map can be computed from, portion by portion; all of it tensors.

    Attributes:
        centred: the input less its mean over the cells, and a 1, (B, H · W, I + 1).
        folded: the convolution's weights with the batch norm in them, and its bias, (C, I + 1).
        scatter: sum over the cells of outer products of the centred input, (I, I).
        weight: of the convolution, (C, I).
        inverse_deviation: of the convolution's outputs, (C,).
        scale: that times the batch norm's weight, (C,).
    """

    centred: Tensor
    folded: Tensor
    scatter: Tensor
    weight: Tensor
    inverse_deviation: Tensor
    scale: Tensor

    @classmethod
    def measured(cls, x: Tensor, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor, norm: nn.BatchNorm2d):
        """Take the statistics that the convolution's outputs will have, and move the running ones; x is (B, I, H, W).

        Mean and variance of W x are W · mean(x) and the diagonal of W · cov(x) · Wᵀ.
        """
        table = rows(x)
        mean = table.mean(0)
        centred = table.new_empty(len(table), table.shape[1] + 1)
        torch.sub(table, mean, out=centred[:, :-1])
        centred[:, -1] = 1
        scatter = (centred.T @ centred)[:-1, :-1]
        variance = ((weight @ scatter) * weight).sum(1).clamp_(min=0) / len(table)
        update_running(norm, weight @ mean, variance, len(table))
        inverse_deviation = (variance + norm.eps).rsqrt()
        scale = norm_weight * inverse_deviation
        folded = torch.cat([scale.unsqueeze(1) * weight, norm_bias.unsqueeze(1)], dim=1)
        return cls(centred.unflatten(0, (len(x), -1)), folded, scatter, weight, inverse_deviation, scale)

    def normalized(self, portion: slice, size: tuple[int, int]) -> Tensor:
        """The normalised map of some clips before the swish, (clips, H, W, C)."""
        return (self.centred[portion].flatten(0, 1) @ self.folded.T).unflatten(0, (-1, *size))

    def swish(self, portion: slice, size: tuple[int, int], pad: tuple[int, int, int, int]) -> Tensor:
        """The map of some clips, (clips, C, H', W'), padded."""
        normalized = self.normalized(portion, size)
        if not any(pad):
            return F.silu(normalized, inplace=True).permute(0, 3, 1, 2)
        padded = Padded(normalized, normalized.shape, pad)
        torch.ops.aten.silu.out(normalized, out=padded.inside)
        return padded.image


class ExpansionBackward:
    """Turns the map's gradient, portion by portion, into those of input and parameters.

    Args:
        expansion: of the forward pass.
        size: (H, W).
        needs_x: whether the input's gradient is wanted.
    """

    def __init__(self, expansion: Expansion, size: tuple[int, int], needs_x: bool):
        self._expansion, self._size = expansion, size
        centred = expansion.centred
        self._by_x = centred.new_empty(*centred.shape[:2], centred.shape[2] - 1) if needs_x else None
        self._folded = expansion.folded[:, :-1].contiguous()
        self._sums = centred.new_zeros(centred.shape[2], len(self._folded))
        self._slope = None

    def swish(self, portion: slice, pad: tuple[int, int, int, int]) -> Tensor:
        """The map of a portion, (clips, C, H', W'), padded; the next :meth:`add` is of the same portion."""
        normalized = self._expansion.normalized(portion, self._size)
        padded = Padded(normalized, normalized.shape, pad)
        _, self._slope = swish_and_slope(normalized, padded.inside)
        return padded.image

    def add(self, portion: slice, by_swish: Tensor) -> None:
        """by_swish: (clips, C, H, W), without the padding."""
        gradient = self._slope.mul_(by_swish.permute(0, 2, 3, 1)).flatten(0, 2)
        self._sums.addmm_(self._expansion.centred[portion].flatten(0, 1).T, gradient)
        if self._by_x is not None:
            torch.mm(gradient, self._folded, out=self._by_x[portion].flatten(0, 1))

    def finish(self) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        """Gradients of input (B, I, H, W), weight (C, I), batch norm's weight and bias (C,).

        With g the gradient of the normalised map y and ŷ the latter without weight and bias, the convolution's output
        has scale · (g − mean(g) − ŷ · mean(g ŷ)) (Ioffe and Szegedy 2015, section 3), where ŷ is linear in the centred
        input: so all that is needed of the cells is Σ g and Σ g · centredᵀ.
        """
        expansion = self._expansion
        n_cells = expansion.centred.shape[:2].numel()
        products, by_norm_bias = self._sums[:-1].T, self._sums[-1]
        by_norm_weight = expansion.inverse_deviation * (expansion.weight * products).sum(1)
        bend = (expansion.inverse_deviation * by_norm_weight / n_cells).unsqueeze(1) * expansion.weight
        by_weight = expansion.scale.unsqueeze(1) * (products - bend @ expansion.scatter)
        if self._by_x is None:
            return None, by_weight, by_norm_weight, by_norm_bias
        correction = torch.cat([bend.T @ self._folded, (by_norm_bias / n_cells @ self._folded).unsqueeze(0)])
        self._by_x.flatten(0, 1).addmm_(expansion.centred.flatten(0, 1), correction, alpha=-1)
        return image(self._by_x, self._size), by_weight, by_norm_weight, by_norm_bias


class UnexpandedBackward:
    """The same where a block has no expansion and its depthwise convolution receives the input, (B, C, H, W)."""

    def __init__(self, x: Tensor):
        self._x, self._by_x = x, torch.empty_like(cells(x))

    def swish(self, portion: slice, pad: tuple[int, int, int, int]) -> Tensor:
        """The input itself, padded."""
        return pad_image(self._x[portion], pad)

    def add(self, portion: slice, by_input: Tensor) -> None:
        """by_input: (clips, C, H, W), without the padding."""
        self._by_x[portion] = cells(by_input)

    def finish(self) -> tuple[Tensor, None, None, None]:
        """Gradient of the input (B, C, H, W)."""
        return image(self._by_x, self._x.shape[2:]), None, None, None
