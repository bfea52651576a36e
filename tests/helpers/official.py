"""The official networks' sizes and parameter names in ours, and their draws, for the parity tests."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fairseq_neupronet.backbones.wav2vec2.contrast import Negatives, infonce_loss
from fairseq_neupronet.backbones.wav2vec2.network import Randomness
from fairseq_neupronet.models.neupronet import NeuProNetConfig, NeuProNetModel
from fairseq_neupronet.models.spectrogram_wav2vec2 import SpectrogramWav2Vec2Config, SpectrogramWav2Vec2Model

GOLDEN = Path(__file__).parents[1] / "golden"
REFERENCE = Path(os.environ.get("NEUPRONET_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
CLOSE = {"rtol": 0, "atol": 1e-5}
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


def _official_span_mask(padding: np.ndarray, prob: float, length: int) -> np.ndarray:
    """The span scheme of fairseq in 2022, drawing from numpy's global generator, two spans at least."""
    n_clips, n_steps = padding.shape
    np.random.rand()
    chosen = []
    for clip in range(n_clips):
        steps = n_steps - int(padding[clip].sum())
        spans = max(2, int(prob * steps / length + np.random.rand()))
        shortest = length if steps - length > spans else steps - spans - 1
        starts = np.random.choice(steps - shortest, spans, replace=False)
        covered = np.unique(starts[:, None] + np.arange(length))
        chosen.append(covered[covered < steps])
    fewest = min(map(len, chosen))
    mask = np.zeros(padding.shape, bool)
    for clip, steps in enumerate(chosen):
        mask[clip, np.random.choice(steps, fewest, replace=False) if len(steps) > fewest else steps] = True
    return mask


def _official_negatives(mask: np.ndarray, within: int, across: int) -> Negatives:
    """fairseq's draws from torch's global generator: padding included, both halves joined before the reshape."""
    n_clips, n_steps = mask.shape
    n_anchors = int(mask[0].sum())
    halves = []
    for count, high, base in ((within, n_steps, n_steps), (across, n_clips * n_steps, 0)):
        itself = torch.arange(n_anchors).repeat_interleave(count)
        drawn = torch.randint(high - 1, (n_clips, count * n_anchors))
        halves.append(drawn + (drawn >= itself) + torch.arange(n_clips)[:, None] * base)
    index = torch.cat(halves, dim=1).view(n_clips * n_anchors, within + across)
    return Negatives(index, torch.ones_like(index, dtype=torch.bool), torch.tensor(0))


@torch.no_grad()
def compare_with_pretraining(model, quantized: bool) -> None:
    """An extractor's steps, features and InfoNCE against the official ones."""
    golden = np.load(REFERENCE / f"golden_pretrain{'_q' * quantized}.npz")
    source, padding = torch.from_numpy(golden["source"]), torch.from_numpy(golden["padding_mask"][:, 0])
    encoded = model.encode(source, padding, None)
    assert np.array_equal(encoded.padding.numpy(), golden["out_padding_mask"])
    np.testing.assert_allclose(encoded.x, golden["x"], **CLOSE)
    np.testing.assert_allclose(encoded.features, golden["features"], **CLOSE)
    np.testing.assert_allclose(encoded.features_penalty, golden["features_pen"], **CLOSE)

    np.random.seed(7)
    torch.manual_seed(7)
    mask = _official_span_mask(golden["out_padding_mask"], prob=0.5, length=4)
    negatives = _official_negatives(mask, within=5, across=5)
    everywhere = torch.ones(mask.shape, dtype=torch.bool)
    masked = model.encode(source, padding, None, torch.from_numpy(mask))
    output = model.contrast(masked, None, Randomness.for_batch(False, source.device), negatives, everywhere)
    step_major = output["logits"].view(len(mask), -1, 11).transpose(0, 1).flatten(0, 1)
    np.testing.assert_allclose(step_major, golden["logits_seed7"], **CLOSE)
    assert float(infonce_loss(output["logits"])) == pytest.approx(float(golden["infonce_seed7"]), abs=1e-4)
