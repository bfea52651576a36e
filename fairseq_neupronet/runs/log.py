"""What the validations of a training leave: ``training.csv`` beside the checkpoints, and pictures of the last one.

``training.csv`` has a row an epoch, and a row a validation within one: ``epoch``, ``updates``, ``train_…`` (means over
the epoch so far) and ``<subset>_…`` for each validated subset. A resumed training goes on behind the update that it
resumed from. The pictures, in TensorBoard, are the confusion matrix, and the clips that the model classifies least
rightly; both are left out where tensorboard or matplotlib is missing (extra ``tensorboard`` of this package).

Letters: N clips, K classes, M mel bands, F frames.
"""

import csv
import importlib.util
import logging
import math
import os
from collections.abc import Callable
from functools import cache, partial
from numbers import Real
from pathlib import Path

import numpy as np
from fairseq.logging import metrics

from fairseq_neupronet.audio.features import band_centres
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.evaluation.metrics import confusion_matrix, draw_confusion
from fairseq_neupronet.evaluation.outputs import Evaluation
from fairseq_neupronet.files import atomic_file
from fairseq_neupronet.trainer.patches import follow_updates
from fairseq_neupronet.trainer.processes import is_master

logger = logging.getLogger(__name__)

LOG = "training.csv"
_PLACE = ("epoch", "updates")
_EXAMPLES = 8
_MOST_CLASSES = 60  # with more of them the numbers of a confusion matrix cannot be read
_TICKS = (100, 500, 1000, 2000, 4000, 8000, 16000)  # Hz
_last_validation: list[Callable[[], None]] = []


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
    can_draw = can_log() and importlib.util.find_spec("matplotlib") is not None
    if validations and config.common.tensorboard_logdir and can_draw:
        evaluations = {subset: evaluation for subset, (_, evaluation) in validations.items()}
        _last_validation[:] = [partial(_draw, config.common.tensorboard_logdir, task, evaluations, updates)]


def _draw(folder: str, task, evaluations: dict, updates: int) -> None:
    stored = task.prepared.state["recipe"]
    recipe = FeatureRecipe.from_dict(stored) if stored else None
    for subset, evaluation in evaluations.items():
        if evaluation is not None and len(evaluation.target):
            log_validation(folder, task.dataset(subset), evaluation, task.classes, updates, recipe)


def finish() -> None:
    """Draw the last validation; one of every validation would take longer than a small epoch."""
    while _last_validation:
        _last_validation.pop()()


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


# ---- pictures ------------------------------------------------------------------------------------------------------


def can_log() -> bool:
    """Whether TensorBoard is installed."""
    return importlib.util.find_spec("tensorboard") is not None


def log_validation(
    folder: str | Path, dataset, evaluation: Evaluation, classes: list[str], updates: int, recipe: FeatureRecipe | None
) -> None:
    """Add the pictures of one validation to TensorBoard. One that cannot be drawn is a warning, no failure.

    Args:
        folder: of TensorBoard's files; the subset has one of its own below, which is fairseq's as well.
        dataset: the subset's :class:`~fairseq_neupronet.data.dataset.SpectrogramDataset`.
        evaluation: of its clips.
        classes: K names.
        updates: made so far.
        recipe: of the features, for the axes; None where it is not known.
    """
    try:
        writer = _writer(Path(folder) / dataset.subset)
        target, probabilities = evaluation.target.numpy(), evaluation.probabilities.numpy()
        writer.add_figure("confusion", confusion_figure(probabilities.argmax(axis=1), target, classes), updates)
        chosen = least_right(probabilities, target)
        items = evaluation.index.numpy()[chosen]
        spectrograms = [dataset[item]["source"].numpy() for item in items.tolist()]
        titles = [_title(classes, target[clip], probabilities[clip]) for clip in chosen]
        writer.add_figure("least_right", examples_figure(spectrograms, titles, recipe), updates)
        writer.flush()
    except Exception as error:  # a picture is not worth a training
        logger.warning(f"{folder}: no pictures of this validation ({error})")


@cache
def _writer(folder: Path):
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


def least_right(probabilities: np.ndarray, target: np.ndarray, n_clips: int = _EXAMPLES) -> np.ndarray:
    """The clips whose own class gets the lowest probability, lowest first.

    Args:
        probabilities: (N, K).
        target: (N,) class indices.
        n_clips: how many at most.
    """
    return np.argsort(probabilities[np.arange(len(target)), target], kind="stable")[:n_clips]


def _title(classes: list[str], target: int, probabilities: np.ndarray) -> str:
    found = int(probabilities.argmax())
    return f"{classes[target]} ({probabilities[target]:.2f}),\ntaken for {classes[found]} ({probabilities[found]:.2f})"


def confusion_figure(predicted: np.ndarray, target: np.ndarray, classes: list[str]):
    """A matplotlib figure: rows are targets, shaded by the share of their clips, and columns predictions."""
    from matplotlib.figure import Figure

    side = min(12.0, 2.5 + 0.5 * len(classes))
    figure = Figure(figsize=(side, side), dpi=80, layout="constrained")
    counts = confusion_matrix(predicted, target, len(classes))
    draw_confusion(figure.add_subplot(), counts, classes if len(classes) <= _MOST_CLASSES else [])
    return figure


def examples_figure(spectrograms: list[np.ndarray], titles: list[str], recipe: FeatureRecipe | None):
    """A matplotlib figure of spectrograms (M, F), in seconds and hertz where the recipe is known."""
    from matplotlib.figure import Figure

    columns = min(4, len(spectrograms))
    rows = -(-len(spectrograms) // columns)
    figure = Figure(figsize=(3 * columns, 2.6 * rows), dpi=80, layout="constrained")
    for number, (spectrogram, title) in enumerate(zip(spectrograms, titles, strict=True), 1):
        axes = figure.add_subplot(rows, columns, number)
        seconds = spectrogram.shape[1] * (recipe.hop_length / recipe.sample_rate if recipe else 1)
        axes.imshow(spectrogram, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, len(spectrogram)))
        axes.set_title(title.replace("$", r"\$"), fontsize=8)
        axes.set_xlabel("s" if recipe else "frame", fontsize=8)
        axes.tick_params(labelsize=7)
        if recipe is not None and recipe.n_mels == len(spectrogram):
            centres = band_centres(recipe)
            shown = [hertz for hertz in _TICKS if centres[0] <= hertz <= centres[-1]]
            axes.set_yticks(np.interp(shown, centres, np.arange(len(centres)) + 0.5), [str(hertz) for hertz in shown])
            axes.set_ylabel("Hz", fontsize=8)
    return figure
