"""The optional terms of the loss at their edges: alone, on batches that hold nothing to contrast, on any input."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from omegaconf import OmegaConf, open_dict

from fairseq_neupronet.models.neupronet import NeuProNetConfig, NeuProNetModel

SUPCON_ALONE = {"sup_contrast": True, "sup_contrast_weights": [0.0, 1.0], "loss_weights": [1.0, 0.0]}


def supcon_by_hand(fused, labels, temperature=0.7):
    """Khosla et al. 2020, equation 2, averaged over all clips, in float64 and clip by clip."""
    unit = fused / np.linalg.norm(fused, axis=1, keepdims=True)
    total = 0.0
    for i in range(len(unit)):
        others = [j for j in range(len(unit)) if j != i]
        positives = [j for j in others if labels[j] == labels[i]]
        log_sum = math.log(sum(math.exp(unit[i] @ unit[j] / temperature) for j in others)) if others else 0.0
        if positives:
            total -= sum(unit[i] @ unit[j] / temperature - log_sum for j in positives) / len(positives)
    return total / len(unit)


def loss_of(corpus, batch_size, classes=None, profiling=True, **options):
    """Loss with its gradients in evaluation mode, and the fused embeddings (B, W) and classes (B,)."""
    task = tiny.build_task(corpus, profiling=profiling)
    torch.manual_seed(0)
    model = tiny.build_model(task).eval()
    criterion = tiny.build_criterion(task, **options).eval()
    batch = tiny.batches(task, "train", batch_size=batch_size)[0]
    if classes is not None:
        batch["target"] = torch.tensor(classes)
    loss, *_ = criterion(model, batch)
    loss.backward()
    with torch.no_grad():
        fused = model(**batch["net_input"]).fused
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return float(loss.detach()), gradients, fused.double().numpy(), batch["target"].tolist()


@pytest.mark.parametrize("profiling", [True, False])
@pytest.mark.parametrize("batch_size", [2, 5, 12])
def test_sup_contrast_alone_is_the_mean_over_clips(corpus, profiling, batch_size):
    loss, gradients, fused, labels = loss_of(corpus, batch_size, profiling=profiling, **SUPCON_ALONE)
    assert loss == pytest.approx(supcon_by_hand(fused, labels), rel=1e-4, abs=1e-6)
    assert all(gradient.isfinite().all() for gradient in gradients)
    if len(set(labels)) < len(labels):
        assert loss > 0.1
        assert max(float(gradient.abs().max()) for gradient in gradients) > 0


@pytest.mark.parametrize("profiling", [True, False])
@pytest.mark.parametrize("classes", [[1], [0, 1], [2, 0, 1]])
def test_clips_without_another_of_their_class_give_zero(corpus, profiling, classes):
    """NaN for one clip in the official code."""
    loss, gradients, *_ = loss_of(corpus, len(classes), classes, profiling, **SUPCON_ALONE)
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients)


def test_a_clip_without_another_of_its_class_adds_nothing_beside_others(corpus):
    loss, _, fused, labels = loss_of(corpus, 4, [0, 1, 1, 2], **SUPCON_ALONE)
    assert loss == pytest.approx(supcon_by_hand(fused, labels), rel=1e-4)
    assert loss > 0.1


@pytest.mark.parametrize("n_mels", [1, 20, 64, 192])
@pytest.mark.parametrize("backbone", ["spectrogram_wav2vec2", "efficientnet-b0", "resnet18", "none"])
def test_the_auto_encoder_works_for_every_backbone_and_number_of_mel_bands(corpus, backbone, n_mels):
    """It crashes for every backbone in the official code."""
    config = OmegaConf.structured(NeuProNetConfig())
    with open_dict(config):
        config = OmegaConf.merge(
            config,
            tiny.MODEL,
            {"backbone": backbone, "auto_encoder": True, "profiling": True, "n_classes": 3},
            {"n_mels": n_mels},
            {"fusion": "profile" if backbone == "none" else "concat"},
        )
    torch.manual_seed(0)
    model = NeuProNetModel.build_model(config, None).train()
    task = SimpleNamespace(classes=range(3), cfg=SimpleNamespace(profiling=True))
    criterion = tiny.build_criterion(task, loss_weights=[0.9, 0.1]).train()
    padding_mask = torch.zeros(6, 40, dtype=torch.bool)
    padding_mask[3:, 25:] = True
    batch = {
        "id": torch.arange(6),
        "net_input": {
            "source": torch.randn(6, n_mels, 40).masked_fill(padding_mask.unsqueeze(1), 0.0),
            "padding_mask": padding_mask,
            "profile": torch.tensor([0, 0, 1, 1, 2, 2]),
        },
        "target": torch.tensor([0, 1, 2, 0, 1, 2]),
    }
    loss, _, log = criterion(model, batch)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert float(log["extra"]) > 0.1
    gradients = [parameter.grad for parameter in model.auto_encoder.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_another_temperature_of_the_supervised_contrastive_loss(corpus):
    task = tiny.build_task(corpus, profiling=True)
    torch.manual_seed(0)
    model = tiny.build_model(task).eval()
    batch = tiny.batches(task, "train", batch_size=12)[0]
    criterion = tiny.build_criterion(task, **SUPCON_ALONE, sup_contrast_temperature=0.2).eval()
    with torch.no_grad():
        fused = model(**batch["net_input"]).fused.double().numpy()
        loss = float(criterion(model, batch)[0])
    assert loss == pytest.approx(supcon_by_hand(fused, batch["target"].tolist(), 0.2), rel=1e-4)
