"""Convolutions over time, mel bands as channels. Letters: B clips, M mel bands, F frames, T steps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_neupronet.errors import InputError

EXTRACTOR_MODES = ("default", "layer_norm")


class CausalConvolutions(nn.Module):
    """Left-padded by (kernel − 1) · dilation, bias-free, each followed by GELU.

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
        self.left_padding = [(kernel - 1) * dilation for _, kernel, dilation, _ in spec]
        self.conv_layers = nn.ModuleList()
        channels = n_mels
        for number, (dim, kernel, dilation, stride) in enumerate(spec):
            convolution = nn.Conv1d(channels, dim, kernel, stride=stride, dilation=dilation, bias=False)
            nn.init.kaiming_normal_(convolution.weight)
            # Positions 0 and 2 carry the names of fairseq's own extractor, so that checkpoints map one to one.
            self.conv_layers.append(
                nn.Sequential(convolution, nn.Identity(), _norm(dim, mode, first=number == 0), nn.GELU())
            )
            channels = dim

    def forward(self, source: Tensor) -> Tensor:
        """(B, M, F) → (B, C, T)."""
        x = source
        for padding, layer in zip(self.left_padding, self.conv_layers, strict=True):
            x = layer(F.pad(x, (padding, 0)))
        return x


def _norm(dim: int, mode: str, first: bool) -> nn.Module:
    if mode == "layer_norm":
        # Position 1 carries fairseq's name of the layer norm's parameters.
        return nn.Sequential(_TimeLast(), _LayerNorm(dim), _TimeLast())
    return _GroupNorm(dim, dim) if first else nn.Identity()


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
