"""A checkpoint in memory, evaluated on one subset after the other, without fairseq."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fairseq_neupronet.checkpoints.contents import Contents, read_contents
from fairseq_neupronet.data.dataset import SpectrogramDataset
from fairseq_neupronet.data.prepared import PreparedFolder, check_evaluation_options
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.metrics import figure_names
from fairseq_neupronet.evaluation.outputs import ClipOutputs, Evaluation, evaluate
from fairseq_neupronet.evaluation.plan import Plan
from fairseq_neupronet.inference.checkpoint import import_user_dir, namespace, trained_network
from fairseq_neupronet.networks.adaptive_batch_norm import adapted_to_batch, check_batch_norm
from fairseq_neupronet.networks.losses import NeuProNetLoss
from fairseq_neupronet.profiles.groups import Grouping
from fairseq_neupronet.profiles.protocols import AMONG, Protocol


class _Batch(NamedTuple):
    """What a batch gives: of each clip, and the sums of the losses that do not depend on the protocol."""

    clips: ClipOutputs
    contrastive: Tensor
    extra: Tensor


class Session:
    """Network, data and loss of a checkpoint; the figures are those of ``fairseq-validate``.

    Args:
        plan: what is asked for.
        contents: of the plan's checkpoint, where it has been read already.

    Attributes:
        prepared: the plan's data.
        options: the fields of :class:`~fairseq_neupronet.tasks.spectrogram_finetuning.SpectrogramFinetuningConfig`.

    Raises:
        InputError: another kind of checkpoint, data that does not fit it, or a device that is not there.
    """

    def __init__(self, plan: Plan, contents: Contents | None = None):
        if plan.user_dir is not None:
            import_user_dir(plan.user_dir)
        self._plan, self._device = plan, _device(plan.device)
        contents = contents or read_contents(plan.path)
        if contents.is_extractor:
            task = contents.config["task"].get("_name")
            raise InputError(f"--path {plan.path}: is a checkpoint of {task}; give one of fine-tuning")
        changed = {"protocol_seed": plan.seed, "adaptive_batch_norm": plan.adaptive_batch_norm}
        changed = {name: value for name, value in changed.items() if value is not None}
        self.options = namespace(contents.config["task"] | changed)
        check_evaluation_options(self.options)
        self.prepared = PreparedFolder(plan.data, self.options, labelled=True)
        if contents.data:
            self.prepared.restore(contents.data)
        self._network = self._load_network(contents)
        options, n_classes = namespace(contents.config["criterion"]), len(self.prepared.classes)
        self._loss = NeuProNetLoss(options, n_classes, self.options.profiling).eval()
        self._batches: dict[tuple, list[_Batch]] = {}

    def _load_network(self, contents: Contents):
        network = trained_network(contents.path, namespace(contents.config["model"]), contents.weights)
        name, adaptive = contents.config["model"]["backbone"], self.options.adaptive_batch_norm
        check_batch_norm(network.backbone, name, adaptive)
        network.bfloat16 = self.options.bfloat16
        network.bands_by_group, network.norms_by_group = self.options.profile_normalize, adaptive is not None
        if contents.updates is not None:
            network.set_num_updates(contents.updates)
        return network.eval().requires_grad_(False).to(self._device)

    @property
    def uses_profiles(self) -> bool:
        """Whether a clip's outputs depend on which clips share its profile."""
        return self._network.needs.any

    @property
    def _embeds_in_groups(self) -> bool:
        """Whether a clip's embedding is another in another group."""
        return self._network.needs.to_embed

    def begin(self, subset: str, shuffle: int | None = None, among: str = AMONG[0]) -> None:
        """Turn to a subset.

        Args:
            subset: its name.
            shuffle: a seed that permutes its profiles; None leaves them.
            among: ``task.shuffle_profiles_among``.
        """
        self._subset, self._shuffle = subset, None if shuffle is None else (shuffle, among)
        self._batches = {key: batches for key, batches in self._batches.items() if key[0] == subset}

    def evaluate(self, protocol: Protocol, embeddings: bool = False) -> tuple[Evaluation, dict[str, float]]:
        """The subset under a protocol: the evaluation, and every figure that ``fairseq-validate`` prints."""
        prepared = self.prepared
        self.dataset = prepared.dataset(self._subset, protocol, self._shuffle)
        batches = self._outputs(protocol)
        clips = [batch.clips for batch in batches]
        evaluation = evaluate(clips, self._network, self.dataset.grouping, prepared.normal, embeddings)
        figures = self._losses(batches, evaluation) | evaluation.metrics
        names = figure_names(self.options.profiling, len(prepared.classes), prepared.normal)
        return evaluation, {name: figures[name] for name in names}

    def clip_groups(self) -> Grouping:
        """The groups of the last protocol as groups of clips, where the model was given pairs of clip and group."""
        if self.dataset.pairs is None:
            return self.dataset.grouping
        return replace(self.dataset.grouping, enrolment=self.dataset.pairs, own_items=None)

    def _losses(self, batches: list[_Batch], evaluation: Evaluation) -> dict[str, float]:
        n_items = sum(len(batch.clips.index) for batch in batches)

        def mean(name: str) -> float:
            # As fairseq's meter does it, so that the last digit is the same too.
            return float(sum(getattr(batch, name) for batch in batches)) / n_items * n_items / n_items

        total = float(self._loss.classification(evaluation.logits, evaluation.target))
        classification, contrastive = total / len(evaluation.target), mean("contrastive")
        return {
            "loss": self._loss.combine(classification, contrastive, mean("extra")),
            "loss_classification": classification,
            "loss_contrastive": contrastive,
        }

    def _outputs(self, protocol: Protocol) -> list[_Batch]:
        """What all batches give; clips that are embedded alike under two protocols go through the model once."""
        key = self._subset, self.dataset.treatment.batch_clips
        if self._embeds_in_groups or (protocol.kind == "batch" and self._shuffle is not None):
            key += str(protocol), self._shuffle
        if key not in self._batches:
            self._batches[key] = list(self._run(self.dataset))
        return self._batches[key]

    @torch.no_grad()
    def _run(self, dataset: SpectrogramDataset) -> Iterator[_Batch]:
        dataset.prepare()
        loader = DataLoader(
            dataset,
            batch_sampler=dataset.batch_by_size(dataset.ordered_indices(), max_sentences=self._plan.batch_size),
            collate_fn=dataset.collater,
            num_workers=self._plan.workers,
            pin_memory=self._device.type == "cuda",
        )
        for batch in loader:
            batch = _on_device(batch, self._device)
            with adapted_to_batch(self._network.backbone, batch, self.options.adaptive_batch_norm):
                terms, output = self._loss(self._network, batch)
            yield _Batch(ClipOutputs.of_batch(batch, output), terms.contrastive, terms.extra)


def _on_device(value, device: torch.device):
    """A batch with its tensors on a device; frames, an array, stay on the host."""
    if isinstance(value, dict):
        return {name: _on_device(part, device) for name, part in value.items()}
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"--device {name}: torch cannot use it here ({str(error).splitlines()[0]}); give cpu, or leave it out"
        ) from None
    return device
