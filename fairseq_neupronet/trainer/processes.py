"""Training and evaluation in several processes, where fairseq's own way is for GPUs only."""

import os

import torch
import torch.distributed as dist

from fairseq_neupronet.errors import InputError

_LAUNCHERS = {"RANK", "SLURM_JOB_NODELIST"}  # variables of torchrun and Slurm


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
