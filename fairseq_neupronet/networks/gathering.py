"""Profile embeddings from beyond the batch: of all worker processes, with gradients, and of the whole training split.

Letters: B clips of the batch (of this worker), B' clips that may be pooled, N clips of all workers or of the split, D
embedding width.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
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


class ProfileBank(nn.Module):
    """The profile embedding of every training clip, as the extractor made it when the epoch began.

    A memory bank (Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", CVPR 2018)
    saves a pass over the split for every batch. Its entries lag behind the extractor, by an epoch at most. Where they
    are refreshed one by one they also come from many states of it, which costs accuracy (He et al., "Momentum
    contrast", CVPR 2020, §3.2); here all of them come from one.

    Embeddings and epoch are part of the state dict, 4 · N · D bytes, so that a training resumed amid an epoch pools
    over the same entries. The codes are the data's.

    Args:
        embedding_width: D.
    """

    def __init__(self, embedding_width: int):
        super().__init__()
        self.register_buffer("embedding", torch.zeros(0, embedding_width))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))
        self.register_buffer("codes", torch.zeros(0, dtype=torch.long), persistent=False)

    def holds(self, epoch: int, n_clips: int) -> bool:
        """Whether the entries are those of this epoch."""
        return self.epoch == epoch and len(self.embedding) == n_clips

    def fill(self, epoch: int, embedding: Tensor) -> None:
        """Replace all entries by ``embedding`` (N, D)."""
        self.embedding = embedding.to(self.embedding)
        self.epoch.fill_(epoch)

    def group(self, index: Tensor, embedding: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """What the clips of a batch are pooled with: themselves, and the entries of all other clips of their profiles.

        Args:
            index: (B,) positions of the batch's clips in the split.
            embedding: (B, D) their embeddings; their entries in the bank are not used.
            codes: (B,) their profile codes.

        Returns:
            Embeddings (B', D), of which the first B have a gradient, and their codes (B',).

        Raises:
            RuntimeError: nobody has filled the bank.
        """
        if not len(self.codes):
            raise RuntimeError("the profile bank is empty; the task's begin_epoch fills it")
        member = torch.isin(self.codes, codes)
        member[index] = False
        stored = self.embedding[member].to(embedding.dtype)
        return torch.cat([embedding, stored]), torch.cat([codes, self.codes[member]])

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *arguments) -> None:
        # Of any number of clips; a converted official checkpoint has no bank.
        if f"{prefix}embedding" in state_dict:
            self.embedding = self.embedding.new_empty(state_dict[f"{prefix}embedding"].shape)
            super()._load_from_state_dict(state_dict, prefix, *arguments)


def embed_split(network: nn.Module, batches: Iterable[dict], n_clips: int) -> Tensor:
    """Profile embeddings (N, D) of a split, as evaluation has them; worker processes share the work.

    Args:
        network: a :class:`~fairseq_neupronet.networks.neupronet.NeuProNet`.
        batches: of the dataset, this process's share of them.
        n_clips: N.
    """
    bank = network.bank.embedding
    embedding = bank.new_zeros(n_clips, bank.shape[1])
    for batch in batches:
        if batch:  # another process may have one more
            inputs = batch["net_input"]
            source, padding_mask = inputs["source"].to(bank), inputs["padding_mask"].to(bank.device)
            embedding[batch["id"].to(bank.device)] = network.embed_profiles(source, padding_mask).to(bank.dtype)
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(embedding)
    return embedding
