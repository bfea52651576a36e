"""Spectrogram wav2vec 2.0 as a trained model uses it: evaluation only, in plain torch, without fairseq.

The same numbers and parameters' names as :mod:`~fairseq_neupronet.backbones.wav2vec2.backbone`, whose encoder is fairseq's:
importing that takes longer than loading a model, and its masks and layer drops cannot be exported.

Letters: B clips, M mel bands, F frames, T steps, C encoder width, D embedding width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_neupronet.backbones.registry import Backbone
from fairseq_neupronet.backbones.wav2vec2.conv_spec import output_lengths, parse_conv_spec
from fairseq_neupronet.backbones.wav2vec2.convolutions import CausalConvolutions
from fairseq_neupronet.errors import InputError

# What pretraining and the contrastive task need, and a trained model does not.
TRAINING_PARAMETERS = ("mask_emb", "project_q.", "final_proj.", "quantizer.")


def _approximate_gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_accurate": _approximate_gelu,
    "gelu_fast": _approximate_gelu,
    "linear": lambda x: x,
    "relu": F.relu,
    "relu_squared": lambda x: F.relu(x).square(),
    "tanh": torch.tanh,
}


class PlainTransformer(Backbone):
    """Clips to the mean of their encoded steps, by the weights of a ``TransformerBackbone``.

    Args:
        config: a ``SpectrogramWav2Vec2Config``'s fields, as attributes.
        n_mels: M.
        embed_dim: D.
        final_dropout, apply_mask: of training; without effect.

    Raises:
        InputError: a convolution specification or an activation that cannot be read.
    """

    masks = False

    def __init__(self, config, n_mels: int, embed_dim: int, final_dropout: float = 0.0, apply_mask: bool = False):
        super().__init__()
        self.network = _Network(config, n_mels)
        width = config.encoder_embed_dim
        self.proj = nn.Linear(width, embed_dim) if width != embed_dim else nn.Identity()

    def forward(self, source: Tensor, padding_mask: Tensor) -> Tensor:
        steps, padding = self.network(source, padding_mask)
        steps = self.proj(steps).masked_fill(padding.unsqueeze(2), 0.0)
        return steps.sum(dim=1) / (~padding).sum(dim=1, keepdim=True)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *arguments) -> None:
        for name in [name for name in state_dict if name.startswith(f"{prefix}network.")]:
            if name.removeprefix(f"{prefix}network.").startswith(TRAINING_PARAMETERS):
                del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class _Network(nn.Module):
    """Convolutions and transformer: (B, M, F), (B, F) bool → steps (B, T, C), padding (B, T) bool."""

    def __init__(self, config, n_mels: int):
        super().__init__()
        self.spec = parse_conv_spec(config.conv_feature_layers)
        self.feature_extractor = CausalConvolutions(self.spec, n_mels, str(config.extractor_mode))
        self.encoder = _Encoder(config)

    def forward(self, source: Tensor, padding_mask: Tensor) -> tuple[Tensor, Tensor]:
        features = self.feature_extractor(source).mT
        steps = output_lengths((~padding_mask).sum(dim=1), self.spec)
        padding = torch.arange(features.shape[1], device=source.device) >= steps.unsqueeze(1)
        return self.encoder(features, padding), padding


class _Encoder(nn.Module):
    """A transformer encoder with a convolutional position embedding (wav2vec 2.0, §2)."""

    def __init__(self, config):
        super().__init__()
        width = config.encoder_embed_dim
        self.pos_conv = nn.ModuleList([_PositionalConvolution(width, config.conv_pos, config.conv_pos_groups)])
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(width)
        self.layer_norm_first = config.layer_norm_first

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        x = x.masked_fill(padding.unsqueeze(2), 0.0)
        x = x + self.pos_conv[0](x.mT).mT
        if not self.layer_norm_first:
            x = self.layer_norm(x)
        heard = (~padding)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, heard)
        return self.layer_norm(x) if self.layer_norm_first else x


class _PositionalConvolution(nn.Module):
    """Weight-normalised over each tap, as fairseq's; (B, C, T) → (B, C, T)."""

    def __init__(self, width: int, n_taps: int, groups: int):
        super().__init__()
        self.groups, self.n_taps = groups, n_taps
        self.weight_v = nn.Parameter(torch.empty(width, width // groups, n_taps))
        self.weight_g = nn.Parameter(torch.empty(1, 1, n_taps))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        output = F.conv1d(x, weight, self.bias, padding=self.n_taps // 2, groups=self.groups)
        return F.gelu(output[:, :, : x.shape[2]])


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        query, key, value = (
            project(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=heard)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.encoder_embed_dim
        activation = str(config.activation_fn)
        if activation not in _ACTIVATIONS:
            raise InputError(
                f"activation_fn={activation} is not known without fairseq; known are {', '.join(_ACTIVATIONS)}"
            )
        self.activation = _ACTIVATIONS[activation]
        self.layer_norm_first = config.layer_norm_first
        self.self_attn = _Attention(width, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        if self.layer_norm_first:
            x = x + self.self_attn(self.self_attn_layer_norm(x), heard)
            return x + self._feed_forward(self.final_layer_norm(x))
        x = self.self_attn_layer_norm(x + self.self_attn(x, heard))
        return self.final_layer_norm(x + self._feed_forward(x))
