"""Fusion of a clip's embedding e with its pooled profile embedding q, and the classifier heads that follow.

Tensor letters: B clips, D embedding width, R rank, K classes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_neupronet.config.model import HEADS, NeuProNetOptions
from fairseq_neupronet.errors import InputError

_MOST_TENSOR_WEIGHTS = 100_000_000  # 1.6 GB in training: weight, gradient and Adam's two moments


class Fusion(nn.Module):
    """A way to join two (B, D) embeddings into one.

    Args:
        embedding_width: D.
        rank: R of fusions with a low-rank form; 0 for the full one. Fusions without weights have no use for it.

    Attributes:
        branches: how many embeddings wide the result is.
        width: width of the result, ``branches`` · D.
    """

    branches = 1

    def __init__(self, embedding_width: int, rank: int = 0):
        super().__init__()
        self.width = self.branches * embedding_width

    def forward(self, clip: Tensor, pooled: Tensor) -> Tensor:
        """Join clip (B, D) and pooled (B, D) into (B, width)."""
        raise NotImplementedError


FUSIONS: dict[str, type[Fusion]] = {}


def register_fusion(name: str) -> Callable[[type[Fusion]], type[Fusion]]:
    """Make a :class:`Fusion` known by a name."""

    def register(fusion: type[Fusion]) -> type[Fusion]:
        FUSIONS[name] = fusion
        return fusion

    return register


@register_fusion("concat")
class Concat(Fusion):
    """[e ; q], the fusion of the paper."""

    branches = 2

    def forward(self, clip: Tensor, pooled: Tensor) -> Tensor:
        return torch.cat([clip, pooled], dim=-1)


@register_fusion("profile")
class ProfileOnly(Fusion):
    """q alone: the authors' ablation ``npn_only``."""

    def forward(self, clip: Tensor, pooled: Tensor) -> Tensor:
        return pooled


@register_fusion("gate")
class Gate(Fusion):
    """ê + ê · softmax over D of q, ê L2-normalised: the official ``use_attention``, which crashes as written there."""

    def forward(self, clip: Tensor, pooled: Tensor) -> Tensor:
        clip = F.normalize(clip.float(), dim=-1).to(clip.dtype)  # its least norm is 0 in float16
        return clip + clip * torch.softmax(pooled, dim=-1)


@register_fusion("tensor")
class TensorFusion(Fusion):
    """W · ([e ; 1] ⊗ [q ; 1]) + b, (B, D): the official ``tensor_fusion``, which crashes as written there.

    The outer product holds each embedding by itself and every product of their components (Zadeh et al., "Tensor
    Fusion Network", EMNLP 2017, §4.2). With a rank, W is a sum of R outer products of factors, and the product is never
    formed: Σ_r (U_r [e ; 1]) ∘ (V_r [q ; 1]) + b (Liu et al., "Efficient Low-rank Multimodal Fusion", ACL 2018, §3.2).

    Raises:
        InputError: a negative rank; a full form whose weights fit no usual memory.
    """

    def __init__(self, embedding_width: int, rank: int = 0):
        super().__init__(embedding_width, rank)
        side = embedding_width + 1
        if rank < 0:
            raise InputError(
                f"model.fusion_rank={rank}: give a whole number above 0, or leave it unset for the full outer product"
            )
        if rank == 0 and side**2 * self.width > _MOST_TENSOR_WEIGHTS:
            raise InputError(
                f"model.fusion=tensor: the full outer product of embeddings of width {embedding_width} "
                f"takes {side**2 * self.width:,} weights; set model.fusion_rank (8, say), or a smaller "
                "model.decoder_embed_dim"
            )
        self.rank = rank
        if rank == 0:
            self.linear = nn.Linear(side**2, self.width)
            return
        # Products of R pairs of factors get the variance of nn.Linear's initial weights, 1 / (3 side²).
        deviation = (3 * rank) ** -0.25 * side**-0.5
        self.clip_factors = nn.Parameter(torch.randn(rank, side, self.width) * deviation)
        self.pooled_factors = nn.Parameter(torch.randn(rank, side, self.width) * deviation)
        self.bias = nn.Parameter(torch.zeros(self.width))

    def forward(self, clip: Tensor, pooled: Tensor) -> Tensor:
        clip, pooled = (F.pad(embedding, (0, 1), value=1.0) for embedding in (clip, pooled))
        if self.rank == 0:
            return self.linear((clip.unsqueeze(2) * pooled.unsqueeze(1)).flatten(1))
        return ((clip @ self.clip_factors) * (pooled @ self.pooled_factors)).sum(dim=0) + self.bias


def build_fusion(kind: str, embedding_width: int, rank: int | None = None) -> Fusion:
    """Build a fusion by name.

    Args:
        kind: one of :data:`FUSIONS`.
        embedding_width: D.
        rank: R of the low-rank form of ``tensor``; None or 0 for the full outer product.

    Raises:
        InputError: unknown kind, or a size that ``kind`` refuses.
    """
    if kind not in FUSIONS:
        raise InputError(f"Unknown fusion {kind!r}; known are {', '.join(FUSIONS)}.")
    return FUSIONS[kind](embedding_width, rank or 0)


def build_head(
    kind: str,
    in_width: int,
    n_classes: int,
    hidden: int = NeuProNetOptions.clf_hidden_dim,
    dropout: float = NeuProNetOptions.clf_dropout_rate,
    branches: int = 2,
) -> nn.Sequential:
    """Build the network from a fused embedding (B, in_width) to logits (B, K).

    Args:
        kind: ``linear``, the official transformer model's head, or ``mlp``, its CNN model's:
            linear → ReLU → dropout → linear.
        in_width: width of the fused embedding (:attr:`Fusion.width`), or D without profiles.
        n_classes: K.
        hidden: the official ``clf_hidden_dim``; the hidden layer of ``mlp`` has ``branches`` times as many units.
        dropout: dropout of ``mlp``.
        branches: :attr:`Fusion.branches`: 2 gives 2D → 128 → K for ``concat``, 1 gives D → 64 → K for ``gate``.

    Raises:
        InputError: unknown kind.
    """
    if kind == "linear":
        return nn.Sequential(nn.Linear(in_width, n_classes))
    if kind == "mlp":
        units = branches * hidden
        return nn.Sequential(nn.Linear(in_width, units), nn.ReLU(), nn.Dropout(dropout), nn.Linear(units, n_classes))
    raise InputError(f"Unknown head {kind!r}; known are {', '.join(HEADS)}.")
