"""What a checkpoint of ours holds, as one record from one reading of its file: all take their parts from it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from fairseq_neupronet.checkpoints.plain import read_plain_checkpoint
from fairseq_neupronet.checkpoints.texts import check_texts
from fairseq_neupronet.config.retired import check_retired
from fairseq_neupronet.config.stages import EXTRACTOR, STAGES, defaults
from fairseq_neupronet.errors import InputError

_STAGES = {sections["model"].name: stage for stage, sections in STAGES.items()}
_HASHED_AT_ONCE = 1 << 22  # bytes


@dataclass(frozen=True)
class Contents:
    """A checkpoint, as read.

    Attributes:
        path: the file.
        config: the configuration, section by section, of plain containers. In the sections task, model and criterion,
            options that are younger than the checkpoint have their defaults.
        data: what is known of the training data, see
            :func:`~fairseq_neupronet.data.manifest.describe_training_data`, and what the task remembers of it; empty
            where the checkpoint says nothing.
        weights: parameters and buffers by name.
        updates: how many were made; None where the checkpoint does not say.
        epoch: the epoch within which, or at whose end, it was saved; None where the checkpoint does not say.
        best: the best validation figure so far, of ``checkpoint.best_checkpoint_metric``; None without validation.
    """

    path: Path
    config: dict[str, dict]
    data: dict
    weights: dict[str, Tensor]
    updates: int | None
    epoch: int | None
    best: float | None

    @property
    def is_extractor(self) -> bool:
        """Whether it is a pretrained profile extractor, which knows no classes, rather than a classifier."""
        return self.config["model"]["_name"] == EXTRACTOR

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file in hexadecimal, computed when it is asked for first."""
        total = hashlib.sha256()
        with open(self.path, "rb") as file:
            while block := file.read(_HASHED_AT_ONCE):
                total.update(block)
        return total.hexdigest()


def read_contents(path: str | Path) -> Contents:
    """Read a checkpoint of ours; nothing in it is run.

    Args:
        path: ``checkpoint_best.pt`` of a training, or a converted official checkpoint.

    Raises:
        InputError: no such file, damaged, unsafe, or not a checkpoint of ours.
    """
    return contents_of(path, read_plain_checkpoint(path))


def contents_of(path: str | Path, state: dict) -> Contents:
    """The contents of a checkpoint that has been read safely.

    Raises:
        InputError: not a checkpoint of ours, trained with an option that this version no longer has, or a configuration
            that holds texts which a library would run.
    """
    path = Path(path)
    config, weights = state.get("cfg"), state.get("model")
    if not isinstance(config, dict) or not isinstance(weights, dict):
        raise InputError(
            f"{path}: not a checkpoint of fairseq, it has no configuration; give the checkpoint_best.pt of a training"
        )
    check_texts(config, path)
    name = model_name(state)
    if name not in _STAGES:
        raise InputError(
            f"{path}: a checkpoint of {name or 'an unknown model'}, not of this plugin; an official one becomes ours "
            "by neupronet convert"
        )
    check_retired(config, path)
    history, extra = state.get("optimizer_history"), state.get("extra_state") or {}
    iterator, best = extra.get("train_iterator"), extra.get("best")
    return Contents(
        path,
        _merged(defaults(_STAGES[name]), {section: values or {} for section, values in config.items()}, path),
        state.get("task_state") or {},
        weights,
        history[-1].get("num_updates") if history else None,
        # The iterator of a finished epoch stands at the beginning of the next one.
        iterator["epoch"] - (iterator["iterations_in_epoch"] == 0) if iterator else None,
        best if isinstance(best, float) else None,
    )


def model_name(state: dict) -> str | None:
    """By what name fairseq knows the model of a checkpoint; None where it does not say, as a library's weights."""
    config = state.get("cfg")
    section = config.get("model") if isinstance(config, dict) else None
    name = section.get("_name") if isinstance(section, dict) else None
    return name if isinstance(name, str) else None


def _merged(defaults: dict, values: dict, path: Path) -> dict:
    """Values over defaults, section within section."""
    if not isinstance(values, dict):
        raise InputError(f"{path}: a section of its configuration is {values!r}; the file is damaged, use another one")
    nested = {
        name: _merged(value, values.get(name) or {}, path)
        for name, value in defaults.items()
        if isinstance(value, dict)
    }
    return defaults | values | nested
