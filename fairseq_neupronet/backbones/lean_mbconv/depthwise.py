"""Padding and gradients of depthwise convolutions."""

import torch
from torch import Tensor, nn

from fairseq_neupronet.backbones.lean_mbconv.layout import pad_image

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
        heard = pad_image(within, (max(0, -first), max(0, end - x.shape[3]), padding[0], padding[0]))
        by_columns.append(backward(gradient, heard, columns, None, stride, (0, 0), *rest, [False, True, False])[1])
    return by_x, torch.cat(by_columns, dim=3)
