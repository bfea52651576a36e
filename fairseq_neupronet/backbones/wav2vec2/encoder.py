"""The transformer encoder of wav2vec 2.0 (Baevski et al., NeurIPS 2020, section 2), in plain torch.

Parameters bear the names of fairseq's encoder and stand in its order, because checkpoints hold them by name and an
optimiser's state by position. In evaluation, and in training without dropout, the numbers are fairseq's as well.

Letters: B clips, T steps, C encoder width, H attention heads.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_neupronet.errors import InputError


def _approximate_gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_accurate": _approximate_gelu,
    "gelu_fast": _approximate_gelu,
    "linear": lambda x: x,
    "relu": F.relu,
    "tanh": torch.tanh,
}


class TransformerEncoder(nn.Module):
    """A transformer encoder with a convolutional position embedding.

    Args:
        config: the fields of :class:`~fairseq_neupronet.config.model.SpectrogramWav2Vec2Options` as attributes.

    Raises:
        InputError: an unknown activation.
    """

    def __init__(self, config):
        super().__init__()
        width = config.encoder_embed_dim
        self.pos_conv = nn.ModuleList([PositionalConvolution(width, config.conv_pos, config.conv_pos_groups)])
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(width)
        self.layer_norm_first = config.layer_norm_first
        self.dropout, self.layer_drop = config.dropout, config.encoder_layerdrop
        for module in self.modules():
            if isinstance(module, nn.Linear):  # as BERT's are
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, padding: Tensor | None = None, rng: np.random.Generator | None = None) -> Tensor:
        """Encode steps.

        Args:
            x: (B, T, C).
            padding: (B, T) bool, True on padding, which no step attends to; None: there is no padding.
            rng: draws, in training, which layers are left out; None leaves out none.

        Returns:
            (B, T, C); what stands on padding means nothing.
        """
        attended = None
        if padding is not None:
            x = x.masked_fill(padding.unsqueeze(2), 0.0)
            attended = (~padding)[:, None, None, :]
        x = x + self.pos_conv[0](x.mT).mT
        if not self.layer_norm_first:
            x = self.layer_norm(x)
        x = F.dropout(x, self.dropout, self.training)
        kept = np.ones(len(self.layers), dtype=bool)
        if self.training and self.layer_drop > 0 and rng is not None:
            kept = rng.random(len(self.layers)) >= self.layer_drop
        for layer, is_kept in zip(self.layers, kept, strict=True):
            if is_kept:
                x = layer(x, attended)
        return self.layer_norm(x) if self.layer_norm_first else x


class PositionalConvolution(nn.Module):
    """A grouped convolution over time and GELU, its weight normalised tap by tap: (B, C, T) → (B, C, T).

    Only the taps that a clip's steps can reach are computed with: the kernel has 128 taps, and a clip of one second
    16 steps, so that 97 of the taps meet padding only.

    Args:
        width: C.
        n_taps: length of the kernel.
        groups: of the convolution.
    """

    def __init__(self, width: int, n_taps: int, groups: int):
        super().__init__()
        self.groups, self.n_taps = groups, n_taps
        weight = torch.randn(width, width // groups, n_taps) * math.sqrt(4 / (n_taps * width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.weight_g = nn.Parameter(weight.norm(dim=(0, 1), keepdim=True))
        self.weight_v = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        middle, n_steps, reach = self.n_taps // 2, x.shape[2], slice(0, self.n_taps)
        if not torch.compiler.is_compiling():  # a graph serves clips of any length
            reach = slice(max(0, middle - n_steps + 1), middle + n_steps)
        direction = self.weight_v[:, :, reach]
        weight = direction * (self.weight_g[:, :, reach] / direction.norm(dim=(0, 1), keepdim=True))
        output = F.conv1d(x, weight, self.bias, padding=middle - reach.start, groups=self.groups)
        return F.gelu(output[:, :, :n_steps])


class _Attention(nn.Module):
    """Self-attention: (B, T, C) → (B, T, C); ``attended`` (B, 1, 1, T) bool, the steps to attend to, or None: all."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, attended: Tensor | None) -> Tensor:
        query, key, value = (
            project(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attended, dropout_p=dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    """Self-attention and a feed-forward network, each added to what it is given: (B, T, C) → (B, T, C)."""

    def __init__(self, config):
        super().__init__()
        width = config.encoder_embed_dim
        activation = str(config.activation_fn)
        if activation not in _ACTIVATIONS:
            raise InputError(f"activation_fn={activation} is not known; known are {', '.join(_ACTIVATIONS)}")
        self.activation = _ACTIVATIONS[activation]
        self.layer_norm_first = config.layer_norm_first
        self.dropout, self.activation_dropout = config.dropout, config.activation_dropout
        self.self_attn = _Attention(width, config.encoder_attention_heads, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def _attend(self, x: Tensor, attended: Tensor | None) -> Tensor:
        return F.dropout(self.self_attn(x, attended), self.dropout, self.training)

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = F.dropout(self.activation(self.fc1(x)), self.activation_dropout, self.training)
        return F.dropout(self.fc2(hidden), self.dropout, self.training)

    def forward(self, x: Tensor, attended: Tensor | None) -> Tensor:
        if self.layer_norm_first:
            x = x + self._attend(self.self_attn_layer_norm(x), attended)
            return x + self._feed_forward(self.final_layer_norm(x))
        x = self.self_attn_layer_norm(x + self._attend(x, attended))
        return self.final_layer_norm(x + self._feed_forward(x))
