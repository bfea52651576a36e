"""InfoNCE against a materialised loop over anchors, and against the official loss."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_neupronet.backbones.wav2vec2 import contrast
from fairseq_neupronet.backbones.wav2vec2.contrast import Negatives, infonce_logits, infonce_loss, sample_negatives

GOLDEN = Path(__file__).parents[1] / "golden"


def loop_loss(anchors, targets, positive, negatives, temperature):
    """InfoNCE summed over anchors, one anchor and one negative at a time; gradients by autograd."""
    total = anchors.sum() * 0
    for a in range(len(anchors)):
        terms = [targets[positive[a]]]
        for index, valid in zip(negatives.index[a], negatives.valid[a], strict=True):
            if valid and not torch.equal(targets[index], targets[positive[a]]):
                terms.append(targets[index])
        similarity = torch.stack([anchors[a] @ t / (anchors[a].norm() * t.norm()) for t in terms]) / temperature
        total = total + torch.log(torch.exp(similarity).sum()) - similarity[0]
    return total


def random_case(seed: int, quantized: bool):
    generator = torch.Generator().manual_seed(seed)
    candidate = torch.arange(9)[None, :] < torch.randint(1, 10, (5, 1), generator=generator)
    clip, step = (candidate & (torch.rand(5, 9, generator=generator) < 0.5)).nonzero(as_tuple=True)
    group = torch.tensor([0, 0, 1, 1, 0])
    negatives = sample_negatives(clip, step, candidate, group, 4, 6, generator)
    targets = torch.randn(45, 7, generator=generator, dtype=torch.float64)
    if quantized:
        targets = targets[torch.randint(3, (45,), generator=generator)]
    anchors = torch.randn(len(clip), 7, generator=generator, dtype=torch.float64)
    return anchors.requires_grad_(), targets.requires_grad_(), clip * 9 + step, negatives


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("max_product", [2**25, 100])
def test_equals_loop(quantized, max_product, monkeypatch):
    monkeypatch.setattr(contrast, "_MAX_PRODUCT", max_product)
    for seed in range(4):
        anchors, targets, positive, negatives = random_case(seed, quantized)
        loss = infonce_loss(infonce_logits(anchors, targets, positive, negatives, 0.1))
        expected = loop_loss(anchors, targets, positive, negatives, 0.1)
        torch.testing.assert_close(loss, expected)
        gradients = torch.autograd.grad(loss, (anchors, targets))
        for ours, theirs in zip(gradients, torch.autograd.grad(expected, (anchors, targets)), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_equals_official():
    """The official negatives, drawn from the batch sorted by profile; 9 of them equal their positive."""
    golden = np.load(GOLDEN / "golden_c.npz")
    weight, bias = (torch.tensor(golden[f"project_q/{name}"]) for name in ("weight", "bias"))
    targets = torch.tensor(golden["contrastive/unmasked_features"]).flatten(0, 1) @ weight.T + bias
    mask, order = golden["contrastive/mask_indices"], golden["contrastive/argsort_order"]
    n_steps = mask.shape[1]
    n_anchors = int(mask.sum())
    drawn = golden["contrastive/neg_idxs"].reshape(n_anchors, -1)
    index = torch.tensor(order[drawn // n_steps] * n_steps + drawn % n_steps)
    negatives = Negatives(index, torch.ones_like(index, dtype=torch.bool), torch.tensor(0))
    positive = torch.tensor(np.flatnonzero(mask))
    anchors = torch.tensor(golden["contrastive/anchors"]).flatten(0, 1)
    logits = infonce_logits(anchors, targets, positive, negatives, 0.1)
    assert int(logits.isinf().sum()) == 9
    assert float(infonce_loss(logits)) == pytest.approx(float(golden["contrastive/loss2_seed7"]), rel=1e-6)


def test_signed_zeros_are_equal_and_neighbours_are_not():
    targets = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0 + 2**-23], [1e-45, 1.0], [1.0, 0.0]])
    index = torch.tensor([[1, 2, 3, 4]])
    negatives = Negatives(index, torch.ones_like(index, dtype=torch.bool), torch.tensor(0))
    logits = infonce_logits(torch.ones(1, 2), targets, torch.tensor([0]), negatives, 1.0)
    assert logits.isinf().tolist() == [[False, True, False, False, False]]


def test_anchor_without_negatives_adds_nothing():
    negatives = Negatives(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.bool), torch.tensor(1))
    anchors, targets = torch.randn(1, 3, requires_grad=True), torch.randn(6, 3, requires_grad=True)
    loss = infonce_loss(infonce_logits(anchors, targets, torch.tensor([2]), negatives, 0.1))
    loss.backward()
    assert loss == 0 and (anchors.grad == 0).all() and (targets.grad == 0).all()


def test_no_anchors():
    anchors, targets = torch.zeros(0, 3, requires_grad=True), torch.randn(6, 3, requires_grad=True)
    none = torch.zeros(0, 4, dtype=torch.int64)
    negatives = Negatives(none, none.bool(), torch.tensor(0))
    logits = infonce_logits(anchors, targets, none[:, 0], negatives, 0.1)
    assert logits.shape == (0, 5)
    loss = infonce_loss(logits)
    loss.backward()
    assert loss == 0 and targets.grad is not None


def test_zero_features_stay_finite():
    index = torch.tensor([[1, 2]])
    negatives = Negatives(index, torch.ones_like(index, dtype=torch.bool), torch.tensor(0))
    anchors, targets = torch.zeros(1, 3, requires_grad=True), torch.zeros(3, 3)
    targets[1] = 1
    loss = infonce_loss(infonce_logits(anchors, targets.requires_grad_(), torch.tensor([0]), negatives, 0.1))
    loss.backward()
    assert loss.isfinite() and anchors.grad.isfinite().all() and targets.grad.isfinite().all()
