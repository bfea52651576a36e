"""Predictions as a person or a program reads them."""

import csv
import json
import shutil
from collections.abc import Iterable
from typing import TextIO

from fairseq_neupronet.inference.results import Prediction

_NARROWEST_PATH = 16


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
