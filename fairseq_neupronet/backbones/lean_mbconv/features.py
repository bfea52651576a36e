"""EfficientNet's features in training mode. Letters: B clips, C channels, H × W cells."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_neupronet.backbones.lean_mbconv.block import ExpansionLayers, inverted_bottleneck, padding_of
from fairseq_neupronet.backbones.lean_mbconv.layout import image


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
    """What the convolution hears for each of its outputs, as channels: its weights then are those of a 1 × 1 one."""
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
