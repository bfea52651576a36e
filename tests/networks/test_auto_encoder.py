"""The auto-encoder loss: its three parts recomputed in numpy, and a batch of one clip."""

import numpy as np
import pytest
import torch

from fairseq_neupronet.networks.auto_encoder import AutoEncoderLoss


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def run(layers, x, training):
    """Apply linear, batch norm and ReLU layers in numpy."""
    for layer in layers:
        kind = type(layer).__name__
        if kind == "Linear":
            x = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        elif kind == "ReLU":
            x = np.maximum(x, 0)
        else:
            mean = x.mean(0) if training else layer.running_mean.numpy()
            variance = x.var(0) if training else layer.running_var.numpy()
            x = (x - mean) / np.sqrt(variance + layer.eps)
            x = x * layer.weight.detach().numpy() + layer.bias.detach().numpy()
    return x


@pytest.mark.parametrize("training", [True, False])
def test_equals_numpy(training):
    torch.manual_seed(0)
    module = AutoEncoderLoss(n_mels=20, fused_width=12, hidden=16, align_width=10, weight=0.5).double()
    module.train(training)
    spectrum, fused = torch.randn(6, 20, dtype=torch.float64), torch.randn(6, 12, dtype=torch.float64)
    a, f = spectrum.numpy(), fused.numpy()
    code = unit(run(module.encoder, a, training))
    squared = ((run(module.decoder, code, training) - a) ** 2).mean()
    h_a = run([module.align_code, torch.nn.ReLU()], code, training)
    h_f = run([module.align_fused, torch.nn.ReLU()], unit(f), training)
    p, q = softmax(h_a), softmax(h_f)
    divergence = (p * (np.log(p) - np.log(q))).sum()
    views = np.concatenate([unit(h_a), unit(h_f)])
    contrast = 0.0
    for i in range(12):
        similarity = views @ views[i] / 0.07
        others = np.delete(similarity, i)
        contrast -= (similarity[(i + 6) % 12] - np.log(np.exp(others).sum())) / 12
    expected = 6 * (squared + 0.5 * divergence + 0.5 * contrast)
    assert module(spectrum, fused).item() == pytest.approx(expected, rel=1e-9)


def test_official_shape():
    module = AutoEncoderLoss(n_mels=64, fused_width=512)
    shapes = [tuple(layer.weight.shape) for layer in module.encoder if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(128, 64), (128, 128), (128, 128), (128, 128), (8, 128)]
    shapes = [tuple(layer.weight.shape) for layer in module.decoder if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(128, 8), (128, 128), (128, 128), (128, 128), (64, 128)]


@pytest.mark.parametrize("n_clips", [0, 1])
def test_a_batch_of_one_clip_uses_and_keeps_the_running_statistics(n_clips):
    torch.manual_seed(0)
    module = AutoEncoderLoss(n_mels=20, fused_width=12).train()
    module(torch.randn(8, 20), torch.randn(8, 12))
    before = {name: value.clone() for name, value in module.named_buffers()}
    spectrum, fused = torch.randn(n_clips, 20), torch.randn(n_clips, 12, requires_grad=True)
    loss = module(spectrum, fused)
    loss.backward()
    assert loss.isfinite() and fused.grad.isfinite().all()
    assert all(torch.equal(value, before[name]) for name, value in module.named_buffers())
    torch.testing.assert_close(loss, module.eval()(spectrum, fused))


def test_the_divergence_does_not_train_the_code(monkeypatch):
    monkeypatch.setattr("fairseq_neupronet.networks.auto_encoder.supcon_loss", lambda views, **_: views.sum() * 0)
    torch.manual_seed(0)
    module = AutoEncoderLoss(n_mels=20, fused_width=12, weight=1.0)
    module(torch.randn(8, 20), torch.randn(8, 12)).backward()
    assert (module.align_code.weight.grad == 0).all()
    assert (module.align_fused.weight.grad != 0).any()
    assert any((p.grad != 0).any() for p in module.encoder.parameters())
