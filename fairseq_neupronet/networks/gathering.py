"""Profile embeddings of all worker processes, with gradients.

Letters: B clips of this worker, N clips of all workers, D embedding width.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def gather_profiles(profile: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Gather what clips may be pooled with from all workers, in the order of the workers.

    Every worker has to call it, and to run backward through it where the embeddings need a gradient, whatever it
    holds. Batches may differ in size: they are padded for the transfer only. The sizes are read on the host, which on a
    GPU is one synchronisation.

    The gradient of a worker's embeddings is the sum over all workers of what their losses say of them. With losses that
    are sums over clips, the gradients of the parameters summed over workers are then those of one process that holds
    all batches. fairseq takes their mean over workers and multiplies it by workers / clips of all workers, so that
    nothing has to be scaled here.

    Args:
        profile: (B, D) profile embeddings.
        codes: (B,) profile codes that mean the same on every worker.

    Returns:
        (N, D) and (N,); the arguments themselves where there is one process.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return profile, codes
    sizes = _gather(codes.new_tensor([len(codes)]), [1] * dist.get_world_size()).tolist()
    return _GatherRows.apply(profile, sizes), _gather(codes, sizes)


def _gather(rows: Tensor, sizes: list[int]) -> Tensor:
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(gathered, padded)
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        return _gather(rows, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed.split(ctx.sizes)[dist.get_rank()], None
