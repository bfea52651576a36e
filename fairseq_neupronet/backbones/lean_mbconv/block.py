"""EfficientNet's features in training mode, each of its blocks up to the projection being one step of autograd.

A block is an inverted bottleneck (Sandler et al., CVPR 2018) with squeeze-and-excitation.

Letters: B clips, I channels of a block's input, C channels after its expansion, Z after its projection, H × W cells.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fairseq_neupronet.backbones.lean_mbconv.excitation import (
    ExcitationWeights,
    Excited,
    excite_project,
    excite_project_backward,
)
from fairseq_neupronet.backbones.lean_mbconv.expansion import (
    Expansion,
    ExpansionBackward,
    UnexpandedBackward,
)
from fairseq_neupronet.backbones.lean_mbconv.layout import (
    Normalization,
    NormalizationBackward,
    image,
    pad_image,
    portions,
)

# The gradient of a kernel of more columns costs oneDNN ten times as much (torch 2.14, AVX2).
_COLUMNS = 3


def padding_of(convolution: nn.Conv2d) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """What is to be padded (left, right, top, bottom) before, and what (height, width) by, the convolution."""
    module = getattr(convolution, "static_padding", None)
    left, right, top, bottom = module.padding if isinstance(module, nn.ZeroPad2d) else (0, 0, 0, 0)
    if left == right and top == bottom:
        return (0, 0, 0, 0), (top, left)
    return (left, right, top, bottom), (0, 0)


def convolution_backward(
    gradient: Tensor, x: Tensor, kernel: Tensor, convolution: nn.Conv2d, padding: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Gradients of input and kernel."""
    backward = torch.ops.aten.convolution_backward
    stride = convolution.stride
    rest = ((1, 1), False, (0, 0), convolution.groups)
    width = kernel.shape[3]
    if width <= _COLUMNS:
        by_x, by_kernel, _ = backward(gradient, x, kernel, None, stride, padding, *rest, [True, True, False])
        return by_x, by_kernel
    by_x, _, _ = backward(gradient, x, kernel, None, stride, padding, *rest, [True, False, False])
    by_columns = []
    for column in range(0, width, _COLUMNS):
        columns = kernel[..., column : column + _COLUMNS]
        first = column - padding[1]
        end = first + stride[1] * (gradient.shape[3] - 1) + columns.shape[3]
        within = x[..., max(0, first) : min(end, x.shape[3])]
        seen = pad_image(within, (max(0, -first), max(0, end - x.shape[3]), padding[0], padding[0]))
        by_columns.append(backward(gradient, seen, columns, None, stride, (0, 0), *rest, [False, True, False])[1])
    return by_x, torch.cat(by_columns, dim=3)


class ExpansionLayers(NamedTuple):
    """A convolution's weight (C, I) and the batch norm after it."""

    weight: Tensor
    norm: nn.BatchNorm2d


class _Modules(NamedTuple):
    expansion_norm: nn.BatchNorm2d | None
    convolution: nn.Conv2d
    norm: nn.BatchNorm2d


def inverted_bottleneck(x: Tensor, block: nn.Module, expansion: ExpansionLayers | None) -> Tensor:
    """All of efficientnet_pytorch's ``block`` up to its projection: (B, I, H, W) → (B, Z, H', W'), channels last.

    Args:
        x: the block's input.
        block: an ``MBConvBlock``.
        expansion: what precedes its depthwise convolution, with a swish at the end; None for nothing.
    """
    weight, norm = expansion or (None, None)
    reduce, expand = block._se_reduce, block._se_expand
    return _InvertedBottleneck.apply(
        _Modules(norm, block._depthwise_conv, block._bn1),
        x,
        weight,
        norm and norm.weight,
        norm and norm.bias,
        block._depthwise_conv.weight,
        block._bn1.weight,
        block._bn1.bias,
        reduce.weight.flatten(1),
        reduce.bias,
        expand.weight.flatten(1),
        expand.bias,
        block._project_conv.weight.flatten(1),
    )


class _InvertedBottleneck(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        modules,
        x,
        expand,
        expand_norm_weight,
        expand_norm_bias,
        kernel,
        norm_weight,
        norm_bias,
        *excitation_weights,
    ) -> Tensor:
        pad, padding = padding_of(modules.convolution)
        size = x.shape[2:]
        expansion = ()
        if expand is not None:
            expansion = Expansion.measured(x, expand, expand_norm_weight, expand_norm_bias, modules.expansion_norm)
        ctx.portions = portions(len(x), len(kernel) * size.numel())
        parts = []
        for portion in ctx.portions:
            swish = expansion.swish(portion, size, pad) if expansion else pad_image(x[portion], pad)
            parts.append(F.conv2d(swish, kernel, None, modules.convolution.stride, padding, 1, len(kernel)))
        normalize = Normalization.measured(parts, norm_weight, norm_bias, modules.norm)
        weights = ExcitationWeights(*excitation_weights)
        output, excited = excite_project(parts, ctx.portions, normalize, weights)
        ctx.modules, ctx.size, ctx.normalize = modules, size, normalize
        # Where there is an expansion its centred input takes the input's place.
        ctx.save_for_backward(None if expansion else x, kernel, *excited, *weights, *parts, *expansion)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        x, kernel, squeezed, gate, *others = ctx.saved_tensors
        weights, others = ExcitationWeights(*others[:5]), others[5:]
        n_parts = len(ctx.portions)
        parts, others = others[:n_parts], others[n_parts:]
        by_normalized = NormalizationBackward(ctx.normalize)
        gradients, by_weights = excite_project_backward(
            gradient, parts, ctx.portions, ctx.normalize, weights, Excited(squeezed, gate), by_normalized
        )
        by_norm = by_normalized.finish()
        by_kernel = torch.zeros_like(kernel)
        if x is None:
            by_expanded = ExpansionBackward(Expansion(*others), ctx.size, needs_x=ctx.needs_input_grad[1])
        else:
            by_expanded = UnexpandedBackward(x)
        convolution = ctx.modules.convolution
        pad, padding = padding_of(convolution)
        inside = (..., slice(pad[2], pad[2] + ctx.size[0]), slice(pad[0], pad[0] + ctx.size[1]))
        for portion, part, by_part in zip(ctx.portions, parts, gradients, strict=True):
            swish = by_expanded.swish(portion, pad)
            by_output = by_normalized.by_input(part, by_part)
            by_swish, some = convolution_backward(by_output, swish, kernel, convolution, padding)
            by_kernel += some
            by_expanded.add(portion, by_swish[inside])
        return None, *by_expanded.finish(), by_kernel, *by_norm, *by_weights


def extract_features(effnet: nn.Module, x: Tensor) -> Tensor:
    """What ``effnet.extract_features`` computes in training mode: (B, 1, H, W) → (B, C, H', W')."""
    x, expansion = _patches(x, effnet._conv_stem), ExpansionLayers(effnet._conv_stem.weight.flatten(1), effnet._bn0)
    for number, block in enumerate(effnet._blocks):
        drop_rate = (effnet._global_params.drop_connect_rate or 0.0) * number / len(effnet._blocks)
        if hasattr(block, "_expand_conv"):
            expansion = ExpansionLayers(block._expand_conv.weight.flatten(1), block._bn0)
        inputs, x = x, block._bn2(inverted_bottleneck(x, block, expansion))
        expansion = None
        if x.shape == inputs.shape:
            x = _connect(inputs, x, drop_rate)
    return F.silu(effnet._bn1(effnet._conv_head(x)))


def _patches(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """What the convolution receives for each of its outputs, as channels: its weights then are those of a 1 × 1 one."""
    pad, padding = padding_of(convolution)
    x = F.pad(x, pad)
    shape = zip(x.shape[2:], padding, convolution.kernel_size, convolution.stride, strict=True)
    size = [(length + 2 * around - kernel) // stride + 1 for length, around, kernel, stride in shape]
    columns = F.unfold(x, convolution.kernel_size, 1, padding, convolution.stride)
    return image(columns.transpose(1, 2).contiguous(), size)


def _connect(inputs: Tensor, x: Tensor, drop_rate: float) -> Tensor:
    """The skip connection, with the residual left out for some clips (stochastic depth)."""
    if not drop_rate:
        return inputs + x
    keep = 1 - drop_rate
    kept = torch.floor(keep + torch.rand(len(x), 1, 1, 1, dtype=x.dtype, device=x.device))
    return torch.addcmul(inputs, x, kept / keep)
