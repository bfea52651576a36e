"""The sections of an official configuration that are not the model: task, criterion, optimiser, schedule, batches."""

import re
from collections.abc import Iterable

from fairseq.criterions.wav2vec_criterion import Wav2VecCriterionConfig
from fairseq.dataclass.configs import FairseqConfig
from fairseq.optim.adam import FairseqAdamConfig
from fairseq.optim.lr_scheduler import LR_SCHEDULER_DATACLASS_REGISTRY
from omegaconf import DictConfig, OmegaConf, open_dict

from fairseq_neupronet.checkpoints.plain import printable
from fairseq_neupronet.checkpoints.texts import read_betas
from fairseq_neupronet.conversion.model_config import WHOLE_SPLIT
from fairseq_neupronet.conversion.official import CLASSIFIER, OfficialCheckpoint
from fairseq_neupronet.conversion.report import OptionSetter, Report
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.metrics import ICBHI_METRICS, METRICS
from fairseq_neupronet.models.fairseq_configs import (
    NeuProNetCriterionConfig,
    SpectrogramFinetuningConfig,
    SpectrogramTaskConfig,
)

_KEPT = {
    "common": (
        "seed log_format log_interval fp16 bf16 amp memory_efficient_fp16 memory_efficient_bf16 fp16_no_flatten_grads "
        "fp16_init_scale fp16_scale_window fp16_scale_tolerance min_loss_scale threshold_loss_scale amp_batch_retries "
        "amp_init_scale amp_scale_window empty_cache_freq"
    ),
    "dataset": (
        "num_workers skip_invalid_size_inputs_valid_test max_tokens batch_size required_batch_size_multiple "
        "data_buffer_size train_subset valid_subset validate_interval validate_interval_updates validate_after_updates "
        "fixed_validation_seed disable_validation max_tokens_valid batch_size_valid max_valid_steps curriculum "
        "grouped_shuffling"
    ),
    "optimization": (
        "max_epoch max_update stop_time_hours clip_norm sentence_avg update_freq lr stop_min_lr skip_remainder_batch"
    ),
    "checkpoint": (
        "save_interval save_interval_updates keep_interval_updates keep_last_epochs keep_best_checkpoints "
        "no_epoch_checkpoints no_last_checkpoints no_save_optimizer_state maximize_best_checkpoint_metric patience"
    ),
    "distributed_training": "ddp_backend find_unused_parameters",
}
_SUBSETS = ("train_subset", "valid_subset")
# fairseq fills these in from other options.
_INTERPOLATED = ("lr", "max_update", "tpu", "maximize_best_checkpoint_metric")
_OUR_METRICS = ("loss", *METRICS, *ICBHI_METRICS)
_METRIC_NAMES = {"icbhi": "icbhi_score"}


def convert_training(official: OfficialCheckpoint, report: Report) -> DictConfig:
    """A whole fairseq configuration with what the official one says of training; its model section is still open.

    Raises:
        InputError: options of a wrong kind.
    """
    config = OmegaConf.structured(FairseqConfig())
    with open_dict(config):
        for name, options in _KEPT.items():
            section = official.section(name)
            for option in _SUBSETS:
                if name == "dataset" and not re.fullmatch(r"[\w,-]{1,200}", str(section.get(option, "train"))):
                    raise InputError(
                        f"{official.path}: configuration key dataset.{option} is "
                        f"{printable(repr(section[option]), 60)}, not names of splits"
                    )
            OptionSetter(official.path, config[name], name, report).copy(section, name, _same(options.split()))
        _set_metric(official, config, report)
        config.task = _task(official, report)
        config.criterion = _criterion(official, report)
        config.optimizer = _optimizer(official, report)
        config.lr_scheduler = _lr_scheduler(official, report)
    return config


def _same(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


def _named(config, name: str) -> DictConfig:
    structured = OmegaConf.structured(config)
    structured._name = name
    return structured


def _set_metric(official: OfficialCheckpoint, config: DictConfig, report: Report) -> None:
    told = official.section("checkpoint").get("best_checkpoint_metric")
    setter = OptionSetter(official.path, config.checkpoint, "checkpoint", report)
    ours = _METRIC_NAMES.get(str(told), told)
    if ours in _OUR_METRICS:
        setter.set("checkpoint.best_checkpoint_metric", "best_checkpoint_metric", ours)
    elif told is not None:
        report.drop("checkpoint.best_checkpoint_metric", told, "no metric of ours has that name")
        config.checkpoint.best_checkpoint_metric = "accuracy" if official.kind == CLASSIFIER else "loss"


def _task(official: OfficialCheckpoint, report: Report) -> DictConfig:
    classifier = official.kind == CLASSIFIER
    kind, name = (
        (SpectrogramFinetuningConfig, "spectrogram_finetuning")
        if classifier
        else (SpectrogramTaskConfig, "spectrogram_pretraining")
    )
    target = _named(kind(), name)
    setter = OptionSetter(official.path, target, "task", report)
    options = ("profiling", "max_sample_size", "specaug")
    setter.copy(official.section("task"), "task", _same(options))
    setter.set("the official collater", "padding", "batch")
    if classifier and official.section("model").get("npn_option") == WHOLE_SPLIT:
        setter.set("the official validation under model.npn_option=1", "protocol", "full")
    elif classifier:
        setter.set("the official validation", "protocol", "batch")
    return target


def _criterion(official: OfficialCheckpoint, report: Report) -> DictConfig:
    section = official.section("criterion")
    if official.kind != CLASSIFIER:
        target = _named(Wav2VecCriterionConfig(), "wav2vec")
        options = _same(("infonce", "loss_weights"))
        OptionSetter(official.path, target, "criterion", report).copy(section, "criterion", options)
        report.drop("criterion.log_keys", section.get("log_keys"), "what the log prints")
        return target
    target = _named(NeuProNetCriterionConfig(), "NeuProNet")
    setter = OptionSetter(official.path, target, "criterion", report)
    setter.copy(section, "criterion", _same(("class_weights", "gamma")))
    setter.copy(official.section("model"), "model", {"batch_mask": "batch_mask"})
    setter.copy(official.section("task"), "task", {"sup_contrast": "sup_contrast"})
    weights, profiling = section.get("loss_weights"), official.section("task").get("profiling")
    if isinstance(weights, list) and len(weights) == 2:
        setter.copy(section, "criterion", {"loss_weights": "loss_weights"})
    elif profiling and weights is not None:
        raise InputError(
            f"{official.path}: configuration key criterion.loss_weights is {printable(repr(weights), 60)}; with "
            "profiles two numbers are wanted"
        )
    elif weights is not None:
        report.drop("criterion.loss_weights", weights, "weighs nothing without profiles")
    return target


def check_class_weights(official: OfficialCheckpoint, config: DictConfig, report: Report) -> None:
    """Compare the number of class weights with the classes of the head; uniform ones are written out.

    Where the checkpoint has no class names, their number is what tells a folder of other classes.

    Raises:
        InputError: they differ.
    """
    weights = config.criterion.get("class_weights")
    if weights is None:
        setter = OptionSetter(official.path, config.criterion, "criterion", report)
        setter.set("no class weights", "class_weights", [1.0] * config.model.n_classes)
    elif len(weights) != config.model.n_classes:
        raise InputError(
            f"{official.path}: configuration and parameters disagree: criterion.class_weights has {len(weights)} "
            f"numbers, the head has {config.model.n_classes} classes"
        )


def name_normal_class(official: OfficialCheckpoint, config: DictConfig, classes: list[str] | None, report: Report):
    """Where the best checkpoint is chosen by a metric of the ICBHI challenge: the normal class is the first one there.

    Args:
        official: the checkpoint.
        config: ours, as :func:`convert_training` makes it.
        classes: class names in index order; None where no data tells them.
        report: gets a line for it.
    """
    if config.checkpoint.best_checkpoint_metric not in ICBHI_METRICS:
        return
    if classes is None:
        report.note(
            f"task.normal_class: believed to be {config.task.normal_class!r}; the official code takes the first class, "
            "which --data DIR names"
        )
        return
    OptionSetter(official.path, config.task, "task", report).set("the first class", "normal_class", classes[0])


def _optimizer(official: OfficialCheckpoint, report: Report) -> DictConfig | None:
    section = official.section("optimizer")
    if section.get("_name") != "adam":
        report.note("optimizer: not Adam, with which the official code trains; name one to go on training")
        return None
    target = _named(FairseqAdamConfig(), "adam")
    setter = OptionSetter(official.path, target, "optimizer", report)
    setter.copy(section, "optimizer", _same(("adam_eps", "weight_decay", "use_old_adam", "fp16_adam_stats")))
    if section.get("adam_betas") is not None:
        betas = read_betas(section["adam_betas"], f"{official.path}: configuration key optimizer.adam_betas")
        setter.set("optimizer.adam_betas", "adam_betas", repr(betas))
    return target


def _lr_scheduler(official: OfficialCheckpoint, report: Report) -> DictConfig | None:
    section = official.section("lr_scheduler")
    name = section.get("_name")
    kind = LR_SCHEDULER_DATACLASS_REGISTRY.get(name) if isinstance(name, str) else None
    if kind is None:
        report.note("lr_scheduler: none that fairseq knows; name one to go on training")
        return None
    target = _named(kind(), name)
    report.map("lr_scheduler._name", "lr_scheduler._name", name)
    options = [option for option in kind.__dataclass_fields__ if option not in (*_INTERPOLATED, "_name")]
    OptionSetter(official.path, target, "lr_scheduler", report).copy(section, "lr_scheduler", _same(options))
    return target
