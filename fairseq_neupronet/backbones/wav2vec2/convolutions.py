"""Causal convolutions over time, mel bands as channels, and how they are specified.

The option holds a Python expression such as ``[(512, 5, 1, 2)] + [(256, 3, 1)] * 2``, read without ``eval``: a list of
layers (dim, kernel, dilation, stride), a layer of three numbers having stride 2.

Letters: B clips, M mel bands, F frames, T steps.
"""

import ast
from collections.abc import Sequence
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_neupronet.config.model import EXTRACTOR_MODES
from fairseq_neupronet.errors import InputError

ConvLayer = tuple[int, int, int, int]

MAX_CHARACTERS = 4096
MAX_LAYERS = 64
MAX_INTEGER = 65536
_DEFAULT_STRIDE = 2
_SHAPE = "a list of layers (dim, kernel, dilation, stride), for instance [(512, 5, 1, 2)] + [(256, 3, 1)] * 2"


def _bounded_int(value: int) -> int:
    if value > MAX_INTEGER:
        raise InputError(f"conv_feature_layers holds a number above {MAX_INTEGER}.")
    return value


def _bounded_length(length: int) -> None:
    if length > MAX_LAYERS:
        raise InputError(f"conv_feature_layers describes more than {MAX_LAYERS} layers.")


def _evaluate_operation(node: ast.BinOp) -> int | list:
    left, right = _evaluate(node.left), _evaluate(node.right)
    kinds = (type(left), type(right))
    if isinstance(node.op, ast.Add):
        if kinds == (int, int):
            return _bounded_int(left + right)
        if kinds == (list, list):
            _bounded_length(len(left) + len(right))
            return left + right
    if isinstance(node.op, ast.Mult):
        if kinds == (int, int):
            return _bounded_int(left * right)
        if set(kinds) == {int, list}:
            layers, times = (left, right) if kinds[0] is list else (right, left)
            _bounded_length(len(layers) * times)
            return layers * times
    raise InputError(f"conv_feature_layers combines parts that do not go together; it has to be {_SHAPE}.")


def _evaluate(node: ast.AST) -> int | list | tuple:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return _bounded_int(node.value)
    if isinstance(node, ast.List | ast.Tuple):
        _bounded_length(len(node.elts))
        items = [_evaluate(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        return _evaluate_operation(node)
    raise InputError(f"conv_feature_layers may hold lists, tuples, integers, + and * only; it has to be {_SHAPE}.")


def _layer(number: int, layer: object) -> ConvLayer:
    # The layer itself is not printed: nested repetition of a few characters would print as gigabytes.
    if not isinstance(layer, list | tuple) or len(layer) not in (3, 4) or any(type(n) is not int for n in layer):
        raise InputError(f"conv_feature_layers: layer {number} is not 3 or 4 integers; it has to be {_SHAPE}.")
    if min(layer) < 1:
        raise InputError(f"conv_feature_layers: layer {number}, {layer}, holds a number below 1.")
    return (*layer, _DEFAULT_STRIDE)[:4]


def parse_conv_spec(text: str) -> list[ConvLayer]:
    """Read a convolution spec.

    Args:
        text: lists, tuples and integers joined by ``+`` and ``*``; sizes are bounded before anything is expanded.

    Returns:
        (dim, kernel, dilation, stride) per layer.

    Raises:
        InputError: anything else.
    """
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
        raise InputError(f"conv_feature_layers has to be a text of at most {MAX_CHARACTERS} characters.")
    try:
        layers = _evaluate(ast.parse(text.strip(), mode="eval").body)
    except InputError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"conv_feature_layers {text[:80]!r} cannot be read; it has to be {_SHAPE}.") from error
    if not isinstance(layers, list | tuple) or not layers:
        raise InputError(f"conv_feature_layers {text[:80]!r} holds no layers; it has to be {_SHAPE}.")
    return [_layer(number, layer) for number, layer in enumerate(layers, start=1)]


def output_lengths(lengths, spec: Sequence[ConvLayer]):
    """Steps that the causal convolution stack makes of so many frames: floor((L - 1) / stride) + 1 per layer.

    Args:
        lengths: frames: an int, or an integer array or tensor of any shape; what comes back is of the same kind.
        spec: layers of :func:`parse_conv_spec`.
    """
    for *_, stride in spec:
        lengths = (lengths - 1) // stride + 1
    return lengths


class CausalConvolutions(nn.Module):
    """Left-padded by (kernel − 1) · dilation, bias-free, each followed by GELU.

    Strides and dilations of later layers pass over steps of earlier ones: of the published stack the last layer reads
    every other step of the second, and that every other one of the first. Steps that nothing reads are not computed.

    Args:
        spec: per layer (dim, kernel, dilation, stride).
        n_mels: M.
        mode: ``default`` puts a group norm (one group a channel) after the first layer, ``layer_norm`` a layer norm
            after each.

    Raises:
        InputError: unknown mode.
    """

    def __init__(self, spec: list[tuple[int, int, int, int]], n_mels: int, mode: str):
        super().__init__()
        if mode not in EXTRACTOR_MODES:
            raise InputError(f"extractor_mode={mode!r} is not known; known are {', '.join(EXTRACTOR_MODES)}")
        self.left_padding = []
        self.conv_layers = nn.ModuleList()
        channels, spacing = n_mels, 1
        for number, ((dim, kernel, dilation, stride), read) in enumerate(zip(spec, steps_read(spec), strict=True)):
            norm, needs_all = _norm(dim, mode, first=number == 0), mode == "default" and number == 0
            computed, kept = (1, read) if needs_all else (read, 1)
            stride, dilation = stride * computed // spacing, dilation // spacing
            convolution = nn.Conv1d(channels, dim, kernel, stride=stride, dilation=dilation, bias=False)
            nn.init.kaiming_normal_(convolution.weight)
            # Positions 0 and 2 carry the names of fairseq's own extractor, so that checkpoints map one to one.
            self.conv_layers.append(nn.Sequential(convolution, nn.Identity(), norm, _EveryStep(kept), nn.GELU()))
            self.left_padding.append((kernel - 1) * dilation)
            channels, spacing = dim, read

    def forward(self, source: Tensor) -> Tensor:
        """(B, M, F) → (B, C, T)."""
        x = source
        for padding, layer in zip(self.left_padding, self.conv_layers, strict=True):
            x = layer(F.pad(x, (padding, 0)))
        return x


def steps_read(spec: list[tuple[int, int, int, int]]) -> list[int]:
    """Per layer n, where only its steps 0, n, 2n … are read by the layers above.

    Step t of a layer reads steps stride · t − dilation · j of the one below.
    """
    spacings = [1]
    for _, _, dilation, stride in reversed(spec[1:]):
        spacings.insert(0, gcd(stride * spacings[0], dilation))
    return spacings


def _norm(dim: int, mode: str, first: bool) -> nn.Module:
    if mode == "layer_norm":
        # Position 1 carries fairseq's name of the layer norm's parameters.
        return nn.Sequential(_TimeLast(), _LayerNorm(dim), _TimeLast())
    return _GroupNorm(dim, dim) if first else nn.Identity()


class _EveryStep(nn.Module):
    """(B, C, T) → (B, C, ⌈T / n⌉), steps 0, n, 2n …"""

    def __init__(self, n: int):
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        return x if self.n == 1 else x[..., :: self.n].contiguous()


class _TimeLast(nn.Module):
    """(B, C, T) → (B, T, C), and back."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mT


class _LayerNorm(nn.LayerNorm):
    """In float32 whatever the network runs in."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).type_as(x)


class _GroupNorm(nn.GroupNorm):
    """In float32 whatever the network runs in."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        # torch.nn.functional refuses a single clip of one step, which a larger batch with the same clip may hold.
        return torch.group_norm(x.float(), self.num_groups, weight, bias, self.eps).type_as(x)
