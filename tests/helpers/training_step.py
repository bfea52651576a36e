"""Training steps without dropout, from weights and clips that formulas give: losses and gradients for a golden file.

``python tests/helpers/training_step.py FILE`` writes what the package on the path computes (tests/golden/README.md).
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from fairseq_neupronet.models.neupronet import NeuProNetConfig, NeuProNetModel
from fairseq_neupronet.models.spectrogram_wav2vec2 import SpectrogramWav2Vec2Config, SpectrogramWav2Vec2Model

N_MELS, N_FRAMES = 6, 40
FRAMES, PROFILE, LABEL = (40, 17, 33, 40, 9, 26), (0, 0, 1, 1, 2, 2), (0, 1, 2, 2, 1, 0)
SIZES = {
    "n_mels": N_MELS,
    "conv_feature_layers": "[(8,3,1,2),(8,3,1,2)]",
    "encoder_layers": 2,
    "encoder_embed_dim": 8,
    "encoder_ffn_embed_dim": 12,
    "encoder_attention_heads": 2,
    "conv_pos": 6,
    "conv_pos_groups": 2,
    "final_dim": 4,
    "mask_prob": 0.4,
    "mask_length": 3,
    "num_negatives": 3,
    "cross_sample_negatives": 4,
    **dict.fromkeys(
        (
            "dropout",
            "attention_dropout",
            "activation_dropout",
            "encoder_layerdrop",
            "dropout_input",
            "dropout_features",
        ),
        0.0,
    ),
}
LAYER_NORM_FIRST = {"layer_norm_first": True, "extractor_mode": "layer_norm", "activation_fn": "gelu_accurate"}
MORE_DRAWS = {"quantize_targets": True, "latent_vars": 5, "latent_groups": 2, "mask_channel_prob": 0.3}


def _config(**options) -> SpectrogramWav2Vec2Config:
    return SpectrogramWav2Vec2Config(**SIZES | options)


def _neupronet() -> NeuProNetModel:
    options = {"n_mels": N_MELS, "n_classes": 3, "profiling": True, "decoder_embed_dim": 5}
    config = NeuProNetConfig(transformer=_config(), profile_extractor=_config(**LAYER_NORM_FIRST), **options)
    return NeuProNetModel.build_model(OmegaConf.structured(config), None)


def _pretraining() -> SpectrogramWav2Vec2Model:
    config = _config(**LAYER_NORM_FIRST, **MORE_DRAWS, mask_channel_length=2)
    return SpectrogramWav2Vec2Model.build_model(OmegaConf.structured(config), None)


def _loss(model, source, padding, profile) -> torch.Tensor:
    if isinstance(model, SpectrogramWav2Vec2Model):
        output = model(source, padding, profile)
        return F.cross_entropy(output["logits"], model.get_targets(None, output)) + sum(model.get_extra_losses(output))
    output = model(source, padding, profile)
    logits = model.contrast(source, padding, profile, output.encoded)["logits"]
    classification = F.cross_entropy(output.logits, torch.tensor(LABEL))
    return classification + F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


def _trained(model: torch.nn.Module) -> dict[str, np.ndarray]:
    model.double().train()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            wave = torch.cos(torch.arange(parameter.numel(), dtype=torch.float64) * (1.7 + 0.1 * number) + number)
            parameter.copy_(0.5 * wave.view_as(parameter) + (parameter.dim() == 1))
    time, band = torch.arange(N_FRAMES, dtype=torch.float64), torch.arange(N_MELS, dtype=torch.float64)[:, None]
    source = torch.stack([torch.sin((0.3 + 0.1 * clip) * time + (1 + clip) * band) for clip in range(len(FRAMES))])
    padding = torch.arange(N_FRAMES) >= torch.tensor(FRAMES)[:, None]
    source = source.masked_fill(padding.unsqueeze(1), 0.0)
    gradients, losses = [], []
    for update in range(3):
        torch.manual_seed(update)
        model.zero_grad()
        loss = _loss(model, source, padding, torch.tensor(PROFILE))
        loss.backward()
        losses.append(float(loss.detach()))
        moved = [parameter for parameter in model.parameters() if parameter.grad is not None]
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in moved]))
        with torch.no_grad():
            for parameter in moved:
                parameter.sub_(0.05 * parameter.grad)
    names = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    return {"losses": np.array(losses), "gradients": gradients[0].numpy(), "names": np.array(names)}


def trained() -> dict[str, np.ndarray]:
    """Three updates of plain gradient descent in float64 of both models, by ``<model>/<part>``.

    The parts are the ``losses`` (3,), the ``gradients`` of the first update, those of all parameters joined, and the
    parameters' ``names`` in their order.
    """
    models = {"neupronet": _neupronet(), "pretraining": _pretraining()}
    return {f"{kind}/{part}": value for kind, model in models.items() for part, value in _trained(model).items()}


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], **trained())
