"""The second half of a block: batch norm, swish, squeeze-and-excitation and 1 × 1 projection.

Letters: B clips, C channels, H × W cells, S squeezed channels, Z channels after the projection.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_neupronet.backbones.lean_mbconv.layout import (
    Normalization,
    NormalizationBackward,
    cells,
    image,
    swish_and_slope,
)


class ExcitationWeights(NamedTuple):
    """reduce (S, C), its bias (S,), expand (C, S), its bias (C,), project (Z, C)."""

    reduce: Tensor
    reduce_bias: Tensor
    expand: Tensor
    expand_bias: Tensor
    project: Tensor


class Excited(NamedTuple):
    """The mean over the cells and the gate, (B, C) each, which the backward pass needs."""

    squeezed: Tensor
    gate: Tensor


def excite_project(
    parts: list[Tensor], portions: list[slice], normalize: Normalization, weights: ExcitationWeights
) -> tuple[Tensor, Excited]:
    """(clips, C, H, W) in portions → (B, Z, H, W)."""
    n_clips, n_channels, height, width = sum(map(len, parts)), *parts[0].shape[1:]
    output = parts[0].new_empty(n_clips, height * width, len(weights.project))
    squeezed = parts[0].new_empty(n_clips, n_channels)
    gate = torch.empty_like(squeezed)
    multiply = _multiplication(height * width, weights)
    for portion, part in zip(portions, parts, strict=True):
        swish = cells(F.silu(normalize(part), inplace=True))
        torch.mean(swish, 1, out=squeezed[portion])
        hidden = F.silu(F.linear(squeezed[portion], weights.reduce, weights.reduce_bias))
        gate[portion] = torch.sigmoid(F.linear(hidden, weights.expand, weights.expand_bias))
        multiply.forward(swish, gate[portion], weights.project, output[portion])
    return image(output, (height, width)), Excited(squeezed, gate)


def excite_project_backward(
    gradient: Tensor,
    parts: list[Tensor],
    portions: list[slice],
    normalize: Normalization,
    weights: ExcitationWeights,
    excited: Excited,
    by_normalized: NormalizationBackward,
) -> tuple[list[Tensor], ExcitationWeights]:
    """Gradients of the normalised map, in portions, and of the weights; ``by_normalized`` collects the former."""
    squeezed, gate = excited
    size = parts[0].shape[2:]
    multiply = _multiplication(size.numel(), weights)
    reduced = F.linear(squeezed, weights.reduce, weights.reduce_bias)
    by_gate, by_reduced, by_project = map(torch.empty_like, (gate, reduced, weights.project))
    by_project.zero_()
    gradients = []
    for portion, part in zip(portions, parts, strict=True):
        swish, slope = swish_and_slope(normalize(part))
        some = gate[portion]
        multiplied = multiply(cells(gradient[portion]), cells(swish), some, weights.project)
        by_gate[portion] = multiplied.by_gate * some * (1 - some)
        by_project += multiplied.by_weight
        by_reduced[portion] = torch.ops.aten.silu_backward(by_gate[portion] @ weights.expand, reduced[portion])
        by_cells = multiplied.by_cells((by_reduced[portion] @ weights.reduce).div_(size.numel()))
        gradients.append(slope.mul_(image(by_cells, size)))
        by_normalized.add(part, gradients[-1])
    by_weights = ExcitationWeights(
        by_reduced.T @ squeezed, by_reduced.sum(0), by_gate.T @ F.silu(reduced), by_gate.sum(0), by_project
    )
    return gradients, by_weights


def _multiplication(n_cells: int, weights: ExcitationWeights):
    return _GatedWeights if n_cells > len(weights.project) else _GatedCells


class _GatedWeights:
    """Cells (B, H · W, C) times weights (Z, C) that each clip's gate (B, C) has multiplied: for large maps."""

    @staticmethod
    def forward(cells: Tensor, gate: Tensor, weight: Tensor, output: Tensor) -> None:
        torch.bmm(cells, (weight * gate.unsqueeze(1)).transpose(1, 2), out=output)

    def __init__(self, by_output: Tensor, cells: Tensor, gate: Tensor, weight: Tensor):
        self._by_output, self._gated = by_output, weight * gate.unsqueeze(1)
        by_gated = torch.bmm(by_output.transpose(1, 2), cells)
        self.by_gate = (by_gated * weight).sum(1)
        self.by_weight = by_gated.mul_(gate.unsqueeze(1)).sum(0)

    def by_cells(self, by_mean: Tensor) -> Tensor:
        """The cells' gradient, with what comes by their mean."""
        return torch.baddbmm(by_mean.unsqueeze(1), self._by_output, self._gated)


class _GatedCells:
    """The same by multiplying the cells: for maps of fewer cells than the projection has outputs."""

    @staticmethod
    def forward(cells: Tensor, gate: Tensor, weight: Tensor, output: Tensor) -> None:
        torch.matmul(cells * gate.unsqueeze(1), weight.T, out=output)

    def __init__(self, by_output: Tensor, cells: Tensor, gate: Tensor, weight: Tensor):
        self._gate, self._by_gated = gate, by_output @ weight
        self.by_gate = (self._by_gated * cells).sum(1)
        self.by_weight = by_output.flatten(0, 1).T @ cells.mul_(gate.unsqueeze(1)).flatten(0, 1)

    def by_cells(self, by_mean: Tensor) -> Tensor:
        """The cells' gradient, with what comes by their mean."""
        return torch.addcmul(by_mean.unsqueeze(1), self._by_gated, self._gate.unsqueeze(1))
