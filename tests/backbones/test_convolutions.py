"""The convolution stack computes only the steps that are read; here every step, one product after the other."""

import pytest
import torch
import torch.nn.functional as F

from fairseq_neupronet.backbones.wav2vec2.convolutions import CausalConvolutions, steps_read

PUBLISHED = [(12, 5, 1, 2), (8, 5, 2, 2), (6, 5, 4, 2)]
SPECS = [
    PUBLISHED,
    [(4, 3, 1, 2), (4, 3, 1, 2), (4, 3, 1, 2)],
    [(4, 3, 1, 1), (4, 3, 3, 3), (4, 2, 6, 1)],
    [(4, 3, 2, 4), (4, 1, 1, 2), (4, 1, 2, 2)],
    [(4, 5, 1, 2), (4, 3, 4, 2), (4, 3, 4, 4), (4, 2, 8, 1)],
    [(4, 3, 1, 2)],
]
MELS = 7


def every_step(network: CausalConvolutions, spec, mode: str, source):
    """Layer by layer, each output step a sum over the kernel of the input that many steps back."""
    x = source
    for number, ((_, kernel, dilation, stride), layer) in enumerate(zip(spec, network.conv_layers, strict=True)):
        weight, steps = layer[0].weight, []
        for t in range(0, x.shape[2], stride):
            back = [(j, t - dilation * (kernel - 1 - j)) for j in range(kernel)]
            steps.append(sum(x[:, :, at] @ weight[:, :, j].T for j, at in back if at >= 0))
        x = torch.stack([step + x.new_zeros(len(x), weight.shape[0]) for step in steps], dim=2)
        if mode == "layer_norm":
            norm = layer[2][1]
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + norm.eps).sqrt()
            x = x * norm.weight[:, None] + norm.bias[:, None]
        elif number == 0:
            norm = layer[2]
            x = (x - x.mean(2, keepdim=True)) / (x.var(2, unbiased=False, keepdim=True) + norm.eps).sqrt()
            x = x * norm.weight[:, None] + norm.bias[:, None]
        x = F.gelu(x)
    return x


@pytest.mark.parametrize("frames", [1, 2, 19, 64])
@pytest.mark.parametrize("mode", ["default", "layer_norm"])
@pytest.mark.parametrize("spec", SPECS)
def test_equals_the_stack_that_computes_every_step(spec, mode, frames):
    torch.manual_seed(0)
    network = CausalConvolutions(spec, MELS, mode)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    source = torch.randn(2, MELS, frames)
    ours, expected = network(source), every_step(network, spec, mode, source)
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    weights = torch.randn(ours.shape)
    gradients = (torch.autograd.grad((y * weights).sum(), network.parameters()) for y in (ours, expected))
    for mine, other in zip(*gradients, strict=True):
        # One step normalised over time is its bias: the gradient of what is below is 0, and rounding.
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3 * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("spec", SPECS)
def test_only_steps_that_change_the_output_are_read(spec):
    """Which steps of a layer the next ones read, by walking back from each step of the last."""
    spacings = steps_read(spec)
    assert spacings[-1] == 1
    read = set(range(200))
    for (_, kernel, dilation, stride), spacing in zip(reversed(spec[1:]), reversed(spacings[:-1]), strict=True):
        read = {stride * t - dilation * j for t in read for j in range(kernel)}
        assert all(step % spacing == 0 for step in read)


def test_the_published_stack_reads_half_of_its_first_two_layers():
    assert steps_read([(512, 5, 1, 2), (512, 5, 2, 2), (256, 5, 4, 2)]) == [2, 2, 1]
