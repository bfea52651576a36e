"""What a trained model says of what it is given, and how a person or a program reads it.

Letters: W windows of a file, K classes, N clips, D, U widths, M mel bands, F frames.
"""

import csv
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TextIO

import numpy as np
import torch
from torch import Tensor

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.networks.neupronet import Classified

_NARROWEST_PATH = 16


@dataclass(frozen=True)
class Prediction:
    """Of one file or array.

    Attributes:
        path: the file's, or ``array 0`` and so on.
        classes: K names.
        profile: the name that its group went by; None where each window is alone.
        times: (W, 2) seconds at which each window begins and ends.
        logits: (W, K) float32.
    """

    path: str
    classes: list[str]
    profile: str | None
    times: np.ndarray
    logits: np.ndarray

    @cached_property
    def window_probabilities(self) -> np.ndarray:
        """(W, K) float64."""
        powers = np.exp(self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(K,), the mean over the windows."""
        return self.window_probabilities.mean(axis=0)

    @property
    def label(self) -> str:
        """The likeliest class of the whole."""
        return self.classes[int(self.probabilities.argmax())]

    @property
    def probability(self) -> float:
        """Of :attr:`label`."""
        return float(self.probabilities.max())

    def top(self, n: int, window: int | None = None) -> list[tuple[str, float]]:
        """The n likeliest classes, likeliest first, of the whole or of one window."""
        probabilities = self.probabilities if window is None else self.window_probabilities[window]
        order = np.argsort(-probabilities, kind="stable")[:n]
        return [(self.classes[number], float(probabilities[number])) for number in order]


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read, and the sentence that says why."""

    path: str
    sentence: str


@dataclass(frozen=True)
class Embeddings:
    """Of N clips, the windows of all files one after another.

    Attributes:
        path: (N,) texts.
        times: (N, 2) seconds.
        clip: (N, D) clip embeddings.
        profile: (N, D) profile embeddings, of each clip alone; None without profiling.
        pooled: (N, D) pooled over each clip's group; None without profiling.
        fused: (N, U), what the classifier's head sees.
        logits: (N, K).
    """

    path: np.ndarray
    times: np.ndarray
    clip: np.ndarray
    profile: np.ndarray | None
    pooled: np.ndarray | None
    fused: np.ndarray
    logits: np.ndarray


@dataclass
class Clip:
    """A window of an input.

    Attributes:
        source: the input's number.
        start, end: seconds.
        spectrogram: (M, F); None once it is embedded.
        clip, profile: (D,) embeddings of the clip by itself.
        pooled, fused, logits: (D,), (U,) and (K,), of the clip in its group.
    """

    source: int
    start: float
    end: float
    spectrogram: np.ndarray | None
    clip: Tensor | None = None
    profile: Tensor | None = None
    pooled: Tensor | None = None
    fused: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True)
class Finished:
    """All clips of an input have come; with the reason where they have not."""

    source: int
    failure: Unreadable | None = None


def fill(clips: Sequence[Clip], classified: Classified) -> None:
    """Give clips what the network says of them; their spectrograms go."""
    for number, clip in enumerate(clips):
        clip.spectrogram = None
        for name in ("clip", "profile", "pooled", "fused", "logits"):
            rows = getattr(classified, name)
            setattr(clip, name, None if rows is None else rows[number])


def gather_predictions(
    events: Iterable[Clip | Finished], paths: Sequence[str], profiles: Sequence[str | None], classes: list[str]
) -> Iterator[Prediction | Unreadable]:
    """One outcome an input, as soon as its last clip has come; ``paths`` and ``profiles`` are those of the inputs."""
    times: list[tuple[float, float]] = []
    logits: list[Tensor] = []
    for event in events:
        if isinstance(event, Clip):
            times.append((event.start, event.end))
            logits.append(event.logits)
            continue
        if event.failure:
            yield event.failure
        else:
            rows = torch.stack(logits).numpy()
            yield Prediction(paths[event.source], classes, profiles[event.source], np.array(times), rows)
        times, logits = [], []


def gather_embeddings(
    events: Iterable[Clip | Finished], paths: Sequence[str], failures: list[Unreadable] | None
) -> Embeddings:
    """The embeddings of all N clips.

    Args:
        events: the classified clips.
        paths: of the inputs.
        failures: takes the sounds that cannot be read, whose clips are left out; None raises at the first.

    Raises:
        InputError: a sound that cannot be read, or all of them.
    """
    clips = []
    for event in events:
        if isinstance(event, Clip):
            clips.append(event)
        elif event.failure:
            if failures is None:
                raise InputError(event.failure.sentence)
            failures.append(event.failure)
            clips = [clip for clip in clips if clip.source != event.source]
    if not clips:
        raise InputError(failures[0].sentence if failures else "no sound is given; name one at least")

    def stacked(name: str) -> np.ndarray | None:
        rows = [getattr(clip, name) for clip in clips]
        return None if rows[0] is None else torch.stack(rows).numpy()

    return Embeddings(
        path=np.array([paths[clip.source] for clip in clips]),
        times=np.array([(clip.start, clip.end) for clip in clips]),
        **{name: stacked(name) for name in ("clip", "profile", "pooled", "fused", "logits")},
    )


def as_record(prediction: Prediction, n_top: int) -> dict:
    """One prediction in plain containers; seconds and probabilities as numbers."""
    windows = [
        {"start": float(start), "end": float(end), "top": _top(prediction, n_top, number)}
        for number, (start, end) in enumerate(prediction.times)
    ]
    return {
        "path": prediction.path,
        "profile": prediction.profile,
        "label": prediction.label,
        "probability": prediction.probability,
        "top": _top(prediction, n_top, None),
        "windows": windows,
    }


def _top(prediction: Prediction, n_top: int, window: int | None) -> list[dict]:
    return [{"label": label, "probability": value} for label, value in prediction.top(n_top, window)]


def write_json(predictions: Iterable[Prediction], n_top: int, stream: TextIO) -> None:
    """A list of :func:`as_record`, an element a line, each written as soon as it is there."""
    separator = "[\n"
    for prediction in predictions:
        stream.write(separator + json.dumps(as_record(prediction, n_top)))
        separator = ",\n"
    stream.write("\n]\n" if separator != "[\n" else "[]\n")


def write_csv(predictions: Iterable[Prediction], classes: list[str], stream: TextIO) -> None:
    """A row a window: path, profile, start, end, label, probability, and the probability of every class."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "profile", "start", "end", "label", "probability", *classes])
    for prediction in predictions:
        for number, (start, end) in enumerate(prediction.times):
            ((label, probability),) = prediction.top(1, number)
            every = (f"{value:.6g}" for value in prediction.window_probabilities[number])
            writer.writerow(
                [
                    prediction.path,
                    prediction.profile or "",
                    f"{start:.3f}",
                    f"{end:.3f}",
                    label,
                    f"{probability:.6g}",
                    *every,
                ]
            )


def write_table(predictions: Iterable[Prediction], n_top: int, stream: TextIO) -> None:
    """A line a window, as wide as the terminal: file, times, the likeliest classes."""
    width = shutil.get_terminal_size().columns
    for prediction in predictions:
        for number, (start, end) in enumerate(prediction.times):
            times = f"{_clock(start)}–{_clock(end)}"
            top = "  ".join(f"{label} {value:.3f}" for label, value in prediction.top(n_top, number))
            room = max(_NARROWEST_PATH, width - len(times) - len(top) - 4)
            path = prediction.path if len(prediction.path) <= room else f"…{prediction.path[1 - room :]}"
            stream.write(f"{path:<{room}}  {times}  {top}\n")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 2), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:05.2f}" if hours else f"{minutes:02d}:{rest:05.2f}"
