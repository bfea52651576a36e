"""Clip embeddings from spectrogram wav2vec 2.0. Letters: B clips, M mels, F frames, T steps, D width."""

import numpy as np
from torch import Tensor, nn

from fairseq_neupronet.backbones.registry import Backbone, register_backbone
from fairseq_neupronet.backbones.wav2vec2.network import Encoded, Randomness, SpectrogramWav2Vec2


class TransformerBackbone(Backbone):
    """Steps of the network, dropout, linear to D where the widths differ, mean over unpadded steps.

    Args:
        network_config: of :class:`SpectrogramWav2Vec2`.
        n_mels: M.
        embed_dim: D.
        final_dropout: before the projection.
        apply_mask: span and channel masks in training.
    """

    def __init__(self, network_config, n_mels: int, embed_dim: int, final_dropout: float, apply_mask: bool):
        super().__init__()
        self.network = SpectrogramWav2Vec2(network_config, n_mels)
        self.final_dropout = nn.Dropout(final_dropout)
        self.apply_mask = apply_mask
        width = network_config.encoder_embed_dim
        self.proj = nn.Linear(width, embed_dim) if width != embed_dim else nn.Identity()

    @property
    def masks(self) -> bool:
        """Whether clips are masked now."""
        return self.apply_mask and self.training

    def encode(self, source: Tensor, padding_mask: Tensor, frames: np.ndarray | None = None) -> Encoded:
        """Steps of clips (B, M, F), masked in training; see :meth:`SpectrogramWav2Vec2.encode`."""
        rng = Randomness.for_batch(True, source.device).masks if self.training else None
        return self.network.encode(source, padding_mask, rng, frames=frames, masks=self.apply_mask)

    def embed(self, encoded: Encoded) -> Tensor:
        """(B, D)."""
        steps = self.proj(self.final_dropout(encoded.x)).masked_fill(encoded.padding.unsqueeze(2), 0.0)
        return steps.sum(dim=1) / (~encoded.padding).sum(dim=1, keepdim=True)

    def forward(self, source: Tensor, padding_mask: Tensor) -> Tensor:
        return self.embed(self.encode(source, padding_mask))

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From a ``spectrogram_wav2vec2`` checkpoint of our pretraining; the quantiser is not needed here."""
        return {f"network.{name}": value for name, value in state.items()}


@register_backbone("spectrogram_wav2vec2")
def build(n_mels: int, embed_dim: int, config) -> TransformerBackbone:
    return TransformerBackbone(config.transformer, n_mels, embed_dim, config.final_dropout, config.apply_mask)
