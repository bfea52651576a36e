"""Time of one run."""

import time
from collections.abc import Callable


def seconds(work: Callable[[], object], times: int = 1, device: str = "cpu") -> float:
    """Mean seconds of a call; on a GPU until it has done what the calls asked of it."""
    wait = _nothing if device == "cpu" else _synchronize
    wait()
    start = time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return (time.perf_counter() - start) / times


def _nothing() -> None:
    pass


def _synchronize() -> None:
    import torch

    torch.cuda.synchronize()
