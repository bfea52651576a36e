"""The convolution spec: what Python reads, and refusal of everything else."""

import time

import pytest
import torch

from fairseq_neupronet.backbones.wav2vec2.convolutions import output_lengths, parse_conv_spec
from fairseq_neupronet.errors import InputError


def test_lists_and_default_stride():
    assert parse_conv_spec("[(512,5,1,2),(256,5,4)]") == [(512, 5, 1, 2), (256, 5, 4, 2)]


@pytest.mark.parametrize(
    "text",
    [
        "[(512, 5, 1, 1), (512, 5, 1, 2), (512, 5, 2, 2), (256, 5, 4, 2)]",
        "[(512, 10, 5, 1)] + [(512, 3, 2, 2)] * 4 + 2 * [(512, 2, 2, 1)]",
        "((64, 3, 1, 1), (64 * 2, 3, 1 + 1, 2))",
        "  [[64, 3, 1, 1]] * 64 ",
    ],
)
def test_equals_python(text):
    assert parse_conv_spec(text) == [tuple(layer) for layer in read_by_python(text)]


def read_by_python(text):
    return eval(text.strip(), {"__builtins__": {}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "512",
        "(512, 3, 1)",
        "[(512, 3)]",
        "[(512, 3, 1, 2, 5)]",
        "[(512, 3, 0, 2)]",
        "[(512, -3, 1, 2)]",
        "[(512, 3.0, 1, 2)]",
        "[(True, 3, 1, 2)]",
        "[('512', 3, 1, 2)]",
        "[(65537, 3, 1, 2)]",
        "[(65536 + 1, 3, 1, 2)]",
        "[(512 * 512, 3, 1, 2)]",
        "[(512, 3, 1, 2)] * True",
        "[(512, 3, 1, 2)] * 0",
        "[(512, 3, 1, 2)] - [(512, 3, 1, 2)]",
        "[(512, 3, 1, 2)] + 1",
        "[(512, 3, 1, 2)] * [(512, 3, 1, 2)]",
        "(512, 3, 1, 2) * 2",
        "[(2 ** 9, 3, 1, 2)]",
        "[(512, 3, 1, 2) for _ in range(3)]",
        "__import__('os').system('true')",
        "[(512, 3, 1, 2)]; 1",
        "open",
        "lambda: 1",
        None,
        [(512, 3, 1, 2)],
    ],
)
def test_refused(text):
    with pytest.raises(InputError, match="conv_feature_layers"):
        parse_conv_spec(text)


@pytest.mark.parametrize(
    "text",
    [
        "[(512, 3, 1, 2)] * 65",
        "[(512, 3, 1, 2)] * 65536 * 65536 * 65536",
        "[(1, 1, 1)]" + " * 64" * 300,
        "[" * 9 + "(1, 1, 1)" + "] * 64" * 9,
        "(" * 2000 + ")" * 2000,
        "1" + "+1" * 2000,
        "[" + "9" * 4000 + "]",
        "[(1, 1, 1), " + " " * 5000 + "]",
        "65536" + " * 65536" * 300,
    ],
)
def test_too_big_is_refused_at_once(text):
    start = time.perf_counter()
    with pytest.raises(InputError) as error:
        parse_conv_spec(text)
    assert time.perf_counter() - start < 1
    assert len(str(error.value)) < 400


def test_output_lengths_equal_a_convolution():
    spec = parse_conv_spec("[(8, 3, 1, 1), (8, 5, 2), (8, 5, 4, 3)]")
    frames = torch.arange(1, 50)
    expected = []
    for n in frames.tolist():
        x = torch.zeros(1, 1, n)
        for _, kernel, dilation, stride in spec:
            x = torch.nn.functional.pad(x, ((kernel - 1) * dilation, 0))
            x = torch.nn.functional.conv1d(x, torch.zeros(1, 1, kernel), dilation=dilation, stride=stride)
        expected.append(x.shape[-1])
    assert output_lengths(frames, spec).tolist() == expected
    assert [output_lengths(n, spec) for n in frames.tolist()] == expected
    assert output_lengths(0, spec) == 0
