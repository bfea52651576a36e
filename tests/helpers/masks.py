"""A spectrogram wav2vec 2.0 for tests of its masks, and the masked runs of a row."""

import numpy as np
from omegaconf import OmegaConf

from fairseq_neupronet.backbones.wav2vec2.network import SpectrogramWav2Vec2
from fairseq_neupronet.models.spectrogram_wav2vec2 import SpectrogramWav2Vec2Config

WIDTH = 64


def runs(row: np.ndarray) -> list[tuple[int, int]]:
    """List (start, length) of the masked runs of one row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def network(**options) -> SpectrogramWav2Vec2:
    config = OmegaConf.structured(SpectrogramWav2Vec2Config())
    config.update(
        {
            "conv_feature_layers": f"[({WIDTH}, 3, 1, 1)]",
            "encoder_layers": 1,
            "encoder_embed_dim": WIDTH,
            "encoder_ffn_embed_dim": 16,
            "conv_pos": 4,
            "conv_pos_groups": 2,
            "final_dim": 8,
            "mask_prob": 0.3,
            "mask_length": 5,
            "mask_channel_prob": 0.3,
            "mask_channel_length": 5,
            "dropout_input": 0.0,
        }
        | options
    )
    return SpectrogramWav2Vec2(config, 8)
