"""Frozen parameters under ``common.fp16`` and ``common.bf16``, whose optimiser steps on copies in float32."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def _masters_of(optimizer, frozen: set[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """(The copy in float32, the parameter) of each frozen parameter; fairseq keeps the copies flat or as a list."""
    parameters, masters = optimizer.fp16_params, optimizer.fp32_params
    if isinstance(masters, dict):
        (flat,) = masters.values()  # one device a process
        parts = flat.data.split([parameter.numel() for parameter in parameters])
        masters = [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]
    for master, parameter in zip(masters, parameters, strict=True):
        if id(parameter) in frozen:
            yield master.data, parameter.data


@contextlib.contextmanager
def masters_kept(optimizer, frozen: Sequence[Tensor]) -> Iterator[None]:
    """What is frozen stays as it is while the optimiser steps.

    The copies get gradients of zero where the parameters have none, so that weight decay would move them.

    Args:
        optimizer: fairseq's.
        frozen: parameters of the model.
    """
    if not frozen or not hasattr(optimizer, "fp32_params"):
        yield
        return
    kept = [
        (tensor, tensor.clone())
        for pair in _masters_of(optimizer, {id(parameter) for parameter in frozen})
        for tensor in pair
    ]
    yield
    with torch.no_grad():
        for tensor, value in kept:
            tensor.copy_(value)
