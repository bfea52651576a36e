"""Class weights and focal loss against the official values and a loop over clips."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.networks.losses import class_alpha, focal_loss, smoothed_targets, soft_focal_loss

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("pooling", ["mean", "profile", "cosine", "dot"])
@pytest.mark.parametrize("gamma", [0, 2])
@pytest.mark.parametrize(("name", "weights"), [("uniform", None), ("uniform", [1.0] * 4), ("w1234", [1, 2, 3, 4])])
def test_equals_official(pooling, gamma, name, weights):
    golden = np.load(GOLDEN / "golden_c.npz")
    logits, targets = torch.tensor(golden[f"{pooling}/logits"]), torch.tensor(golden["target"])
    loss = focal_loss(logits, targets, class_alpha(weights, 4), gamma)
    assert float(loss) == pytest.approx(float(golden[f"{pooling}/loss1/gamma{gamma}/{name}"]), rel=1e-6)


def test_total_equals_official():
    golden = np.load(GOLDEN / "golden_c.npz")
    loss = focal_loss(torch.tensor(golden["dot/logits"]), torch.tensor(golden["target"]), class_alpha(None, 4), 2)
    total = 0.99 * float(loss) + 0.01 * float(golden["contrastive/loss2_seed7"])
    assert total == pytest.approx(float(golden["dot/loss_total_seed7/gamma2/uniform"]), rel=1e-6)


def test_uniform_weights_scale_cross_entropy_by_the_class_count():
    logits, targets = torch.randn(9, 6), torch.arange(9) % 6
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / 6
    torch.testing.assert_close(focal_loss(logits, targets, class_alpha([3] * 6, 6), 0), expected)


def test_focal_factor_has_no_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 3, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.arange(7) % 3
    alpha = class_alpha([1, 2, 5], 3).double()
    (gradient,) = torch.autograd.grad(focal_loss(logits, targets, alpha, 2.0), logits)
    p = torch.softmax(logits, 1).detach()
    for i, t in enumerate(targets.tolist()):
        one_hot = torch.eye(3, dtype=torch.float64)[t]
        torch.testing.assert_close(gradient[i], (1 - p[i, t]) ** 2 * alpha[t] * (p[i] - one_hot))


def test_certain_and_hopeless_clips_stay_finite():
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    for gamma in (0, 0.5, 2):
        loss = focal_loss(logits, torch.tensor([0, 0]), class_alpha(None, 2), gamma)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.item() == pytest.approx(100) and gradient.isfinite().all()


def test_alpha_is_inverse_to_the_counts():
    np.testing.assert_allclose(class_alpha([10, 30], 2), [0.75, 0.25], rtol=1e-6)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_weights_have_to_be_positive(bad):
    with pytest.raises(InputError, match="positive"):
        class_alpha([1.0, bad], 2)


def test_both_counts_are_named():
    with pytest.raises(InputError, match="3 numbers and the data has 10 classes"):
        class_alpha([1, 1, 1], 10)


def test_negative_gamma():
    with pytest.raises(InputError, match="gamma"):
        focal_loss(torch.zeros(1, 2), torch.tensor([0]), class_alpha(None, 2), -1)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_and_mixed_labels_weigh_each_class_by_its_share(gamma, smoothing):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    targets, partner = torch.tensor([0, 1, 2, 3, 3]), torch.tensor([1, 0, 2, 0, 4])
    share = torch.tensor([0.5, 0.7, 1.0, 0.9, 1.0])
    alpha = class_alpha([1, 2, 3, 4], 4).double()
    distribution = smoothed_targets(targets, 4, smoothing, partner, share)
    total = 0.0
    for clip in range(5):
        p = torch.softmax(logits[clip], 0)
        for label in range(4):
            q = float(share[clip]) * float(targets[clip] == label)
            q += (1 - float(share[clip])) * float(targets[partner[clip]] == label)
            q = (1 - smoothing) * q + smoothing / 4
            total -= q * float((1 - p[label]) ** gamma * alpha[label] * p[label].log())
    assert float(soft_focal_loss(logits, distribution, alpha, gamma)) == pytest.approx(total, rel=1e-6)


def test_label_smoothing_is_that_of_torch():
    generator = torch.Generator().manual_seed(4)
    logits, targets = torch.randn(6, 5, generator=generator), torch.tensor([0, 1, 2, 3, 4, 4])
    expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.2, reduction="sum") / 5
    loss = soft_focal_loss(logits, smoothed_targets(targets, 5, 0.2), class_alpha(None, 5), 0.0)
    torch.testing.assert_close(loss, expected)


def test_the_focal_factor_of_mixed_labels_has_no_gradient():
    """Of the weights q α (1 − p)², held still: the gradient is p times their sum, less each."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    shares, alpha = torch.full((3, 4), 0.25, dtype=torch.float64), torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    (gradient,) = torch.autograd.grad(soft_focal_loss(logits, shares, alpha, 2.0), logits)
    probability = torch.softmax(logits, dim=1).detach()
    weight = shares * alpha * (1 - probability) ** 2
    torch.testing.assert_close(gradient, probability * weight.sum(dim=1, keepdim=True) - weight)
