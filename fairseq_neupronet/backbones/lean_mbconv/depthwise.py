"""Padding and gradients of depthwise convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    shape = (convolution.stride, padding, [1, 1], False, [0, 0], convolution.groups)
    backward = torch.ops.aten.convolution_backward
    height, width = kernel.shape[2:]
    if (height, width) != (5, 5) or kernel.shape[1] > 1:
        by_x, by_kernel, _ = backward(gradient, x, kernel, None, *shape, [True, True, False])
        return by_x, by_kernel
    by_x, _, _ = backward(gradient, x, kernel, None, *shape, [True, False, False])
    # The kernel's gradient costs oneDNN ten times as much for 5 × 5 as for 3 × 3: four overlapping 3 × 3 cover it.
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    by_kernel = torch.empty_like(kernel)
    reach = [stride * (size - 1) + 3 for stride, size in zip(convolution.stride, gradient.shape[2:], strict=True)]
    for top in (0, 2):
        for left in (0, 2):
            part = x[:, :, top : top + reach[0], left : left + reach[1]]
            small = kernel[:, :, top : top + 3, left : left + 3]
            _, by_small, _ = backward(
                gradient, part, small, None, convolution.stride, (0, 0), *shape[2:], [False, True, False]
            )
            by_kernel[:, :, top : top + 3, left : left + 3] = by_small
    return by_x, by_kernel
