"""What evaluation keeps of each clip until the epoch ends, and how a protocol turns it into figures.

Grouping reaches over batches (README, "What a figure means"), so clips are embedded batch by batch and pooled,
classified and scored once all are there. Letters: N clips, D embedding width, K classes.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fairseq_neupronet.evaluation.metrics import classification_metrics
from fairseq_neupronet.profiles.groups import Grouping

_ROWS_PER_CHUNK = 1024


@dataclass
class ClipOutputs:
    """One batch's share, on the device that made it: fetching it would make the device wait at every batch.

    Attributes:
        index: (N,) positions in the dataset.
        target: (N,) class indices.
        clip: (N, D) clip embeddings.
        profile: (N, D) profile embeddings; None without profiling.
        code: (N,) profile codes; None where the manifest has none.
    """

    index: Tensor
    target: Tensor
    clip: Tensor
    profile: Tensor | None
    code: Tensor | None

    @classmethod
    def of_batch(cls, sample: dict, output) -> "ClipOutputs":
        """Of a data set's batch and what the network says of it, a :class:`~fairseq_neupronet.networks.neupronet.
        Classified`."""
        kept = sample["id"], sample["target"], output.clip, output.profile, sample["net_input"].get("profile")
        return cls(*(None if value is None else value.detach() for value in kept))

    def __getstate__(self) -> dict:
        """Other processes get it on the CPU; they have devices of their own."""
        return {name: None if value is None else value.cpu() for name, value in vars(self).items()}

    def __str__(self) -> str:
        """Short: fairseq prints logging outputs on its progress bar."""
        return f"{len(self.index)} clips"


@dataclass
class Evaluation:
    """The figures of one subset under one protocol, clips in the order of the data set.

    Attributes:
        index: (N,) items of the dataset, one a clip.
        target: (N,) class indices.
        logits: (N, K).
        metrics: name → fraction; NaN where undefined.
        normal: index of the normal class; None where there is none.
        n_short: how many clips have fewer others than ``enrol-n`` asks for; None under other protocols.
        embeddings: name → (N, width): ``clip`` and ``fused``, with profiles ``profile`` and ``pooled`` too; empty
            unless asked for.
    """

    index: Tensor
    target: Tensor
    logits: Tensor
    metrics: dict[str, float]
    normal: int | None = None
    n_short: int | None = None
    embeddings: dict[str, Tensor] = field(default_factory=dict)

    @property
    def probabilities(self) -> Tensor:
        """(N, K)."""
        return self.logits.softmax(dim=1)


@torch.no_grad()
def evaluate(
    batches: list[ClipOutputs],
    network,
    grouping: Grouping | None,
    normal: int | None = None,
    embeddings: bool = False,
) -> Evaluation:
    """Pool, classify and score all clips of a subset, or those that are there.

    Args:
        batches: every batch's outputs.
        network: a :class:`~fairseq_neupronet.networks.neupronet.NeuProNet`.
        grouping: of the items of the whole subset; None: the clips of a profile in their batch.
        normal: index of the normal class; None where there is none.
        embeddings: keep what the head saw, and what that was made of.
    """
    item = torch.cat([batch.index.cpu() for batch in batches]).numpy()
    order = np.argsort(item, kind="stable")
    item, n_short = item[order], None
    if grouping is None:
        grouping = _by_batch(batches, order)
    else:
        n_short = None if grouping.enrolment is None else grouping.n_short
        if len(item) < grouping.n_items:
            grouping = grouping.among(item)
    if network.grouping == "none":
        grouping = grouping.alone()
    outputs = _classify(batches, network, grouping, order)
    own = grouping.own()
    target = torch.cat([batch.target.cpu() for batch in batches])[order][own]
    logits = outputs.pop("logits").float()
    metrics = classification_metrics(logits.softmax(dim=1).numpy(), target.numpy(), normal)
    return Evaluation(
        torch.from_numpy(item[own]), target, logits, metrics, normal, n_short, outputs if embeddings else {}
    )


def _by_batch(batches: list[ClipOutputs], order: np.ndarray) -> Grouping:
    batch = np.repeat(np.arange(len(batches)), [len(batch.index) for batch in batches])
    profile = batch
    if batches[0].code is not None:
        _, profile = np.unique(torch.cat([each.code.cpu() for each in batches]).numpy(), return_inverse=True)
    return Grouping.partition((batch * (profile.max(initial=0) + 1) + profile)[order])


def _classify(batches: list[ClipOutputs], network, grouping: Grouping, order: np.ndarray) -> dict[str, Tensor]:
    """What the network says of every clip in its group, on the CPU; (N, …) each."""
    device = next(network.parameters()).device
    order = torch.from_numpy(order).to(device)
    clip = torch.cat([batch.clip.to(device) for batch in batches])[order]
    profile = None
    if network.profiling:
        profile = torch.cat([batch.profile.to(device) for batch in batches])[order]
    own = grouping.own()
    found: dict[str, list[Tensor]] = {}
    rows_of_chunks = []
    for rows, columns, mask in grouping.chunks() if network.profiling else _alone(len(own)):
        items = own[rows]
        pooled = None if profile is None else profile[columns]
        output = network.classify(clip[items], pooled, torch.from_numpy(mask).to(device))
        kept = {
            "logits": output.logits,
            "clip": clip[items],
            "fused": output.fused,
            "pooled": output.pooled,
            "profile": None if profile is None else profile[items],
        }
        for name, value in kept.items():
            if value is not None:
                found.setdefault(name, []).append(value.cpu())
        rows_of_chunks.append(rows)
    if not rows_of_chunks:  # some pairs of a batch, and none of them a clip in its own group
        alone = torch.ones(1, 1, dtype=torch.bool, device=device)
        return {"logits": network.classify(clip[:1], profile[:1], alone).logits[:0].cpu()}
    back = np.argsort(np.concatenate(rows_of_chunks))
    return {name: torch.cat(parts)[back] for name, parts in found.items()}


def _alone(n_clips: int):
    for start in range(0, n_clips, _ROWS_PER_CHUNK):
        rows = np.arange(start, min(start + _ROWS_PER_CHUNK, n_clips))
        yield rows, rows, np.zeros((len(rows), 0), bool)
