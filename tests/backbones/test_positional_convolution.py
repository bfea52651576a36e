"""The position embedding over reachable taps against fairseq's own module."""

import pytest
import torch
from fairseq.models.wav2vec.wav2vec2 import make_conv_pos

from fairseq_neupronet.backbones.wav2vec2.positional_convolution import PositionalConvolution


@pytest.mark.parametrize("taps", [1, 7, 8, 128])
@pytest.mark.parametrize("steps", [1, 2, 4, 5, 16, 70])
def test_outputs_and_gradients_are_fairseqs(taps, steps):
    torch.manual_seed(taps * steps)
    official = make_conv_pos(16, taps, 4).double()
    ours = PositionalConvolution(make_conv_pos(16, taps, 4).double())
    ours.load_state_dict(official.state_dict())
    assert ours.state_dict().keys() == official.state_dict().keys()
    x = torch.randn(3, 16, steps, dtype=torch.float64)
    weights = torch.randn(3, 16, steps, dtype=torch.float64)
    results = []
    for module in (official, ours):
        copied = x.clone().requires_grad_()
        output = module(copied)
        (output * weights).sum().backward()
        results.append((output, copied.grad, *(parameter.grad for parameter in module.parameters())))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
