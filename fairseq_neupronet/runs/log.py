"""``training.csv`` beside the checkpoints: the figures of every validation, and of the training before it.

A row an epoch, and a row a validation within one: ``epoch``, ``updates``, ``train_…`` (means over the epoch so far) and
``<subset>_…`` for each validated subset. A resumed training goes on behind the update that it resumed from.
"""

import csv
import logging
import math
import os
from functools import partial
from numbers import Real
from pathlib import Path

from fairseq.logging import metrics

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.files import atomic_file
from fairseq_neupronet.runs import pictures as validation_pictures
from fairseq_neupronet.trainer.patches import follow_updates
from fairseq_neupronet.trainer.processes import is_master

logger = logging.getLogger(__name__)

LOG = "training.csv"
_PLACE = ("epoch", "updates")
_pictures = validation_pictures.PacedPictures()


def begin() -> None:
    """Follow the training of this process, be it the one that the command started or one that fairseq did."""
    # Once the package is imported, fairseq's own import of common.user_dir registers nothing.
    import fairseq_neupronet.tasks  # noqa: F401

    follow_updates(follow, finish)


def follow(config, trainer, task, epoch: int, end_of_epoch: bool) -> None:
    """Log an update: nothing, unless an epoch has ended or a subset was validated.

    Args:
        config, trainer: fairseq's.
        task: its validations are written; a task that is not of this package has none.
        epoch: from 1.
        end_of_epoch: whether it is the epoch's last.

    Raises:
        InputError: the log cannot be written.
    """
    if not hasattr(task, "validations"):
        return
    validations, task.validations = task.validations, {}
    if not is_master() or not (validations or end_of_epoch):
        return
    updates = trainer.get_num_updates()
    figures = {"train": metrics.get_smoothed_values("train")} if metrics.get_meters("train") is not None else {}
    figures |= {subset: stats for subset, (stats, _) in validations.items()}
    record(config.checkpoint.save_dir, epoch, updates, figures)
    if validations and config.common.tensorboard_logdir and validation_pictures.can_draw():
        evaluations = {subset: evaluation for subset, (_, evaluation) in validations.items()}
        _pictures.offer(partial(_draw, config.common.tensorboard_logdir, task, evaluations, updates))


def _draw(folder: str, task, evaluations: dict, updates: int) -> None:
    for subset, evaluation in evaluations.items():
        if evaluation is not None and len(evaluation.target):
            recipe = task.prepared.state["recipe"]
            validation_pictures.log_validation(
                folder,
                task.dataset(subset),
                evaluation,
                task.classes,
                updates,
                FeatureRecipe.from_dict(recipe) if recipe else None,
            )


def finish() -> None:
    """Draw the pictures of the last validation, if they were passed over."""
    _pictures.finish()


def record(folder: str | Path, epoch: int, updates: int, figures: dict[str, dict]) -> None:
    """Add what is known after an update; rows of later updates, and of the same, are of an earlier attempt.

    Args:
        folder: of the checkpoints.
        epoch: from 1.
        updates: made so far.
        figures: of ``train`` and of the validated subsets, each name → number; others than numbers and texts are
            left out.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(folder) / LOG
    row = {"epoch": str(epoch), "updates": str(updates)}
    for split, values in figures.items():
        written = {name: _text(value) for name, value in values.items() if name != "num_updates"}
        row |= {f"{split}_{name}": text for name, text in written.items() if text is not None}
    rows = [earlier for earlier in read(path) if int(earlier["updates"]) < updates] + [row]
    names = dict.fromkeys([*_PLACE, *(name for each in rows for name in each)])
    with atomic_file(path) as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read(path: str | Path) -> list[dict[str, str]]:
    """The rows of a log; none where there is no file. A damaged file is put aside, with a warning."""
    path = Path(path)
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        sound = all(None not in row and None not in row.values() and row["updates"].isdigit() for row in rows)
    except (ValueError, KeyError, csv.Error):
        sound = False
    if sound:
        return rows
    aside = f"{path}.damaged"
    os.replace(path, aside)
    logger.warning(f"{path}: is damaged and is put aside as {Path(aside).name}; a new one begins")
    return []


def _text(value) -> str | None:
    if isinstance(value, str):
        return value
    if getattr(value, "ndim", None) == 0:  # a tensor of one number
        value = value.item()
    if not isinstance(value, Real):
        return None
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else f"{value:.9g}"
