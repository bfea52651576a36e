"""Convolutions over time, mel bands as channels. Letters: B clips, M mel bands, F frames, T steps."""

from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_neupronet.config.model import EXTRACTOR_MODES
from fairseq_neupronet.errors import InputError


class CausalConvolutions(nn.Module):
    """Left-padded by (kernel − 1) · dilation, bias-free, each followed by GELU.

    Strides and dilations of later layers pass over steps of earlier ones: of the published stack the last layer reads
    every other step of the second, and that every other one of the first. Steps that nothing reads are not computed.

    Args:
        spec: per layer (dim, kernel, dilation, stride).
        n_mels: M.
        mode: ``default`` puts a group norm (one group a channel) after the first layer, ``layer_norm`` a layer norm
            after each.

    Raises:
        InputError: unknown mode.
    """

    def __init__(self, spec: list[tuple[int, int, int, int]], n_mels: int, mode: str):
        super().__init__()
        if mode not in EXTRACTOR_MODES:
            raise InputError(f"extractor_mode={mode!r} is not known; known are {', '.join(EXTRACTOR_MODES)}")
        self.left_padding = []
        self.conv_layers = nn.ModuleList()
        channels, spacing = n_mels, 1
        for number, ((dim, kernel, dilation, stride), read) in enumerate(zip(spec, steps_read(spec), strict=True)):
            norm, needs_all = _norm(dim, mode, first=number == 0), mode == "default" and number == 0
            computed, kept = (1, read) if needs_all else (read, 1)
            stride, dilation = stride * computed // spacing, dilation // spacing
            convolution = nn.Conv1d(channels, dim, kernel, stride=stride, dilation=dilation, bias=False)
            nn.init.kaiming_normal_(convolution.weight)
            # Positions 0 and 2 carry the names of fairseq's own extractor, so that checkpoints map one to one.
            self.conv_layers.append(nn.Sequential(convolution, nn.Identity(), norm, _EveryStep(kept), nn.GELU()))
            self.left_padding.append((kernel - 1) * dilation)
            channels, spacing = dim, read

    def forward(self, source: Tensor) -> Tensor:
        """(B, M, F) → (B, C, T)."""
        x = source
        for padding, layer in zip(self.left_padding, self.conv_layers, strict=True):
            x = layer(F.pad(x, (padding, 0)))
        return x


def steps_read(spec: list[tuple[int, int, int, int]]) -> list[int]:
    """Per layer n, where only its steps 0, n, 2n … are read by the layers above.

    Step t of a layer reads steps stride · t − dilation · j of the one below.
    """
    spacings = [1]
    for _, _, dilation, stride in reversed(spec[1:]):
        spacings.insert(0, gcd(stride * spacings[0], dilation))
    return spacings


def _norm(dim: int, mode: str, first: bool) -> nn.Module:
    if mode == "layer_norm":
        # Position 1 carries fairseq's name of the layer norm's parameters.
        return nn.Sequential(_TimeLast(), _LayerNorm(dim), _TimeLast())
    return _GroupNorm(dim, dim) if first else nn.Identity()


class _EveryStep(nn.Module):
    """(B, C, T) → (B, C, ⌈T / n⌉), steps 0, n, 2n …"""

    def __init__(self, n: int):
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        return x if self.n == 1 else x[..., :: self.n].contiguous()


class _TimeLast(nn.Module):
    """(B, C, T) → (B, T, C), and back."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mT


class _LayerNorm(nn.LayerNorm):
    """In float32 whatever the network runs in."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).type_as(x)


class _GroupNorm(nn.GroupNorm):
    """In float32 whatever the network runs in."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        # torch.nn.functional refuses a single clip of one step, which a larger batch with the same clip may hold.
        return torch.group_norm(x.float(), self.num_groups, weight, bias, self.eps).type_as(x)
