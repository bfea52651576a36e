"""Pictures of a validation in TensorBoard: the confusion matrix, and the clips that the model classifies least rightly.

Both are left out where tensorboard or matplotlib is missing (``pip install 'fairseq-neupronet[tensorboard]'``).
Letters: N clips, K classes, M mel bands, F frames.
"""

import importlib.util
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fairseq_neupronet.audio.features import band_centres
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.evaluation.metrics import confusion_matrix, draw_confusion
from fairseq_neupronet.evaluation.outputs import Evaluation

logger = logging.getLogger(__name__)

_SHARE = 0.05  # of a training's time; a small epoch takes no longer than its pictures
_EXAMPLES = 8
_MOST_CLASSES = 60  # with more of them the numbers of a confusion matrix cannot be read
_TICKS = (100, 500, 1000, 2000, 4000, 8000, 16000)  # Hz
_writers: dict[str, object] = {}


def can_log() -> bool:
    """Whether TensorBoard is installed."""
    return importlib.util.find_spec("tensorboard") is not None


def can_draw() -> bool:
    """Whether there can be pictures in it too."""
    return can_log() and importlib.util.find_spec("matplotlib") is not None


class PacedPictures:
    """Draws validations as long as that takes a twentieth of the time; what was passed over last is drawn at the end.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._next = clock, -math.inf
        self._waiting: Callable[[], None] | None = None

    def offer(self, draw: Callable[[], None]) -> None:
        """Call ``draw``, which draws a validation, now, or keep it until a later one takes its place."""
        self._waiting = draw
        if self._clock() >= self._next:
            self._draw()

    def finish(self) -> None:
        """Draw what waits; the next training begins anew."""
        if self._waiting is not None:
            self._draw()
        self._next = -math.inf

    def _draw(self) -> None:
        draw, self._waiting = self._waiting, None
        start = self._clock()
        draw()
        end = self._clock()
        self._next = end + (end - start) / _SHARE


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


def _writer(folder: Path):
    from torch.utils.tensorboard import SummaryWriter

    if str(folder) not in _writers:
        _writers[str(folder)] = SummaryWriter(str(folder))
    return _writers[str(folder)]


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
