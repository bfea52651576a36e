"""A function in two worker processes on the CPU; apart from tiny.py, whose imports would cost each of them seconds."""

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_in_two(work, folder: Path, *arguments) -> list:
    """What ``work(rank, *arguments)`` returned in either process."""
    mp.spawn(_run_worker, (work, folder, arguments), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def _run_worker(rank: int, work, folder: Path, arguments) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    # A worker that waits for another in vain fails, instead of hanging.
    dist.init_process_group("gloo", meeting, timedelta(seconds=60), world_size=2, rank=rank)
    torch.save(work(rank, *arguments), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
