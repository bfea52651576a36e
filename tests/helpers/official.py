"""The official networks' sizes and parameter names in ours, for the parity tests."""

import os
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from fairseq_neupronet.models.neupronet import NeuProNetConfig, NeuProNetModel
from fairseq_neupronet.models.spectrogram_wav2vec2 import SpectrogramWav2Vec2Config, SpectrogramWav2Vec2Model

GOLDEN = Path(__file__).parents[1] / "golden"
REFERENCE = Path(os.environ.get("NEUPRONET_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
SIZES = {
    "conv_feature_layers": "[(64, 3, 1, 1), (64, 3, 2, 2)]",
    "encoder_embed_dim": 64,
    "encoder_ffn_embed_dim": 128,
    "encoder_attention_heads": 4,
    "final_dim": 64,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "latent_vars": 16,
    "latent_groups": 2,
    "mask_prob": 0.3,
    "mask_length": 4,
    "num_negatives": 5,
    "cross_sample_negatives": 5,
    "n_mels": 128,
}


def extractor(weights: dict[str, torch.Tensor], quantized: bool) -> SpectrogramWav2Vec2Model:
    """An official pretraining checkpoint's network in evaluation mode."""
    config = OmegaConf.structured(SpectrogramWav2Vec2Config(quantize_targets=quantized, **SIZES))
    model = SpectrogramWav2Vec2Model.build_model(config, None)
    model.load_state_dict(weights)
    return model.eval()


def neupronet(pooling: str) -> NeuProNetModel:
    """The official fine-tuned transformer model with a pooling, in evaluation mode."""
    config = OmegaConf.structured(
        NeuProNetConfig(
            pooling=pooling,
            cosine_sign="distance",
            n_classes=4,
            n_mels=128,
            profiling=True,
            transformer=SpectrogramWav2Vec2Config(**SIZES),
            profile_extractor=SpectrogramWav2Vec2Config(**SIZES),
        )
    )
    weights = {}
    for name in ("official_backbone", "official_profile_extractor"):
        for key, value in np.load(GOLDEN / f"{name}.npz").items():
            key = key.replace("w2v_model.", "network.")
            for theirs, ours in (("encoder.", "backbone."), ("decoder.", "head.")):
                key = ours + key.removeprefix(theirs) if key.startswith(theirs) else key
            weights[key] = torch.from_numpy(value)
    model = NeuProNetModel.build_model(config, None)
    model.load_state_dict(weights)
    return model.eval()
