"""The specification of the convolution stack, read without ``eval``.

The field holds a Python expression such as ``[(512, 5, 1, 2)] + [(256, 3, 1)] * 2``: a list of layers
(dim, kernel, dilation, stride), a layer of three numbers having stride 2.
"""

import ast
from collections.abc import Sequence

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
