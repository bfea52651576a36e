"""From the logging outputs of a subset's batches to its figures, as fairseq asks for them."""

import logging
import math
from pathlib import Path

import torch
from fairseq.logging import metrics

from fairseq_neupronet.evaluation.metrics import metric_names
from fairseq_neupronet.evaluation.outputs import ClipOutputs, Evaluation, evaluate, write_results
from fairseq_neupronet.trainer.processes import is_master

logger = logging.getLogger(__name__)


class SubsetEvaluation:
    """The clips of a subset's batches, kept until all of them are there.

    Args:
        task: the :class:`~fairseq_neupronet.tasks.spectrogram_finetuning.SpectrogramFinetuningTask`.

    Attributes:
        network, criterion: those that the batches went through.
        latest: the last evaluation made, and of which batches.
    """

    def __init__(self, task):
        self._task = task
        self.network = self.criterion = None
        self.latest: tuple[tuple[int, ...], Evaluation] | None = None
        self._subset = ""
        self._batches: list[ClipOutputs] = []
        self._written: set[str] = set()

    def begin(self) -> None:
        """Forget the batches."""
        self._batches.clear()
        self.latest = None
        # fairseq never resets this aggregator, and evaluation's figures are over all clips that it holds.
        valid = metrics.get_meters("valid")
        if valid is not None:
            valid.load_state_dict([])

    def add(self, logging_outputs: list[dict]) -> None:
        """Take in some batches, or all; metrics are derived from all that an aggregator has seen, when it is asked."""
        # Workers take turns at the batches and each sends its own: back into the order of one process.
        logging_outputs = sorted((log for log in logging_outputs if log), key=lambda log: log["_step"])
        if logging_outputs[0]["_subset"] != self._subset:
            self._subset = logging_outputs[0]["_subset"]
            self._batches.clear()
            self.latest = None
        numbers = range(len(self._batches), len(self._batches) + len(logging_outputs))
        self._batches.extend(log["_clips"] for log in logging_outputs)
        self._log(torch.tensor(list(numbers)), logging_outputs)
        self._write_when_complete(tuple(numbers))

    def _log(self, numbers: torch.Tensor, logging_outputs: list[dict]) -> None:
        task, criterion = self._task, self.criterion
        metrics.log_concat_tensor("_batches", numbers)
        n_clips = sum(log["sample_size"] for log in logging_outputs)
        for name in ("contrastive", "extra"):
            total = float(sum(log[name] for log in logging_outputs))
            metrics.log_scalar(f"_{name}", total / n_clips, n_clips)

        def evaluated(meters) -> Evaluation:
            return self._evaluate(tuple(meters["_batches"].tensor.tolist()))

        def classification(meters) -> float:
            evaluation = evaluated(meters)
            total = criterion.loss.classification(evaluation.logits, evaluation.target)
            return float(total) / len(evaluation.target) if len(evaluation.target) else math.nan

        metrics.log_derived(
            "loss",
            lambda meters: criterion.loss.combine(
                classification(meters), meters["_contrastive"].avg, meters["_extra"].avg
            ),
        )
        metrics.log_derived("loss_classification", classification)
        if task.cfg.profiling:
            metrics.log_derived("loss_contrastive", lambda meters: float(meters["_contrastive"].avg))
        for name in metric_names(len(task.classes), task.prepared.normal):
            metrics.log_derived(name, lambda meters, name=name: evaluated(meters).metrics[name])
        metrics.log_derived("protocol", lambda meters: task.cfg.protocol)

    def _evaluate(self, numbers: tuple[int, ...]) -> Evaluation:
        if self.latest is None or self.latest[0] != numbers:
            batches = [self._batches[number] for number in numbers]
            grouping = self._task.datasets[self._subset].grouping
            evaluation = evaluate(batches, self.network, grouping, self._task.prepared.normal)
            self.latest = numbers, evaluation
        return self.latest[1]

    def _write_when_complete(self, numbers: tuple[int, ...]) -> None:
        """Under fairseq-validate, which names the checkpoint and reduces a subset's batches at once."""
        task, subset = self._task, self._subset
        dataset = task.datasets.get(subset)
        n_clips = sum(len(self._batches[number].index) for number in numbers)
        wanted = task.cfg.results_path and task.cfg.path and subset not in self._written
        if not wanted or not is_master() or dataset is None or n_clips != len(dataset):
            return
        # A second subset of the same command must not overwrite the first.
        folder = Path(task.cfg.results_path) / (subset if self._written else "")
        self._written.add(subset)
        made_by = {"checkpoint": task.cfg.path}
        write_results(folder, self._evaluate(numbers), dataset, task.classes, task.cfg.protocol, made_by)
        logger.info(f"{subset}: predictions.tsv and metrics.json of protocol {task.cfg.protocol} are in {folder}")
