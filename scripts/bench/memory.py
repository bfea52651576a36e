"""Resident memory as Linux counts it, or what torch holds of a GPU's, in MiB.

Not ``getrusage``: its maximum begins at the memory of the process that started this one.
"""

from collections.abc import Callable
from pathlib import Path

STATUS = Path("/proc/self/status")


def _status(field: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def peak_mib(device: str = "cpu") -> float:
    """The most that this process has ever held."""
    return _status("VmHWM") if device == "cpu" else _gpu().max_memory_allocated() / 2**20


def _gpu():
    import torch

    return torch.cuda


def growth_mib(work: Callable[[], object], device: str = "cpu") -> float:
    """How far above what the process holds now its memory rises while ``work`` runs.

    The kernel's high-water mark is set back to the present before. What ``work`` gets from memory that the process has
    freed and kept is not seen: start the process with ``RETURNS_MEMORY``, or measure one call in a fresh process.
    """
    if device != "cpu":
        return _growth_on_gpu(work)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    kept = work()
    growth = _status("VmHWM") - before
    del kept
    return growth


def _growth_on_gpu(work: Callable[[], object]) -> float:
    before = _gpu().memory_allocated()
    _gpu().reset_peak_memory_stats()
    kept = work()
    growth = (_gpu().max_memory_allocated() - before) / 2**20
    del kept
    return growth


# glibc then maps every buffer from 64 KiB up, and gives it back when it is freed.
RETURNS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536"}
