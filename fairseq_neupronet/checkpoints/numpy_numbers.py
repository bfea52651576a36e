"""Single numbers of numpy in a pickle, read as Python's: a metric computed by numpy ends up so in a checkpoint.

numpy's own functions for it stay out: they would make any dtype, objects included, from a stranger's bytes.
"""

import struct

import torch

_FORMATS = {
    "b1": "?",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
    "f2": "e",
    "f4": "f",
    "f8": "d",
}


class _DType:
    """Stands in for ``numpy.dtype``: the name of a number's kind, and its byte order."""

    def __init__(self, kind: str, align: bool = False, copy: bool = True):
        self.format = _FORMATS[kind]
        self.byte_order = "<"

    def __setstate__(self, state: tuple) -> None:
        self.byte_order = {"<": "<", ">": ">", "|": "<"}[state[1]]


def _number(dtype: _DType, data: bytes) -> bool | int | float:
    """Stands in for ``numpy.core.multiarray.scalar``."""
    (value,) = struct.unpack(dtype.byte_order + dtype.format, data)
    return value


_STAND_INS = {
    "numpy.dtype": _DType,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
}
NUMPY_NAMES = (*_STAND_INS, "_codecs.encode")


def numpy_numbers():
    """A context in which ``torch.load(weights_only=True)`` reads numpy's single numbers as Python's."""
    return torch.serialization.safe_globals([(stand_in, name) for name, stand_in in _STAND_INS.items()])
