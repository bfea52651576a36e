"""Running statistics are the mean over the batches so far, until a batch weighs as little as the momentum."""

import copy

import pytest
import tiny
import torch
from omegaconf import OmegaConf

from fairseq_neupronet.backbones import build_backbone
from fairseq_neupronet.backbones.registry import average_from_the_first_batch
from fairseq_neupronet.models.fairseq_configs import NeuProNetConfig

KINDS = ["small_cnn", "resnet18", "efficientnet-b0"]
LONG = 14  # batches, more than 1 / .1


def build(kind, **options):
    torch.manual_seed(1)
    config = OmegaConf.merge(OmegaConf.structured(NeuProNetConfig()), tiny.MODEL, {"backbone": kind}, options)
    backbone = build_backbone(kind, 8, 12, config).train()
    if kind != "small_cnn":  # which does so itself
        average_from_the_first_batch(backbone)
    return backbone


def first_norm(backbone):
    return next(module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d))


def batch(number):
    return torch.randn(4, 8, 20, generator=torch.Generator().manual_seed(number))


def train(backbone, numbers):
    """Statistics of the first batch norm's input in each batch, as they are without any running ones."""
    seen, norm = [], first_norm(backbone)
    hook = norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    for number in numbers:
        backbone(batch(number), torch.zeros(4, 20, dtype=torch.bool))
    hook.remove()
    return seen


def expected(backbone, numbers, momentum=0.1):
    """The weighted mean over batches of their means, batch t weighing max(momentum, 1 / t)."""
    reference = copy.deepcopy(backbone)
    norm = first_norm(reference)
    values = []
    norm.forward = lambda x: (
        values.append(x.detach()) or torch.nn.functional.batch_norm(x, None, None, norm.weight, norm.bias, True)
    )
    # The plain network, layer by layer, whose first batch norm keeps nothing.
    with torch.enable_grad():
        for number in numbers:
            reference(batch(number), torch.zeros(4, 20, dtype=torch.bool))
    mean = 0.0
    for t, x in enumerate(values, 1):
        weight = max(momentum, 1 / t)
        mean = (1 - weight) * mean + weight * x.mean(dim=(0, 2, 3))
    return mean


@pytest.mark.parametrize("kind", ["small_cnn", "resnet18"])
@pytest.mark.parametrize("n_batches", [1, 3, LONG])
def test_they_are_the_mean_so_far_and_then_a_moving_one(kind, n_batches):
    backbone = build(kind)
    mean = expected(backbone, range(n_batches))
    train(backbone, range(n_batches))
    assert torch.allclose(first_norm(backbone).running_mean, mean, atol=1e-5)


def test_the_lean_efficientnet_weighs_as_the_plain_one():
    lean, plain = build("efficientnet-b0"), build("efficientnet-b0")
    for number in range(3):
        lean(batch(number), torch.zeros(4, 20, dtype=torch.bool))
        with torch.autocast("cpu", enabled=True, dtype=torch.bfloat16):  # which the lean one leaves to the library
            plain(batch(number), torch.zeros(4, 20, dtype=torch.bool))
    first = [first_norm(each).running_var for each in (lean, plain)]
    assert torch.allclose(*first, rtol=0.05) and (first[0] - 1).abs().max() > 0.3  # 1: their initial value
    assert {norm.momentum for norm in lean.modules() if isinstance(norm, torch.nn.BatchNorm2d)} == {1 / 3}


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_goes_on_weighs_as_an_unbroken_one(kind):
    whole, first = build(kind), build(kind)
    torch.manual_seed(3)
    train(whole, range(4))
    torch.manual_seed(3)
    train(first, range(2))
    second = build(kind)
    second.load_state_dict(first.state_dict())
    train(second, range(2, 4))
    assert torch.equal(first_norm(second).running_mean, first_norm(whole).running_mean)


def test_afterwards_the_momentum_is_the_configured_one():
    backbone = build("efficientnet-b0", batch_norm_momentum=0.25)
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    found = []
    for number in range(5):
        train(backbone, [number])
        found.append({norm.momentum for norm in norms})
    assert found == [{1.0}, {1 / 2}, {1 / 3}, {0.25}, {0.25}]


def test_frozen_statistics_are_left_alone():
    backbone = build("resnet18").eval()
    train(backbone, [0])
    norm = first_norm(backbone)
    assert norm.momentum == 0.1 and not norm.running_mean.any()
