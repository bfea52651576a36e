"""The fused Adam against fairseq's own."""

import copy

import pytest
import torch
from fairseq.optim.adam import Adam
from omegaconf import OmegaConf
from torch import nn

import fairseq_neupronet.tasks  # noqa: F401
from fairseq_neupronet.checkpoints.texts import parse_betas
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.trainer.fused_adam import FairseqAdam, FusedAdam

# Large enough to show whether eps stands where fairseq has it.
OPTIONS = {"lr": 0.05, "betas": (0.9, 0.98), "eps": 1e-2, "weight_decay": 0.3}


def networks():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 5)).double()
    net[0].to(memory_format=torch.channels_last)
    return net, copy.deepcopy(net)


def train(net, optimizer, updates, freeze=0):
    for number in range(updates):
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(4, 3, 6, 6, dtype=torch.float64, generator=generator)
        optimizer.zero_grad()
        net[0].requires_grad_(number >= freeze)
        net(x).square().sum().backward()
        if net[0].weight.grad is not None:  # in another order of memory than the weights
            net[0].weight.grad = net[0].weight.grad.contiguous()
        optimizer.step()


def assert_equal_weights(one, other):
    for expected, found in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("freeze", [0, 3])
def test_updates_are_fairseqs(freeze):
    theirs, ours = networks()
    train(theirs, Adam(theirs.parameters(), **OPTIONS), 8, freeze)
    train(ours, FusedAdam(ours.parameters(), **OPTIONS), 8, freeze)
    assert_equal_weights(theirs, ours)


@pytest.mark.parametrize("first, second", [(Adam, FusedAdam), (FusedAdam, Adam)])
def test_either_goes_on_from_the_others_state(first, second):
    theirs, mixed = networks()
    unbroken = Adam(theirs.parameters(), **OPTIONS)
    train(theirs, unbroken, 4)
    train(theirs, unbroken, 4)
    begun = first(mixed.parameters(), **OPTIONS)
    train(mixed, begun, 4)
    continued = second(mixed.parameters(), **OPTIONS)
    continued.load_state_dict(copy.deepcopy(begun.state_dict()))
    train(mixed, continued, 4)
    assert_equal_weights(theirs, mixed)


def test_a_checkpoint_finds_the_same_name():
    from fairseq.optim.adam import FairseqAdam as Theirs

    assert FairseqAdam.__name__ == Theirs.__name__


@pytest.mark.parametrize("betas", ["(0.9,0.98)", "[0.9, 0.98]", (0.9, 0.98), OmegaConf.create([0.9, 0.98])])
def test_betas(betas):
    assert parse_betas(betas) == (0.9, 0.98)


@pytest.mark.parametrize(
    "betas", ["__import__('os').getpid()", "(0.9, 1.0)", "(0.9,)", "0.9", "(0.9, 'x')", "[" * 9999, "(-0.1, 0.9)", None]
)
def test_other_betas_are_refused(betas):
    with pytest.raises(InputError, match="adam_betas"):
        parse_betas(betas)
