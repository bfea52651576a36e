"""What evaluation keeps of each clip until the epoch ends, and how a protocol turns it into figures.

Grouping reaches over batches (README, "What a figure means"), so clips are embedded batch by batch and pooled,
classified and scored once all are there. Letters: N clips, D embedding width, K classes.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fairseq_neupronet.data.clip_files import ClipNames
from fairseq_neupronet.evaluation.metrics import classification_metrics, confusion_matrix, undefined_reasons
from fairseq_neupronet.files import atomic_file
from fairseq_neupronet.networks.in_groups import classify_embedded
from fairseq_neupronet.profiles.groups import Grouping

_EMBEDDINGS = ("clip", "fused", "pooled", "profile")


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
    device = next(network.parameters()).device

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(batch, name).to(device) for batch in batches])[torch.from_numpy(order).to(device)]

    output = classify_embedded(network, joined("clip"), joined("profile") if network.profiling else None, grouping)
    own = grouping.own()
    target = torch.cat([batch.target.cpu() for batch in batches])[order][own]
    logits = output.logits.float()
    kept = {name: getattr(output, name) for name in _EMBEDDINGS} if embeddings else {}
    kept = {name: value for name, value in kept.items() if value is not None}
    metrics = classification_metrics(logits.softmax(dim=1).numpy(), target.numpy(), normal)
    return Evaluation(torch.from_numpy(item[own]), target, logits, metrics, normal, n_short, kept)


def _by_batch(batches: list[ClipOutputs], order: np.ndarray) -> Grouping:
    batch = np.repeat(np.arange(len(batches)), [len(batch.index) for batch in batches])
    profile = batch
    if batches[0].code is not None:
        _, profile = np.unique(torch.cat([each.code.cpu() for each in batches]).numpy(), return_inverse=True)
    return Grouping.partition((batch * (profile.max(initial=0) + 1) + profile)[order])


def write_results(
    folder: str | Path,
    evaluation: Evaluation,
    dataset,
    classes: list[str],
    protocol: str,
    made_by: Mapping,
    control: str | None = None,
) -> None:
    """Write both files, clips in manifest order; ``confusion`` has a row per target, a column per prediction.

    Args:
        folder: made if missing.
        evaluation: of every clip of the dataset.
        dataset: a :class:`~fairseq_neupronet.data.dataset.SpectrogramDataset`.
        classes: K names in index order.
        protocol: the protocol of the figures.
        made_by: what is to be said of the model, its ``checkpoint`` at least.
        control: what stands in for the model, see :mod:`~fairseq_neupronet.evaluation.controls`.

    Raises:
        InputError: the folder cannot be written.
    """
    order = evaluation.index.argsort()
    target = evaluation.target[order].tolist()
    probabilities = evaluation.probabilities[order]
    predicted = probabilities.argmax(dim=1).tolist()
    manifest, rows = dataset.manifest, dataset.rows[evaluation.index[order].numpy()]
    name_of = ClipNames(manifest.root)
    with atomic_file(Path(folder) / "predictions.tsv") as file:
        print("path", "profile", "target", "prediction", *classes, sep="\t", file=file)
        for number, (row, clip_probabilities) in enumerate(zip(rows, probabilities.tolist(), strict=True)):
            print(
                name_of(manifest.clips[row]),
                manifest.own_profile(row),
                classes[target[number]],
                classes[predicted[number]],
                *(f"{probability:.9g}" for probability in clip_probabilities),
                sep="\t",
                file=file,
            )
    defined = {name: None if math.isnan(value) else value for name, value in evaluation.metrics.items()}
    summary = {
        **made_by,
        "subset": dataset.subset,
        "protocol": protocol,
        **({} if control is None else {"control": control}),
        **({} if evaluation.n_short is None else {"short_of_enrolment": evaluation.n_short}),
        "clips": len(target),
        "metrics": defined,
        "undefined": undefined_reasons(probabilities.numpy(), evaluation.target[order].numpy(), evaluation.normal),
        "classes": classes,
        "confusion": confusion_matrix(predicted, target, len(classes)).tolist(),
    }
    with atomic_file(Path(folder) / "metrics.json") as file:
        json.dump(summary, file, indent=2)
        file.write("\n")
