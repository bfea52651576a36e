"""What an official checkpoint says of its training: every section but the model's, and how far training had come."""

import re

from fairseq.criterions.wav2vec_criterion import Wav2VecCriterionConfig
from fairseq.dataclass.configs import FairseqConfig
from fairseq.optim.adam import FairseqAdamConfig
from fairseq.optim.lr_scheduler import LR_SCHEDULER_DATACLASS_REGISTRY
from omegaconf import DictConfig, OmegaConf, open_dict

from fairseq_neupronet.checkpoints.plain import printable
from fairseq_neupronet.checkpoints.texts import read_betas
from fairseq_neupronet.conversion.official import CLASSIFIER, EXTRACTOR, OfficialCheckpoint, is_number
from fairseq_neupronet.conversion.option_rows import Row
from fairseq_neupronet.conversion.option_table import OPTIONS
from fairseq_neupronet.conversion.report import Report, TableRun
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.metrics import ICBHI_METRICS, METRICS
from fairseq_neupronet.models.fairseq_configs import (
    NeuProNetCriterionConfig,
    SpectrogramFinetuningConfig,
    SpectrogramTaskConfig,
)

_OUR_METRICS = ("loss", *METRICS, *ICBHI_METRICS)
# What the optimiser's class may be called in a checkpoint that Adam trained.
ADAM = ("FairseqAdam", "FP16Optimizer", "MemoryEfficientFP16Optimizer", "AMPOptimizer")


class TrainingOptions(TableRun):
    """Converts every section but the model's.

    Args:
        official: the checkpoint.
        report: gets a line for each option.

    Attributes:
        target: a whole fairseq configuration; its model section is open until :meth:`set_model`.

    Raises:
        InputError: options of a wrong kind.
    """

    def __init__(self, official: OfficialCheckpoint, report: Report):
        super().__init__(official.path, official.kind, official.config, OmegaConf.structured(FairseqConfig()), report)
        self.run("training")
        with open_dict(self.target):
            if self.kind == CLASSIFIER:
                self.target.task = _named(SpectrogramFinetuningConfig(), "spectrogram_finetuning")
                self.target.criterion = _named(NeuProNetCriterionConfig(), "NeuProNet")
            else:
                self.target.task = _named(SpectrogramTaskConfig(), "spectrogram_pretraining")
                self.target.criterion = _named(Wav2VecCriterionConfig(), "wav2vec")
            self.target.optimizer = self.target.lr_scheduler = None
        self.run("task")
        self.set("the official collater", "task.padding", "batch")
        if self.kind == CLASSIFIER:
            whole_split = self.value("model.npn_option") == 1
            under = " under model.npn_option=1" if whole_split else ""
            self.set(f"the official validation{under}", "task.protocol", "full" if whole_split else "batch")
        self.run("criterion")
        self._set_optimizer()
        self._set_schedule()

    def _set_optimizer(self) -> None:
        if self.value("optimizer._name") != "adam":
            self.report.note("optimizer: not Adam, with which the official code trains; name one to go on training")
            return
        self.target.optimizer = _named(FairseqAdamConfig(), "adam")
        self.run("optimizer")

    def _set_schedule(self) -> None:
        name = self.value("lr_scheduler._name")
        kind = LR_SCHEDULER_DATACLASS_REGISTRY.get(name) if isinstance(name, str) else None
        if kind is None:
            self.report.note("lr_scheduler: none that fairseq knows; name one to go on training")
            return
        self.target.lr_scheduler = _named(kind(), name)
        self.set("lr_scheduler._name", "lr_scheduler._name", name)
        self.run("lr_scheduler")

    def set_model(self, model: DictConfig, classes: list[str] | None) -> None:
        """Take the model's section in, and set what follows from its classes.

        The number of class weights is compared with the classes of the head, and uniform ones are written out: where a
        checkpoint has no class names, their number is what tells a folder of other classes. Where the best checkpoint
        is chosen by a metric of the ICBHI challenge, the normal class is the first one, as in the official code.

        Args:
            model: our model section.
            classes: class names in index order; None where no data tells them.

        Raises:
            InputError: as many class weights as the head has no classes.
        """
        with open_dict(self.target):
            self.target.model = model
        if self.kind != CLASSIFIER:
            return
        weights = self.target.criterion.class_weights
        if weights is None:
            self.set("no class weights", "criterion.class_weights", [1.0] * model.n_classes)
        elif len(weights) != model.n_classes:
            raise InputError(
                f"{self.file}: configuration and parameters disagree: criterion.class_weights has {len(weights)} "
                f"numbers, the head has {model.n_classes} classes"
            )
        if self.target.checkpoint.best_checkpoint_metric not in ICBHI_METRICS:
            return
        if classes is None:
            self.report.note(
                f"task.normal_class: believed to be {self.target.task.normal_class!r}; the official code takes the "
                "first class, which --data DIR names"
            )
        else:
            self.set("the first class", "task.normal_class", classes[0])

    # ---- what a row does -------------------------------------------------------------------------------------

    def splits(self, row: Row) -> None:
        """Names of splits, which become names of files.

        Raises:
            InputError: anything that could be another path.
        """
        for key in filter(self.has, row.keys):
            if not re.fullmatch(r"[\w,-]{1,200}", str(self.value(key))):
                raise InputError(
                    f"{self.file}: configuration key {key} is {printable(repr(self.value(key)), 60)}, not names of "
                    "splits"
                )
        self.kept(row)

    def metric(self, row: Row) -> None:
        """The metric that chooses the best checkpoint, where it is one of ours."""
        (key,) = row.keys
        told = self.value(key)
        ours = row.values.get(str(told), told)
        if ours in _OUR_METRICS:
            self.set(key, key, ours)
        elif told is not None:
            self.report.drop(key, told, "no metric of ours has that name")
            self.target.checkpoint.best_checkpoint_metric = "accuracy" if self.kind == CLASSIFIER else "loss"

    def loss_weights(self, row: Row) -> None:
        """Weights of classification and contrast.

        Raises:
            InputError: with profiles, anything but two of them.
        """
        (key,) = row.keys
        weights = self.value(key)
        if isinstance(weights, list) and len(weights) == 2:
            self.kept(row)
        elif self.value("task.profiling") and weights is not None:
            raise InputError(
                f"{self.file}: configuration key {key} is {printable(repr(weights), 60)}; with profiles two numbers "
                "are wanted"
            )

    def betas(self, row: Row) -> None:
        """Adam's betas, which are a text there; see :func:`read_betas`."""
        (key,) = row.keys
        if self.value(key) is not None:
            self.set(key, key, repr(read_betas(self.value(key), f"{self.file}: configuration key {key}")))

    def schedule(self, row: Row) -> None:
        """The options that fairseq's schedule of this name has, but for those with a row of their own."""
        for key in (f"lr_scheduler.{option}" for option in list(self.target.lr_scheduler.keys())):
            if OPTIONS.find(key, self.kind) is row and self.has(key):
                self.set(key, key, self.value(key))


def _named(config, name: str) -> DictConfig:
    structured = OmegaConf.structured(config)
    structured._name = name
    return structured


def convert_history(official: OfficialCheckpoint, report: Report) -> list[dict]:
    """fairseq's record of the training, with one entry: how many updates there were, and of what kind.

    Raises:
        InputError: an optimiser's state without such a record, or one that does not count updates.
    """
    history = official.state.get("optimizer_history")
    if not history and official.state.get("last_optimizer_state") is None:
        report.note("optimizer_history: not in the checkpoint; training from it begins at update 0")
        history = [{"num_updates": 0}]
    last = history[-1] if isinstance(history, list) and history else None
    updates = last.get("num_updates") if isinstance(last, dict) else None
    if type(updates) is not int or updates < 0:
        raise InputError(f"{official.path}: does not say how many updates it was trained for (optimizer_history)")
    schedule = last.get("lr_scheduler_state")
    best, unit = schedule.get("best") if isinstance(schedule, dict) else None, _metric_unit(official)
    optimizer = last.get("optimizer_name")
    report.map("optimizer_history num_updates", "optimizer_history num_updates", updates)
    criterion = "NeuProNetCriterion" if official.kind == CLASSIFIER else "Wav2vecCriterion"
    return [
        {
            "criterion_name": criterion,
            "optimizer_name": optimizer if optimizer in ADAM else ADAM[0],
            "lr_scheduler_state": {"best": best / unit if is_number(best) and unit else None},
            "num_updates": updates,
        }
    ]


def convert_extra_state(official: OfficialCheckpoint, report: Report) -> dict:
    """Where training goes on: the epoch that was under way begins anew, since ours draws other batches."""
    extra = official.state.get("extra_state")
    extra = extra if isinstance(extra, dict) else {}
    iterator = extra.get("train_iterator")
    epoch = iterator.get("epoch", 1) if isinstance(iterator, dict) else 1
    epoch = epoch if type(epoch) is int and epoch > 0 else 1
    converted = {"train_iterator": {"version": 2, "epoch": epoch, "iterations_in_epoch": 0, "shuffle": True}}
    report.map("extra_state train_iterator", "extra_state train_iterator epoch", epoch, "which begins anew")
    seconds, best = extra.get("previous_training_time"), extra.get("best")
    if is_number(seconds):
        converted["previous_training_time"] = seconds
    unit = _metric_unit(official)
    if is_number(best) and unit:
        converted["best"] = converted["val_loss"] = best / unit
        report.map("extra_state best", "extra_state best", converted["best"])
    elif best is not None:
        report.note("extra_state best: its unit is not known; the first validation sets a new one")
    report.note("extra_state metrics: the log's running averages, of official names and units")
    known = {"train_iterator", "previous_training_time", "best", "val_loss", "metrics"}
    for key in [key for key in extra if key not in known]:
        report.note(f"extra_state {printable(str(key))}: not used by ours")
    return converted


def _metric_unit(official: OfficialCheckpoint) -> int | None:
    """What divides the official best figure: accuracy is in per cent there, InfoNCE the same; None: unknown."""
    metric = official.section("checkpoint").get("best_checkpoint_metric")
    return {(CLASSIFIER, "accuracy"): 100, (EXTRACTOR, "loss"): 1}.get((official.kind, str(metric)))
