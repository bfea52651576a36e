"""The processes of a training: several of them where fairseq's own way is for GPUs only, what each draws, its end."""

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
from fairseq.data.iterators import BackgroundConsumer

from fairseq_neupronet.errors import InputError

_LAUNCHERS = {"RANK", "SLURM_JOB_NODELIST"}  # variables of torchrun and Slurm
_DRAW = 2**62
_TORCH_BITS = 63
_PATIENCE = 10.0  # seconds for a thread that neither ends nor fills its queue


def process_number() -> int:
    """Of this worker process, from 0 up."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_master() -> bool:
    """Whether this process writes what is written once."""
    return process_number() == 0


def share_buffers(model: torch.nn.Module) -> None:
    """Give all worker processes the running statistics, and other buffers, of the first."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def check_processes(config) -> None:
    """Refuse what fairseq would end with an assertion, or with a training of no process at all.

    Args:
        config: fairseq's whole configuration, defaults included.

    Raises:
        InputError: more processes than GPUs to start them for, or a backend that needs GPUs.
    """
    distributed = config.distributed_training
    n_processes, n_gpus = distributed.distributed_world_size, torch.cuda.device_count()
    if n_processes == 1:
        return
    several_machines = distributed.distributed_init_method is not None or not _LAUNCHERS.isdisjoint(os.environ)
    wanted = 1 if several_machines else n_processes
    if not distributed.distributed_no_spawn and n_gpus < wanted:
        raise InputError(
            f"distributed_training.distributed_world_size={n_processes}: fairseq starts one process for each GPU, and "
            f"there are {n_gpus}; give fewer, or on the CPU start them with torchrun (README, Train and validate)"
        )
    on_cpu = config.common.cpu or not n_gpus
    if on_cpu and distributed.distributed_backend != "gloo":
        raise InputError(
            f"distributed_training.distributed_backend={distributed.distributed_backend} needs GPUs; set it to gloo"
        )
    if on_cpu and distributed.ddp_backend not in ("legacy_ddp", "no_c10d"):
        raise InputError(
            f"distributed_training.ddp_backend={distributed.ddp_backend} needs GPUs in fairseq; set it to legacy_ddp"
        )


@contextlib.contextmanager
def draws_of_batch(process: int) -> Iterator[None]:
    """Seed torch's and numpy's global generators for one batch of an update; numpy's is put back afterwards.

    What is drawn in an update depends on (seed, update, batch of the update, worker process) alone. fairseq seeds torch
    at the start of every update with seed + update, the same in every process, and numpy once, when a training begins.
    So the processes of one training would all mask and drop alike, and a backbone that draws from numpy would draw anew
    in a resumed training. The seeds here are derived from torch's generator as it is: fairseq has seeded it with seed
    and update, and an earlier batch of the same update has moved it on.

    Args:
        process: number of the worker process.
    """
    drawn = int(torch.randint(_DRAW, ()))
    words = np.random.SeedSequence((drawn, process)).generate_state(3, np.uint64)
    torch.manual_seed(int(words[0]) & (2**_TORCH_BITS - 1))
    before = np.random.get_state()
    np.random.seed(words[1:].view(np.uint32))
    try:
        yield
    finally:
        np.random.set_state(before)


def wait_for_loader_threads(patience: float = _PATIENCE) -> None:
    """Wait until every reading thread has ended, or waits before a full queue, for ``patience`` s at most.

    fairseq reads batches ahead in a daemon thread, and a process must not end while that thread frees its last tensors:
    freeing a tensor gives the interpreter's lock away, and a thread that wants it back while Python shuts down is
    unwound through C++, which aborts the process after the work is done (``terminate called without an active
    exception``).
    """
    deadline = time.monotonic() + patience
    for thread in threading.enumerate():
        if isinstance(thread, BackgroundConsumer):
            while thread.is_alive() and not thread._queue.full() and time.monotonic() < deadline:
                thread.join(0.01)


def finish_loaders_at_exit() -> None:
    """Have the process wait for fairseq's reading threads before it ends."""
    atexit.register(wait_for_loader_threads)
