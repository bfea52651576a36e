"""The demo's table and the sentence under it, from the predictions that ``neupronet evaluate`` wrote.

Every figure is accuracy on the test clips; intervals are of a bootstrap over sources, differences are paired by clip.
"""

import csv
from pathlib import Path

import numpy as np

from fairseq_neupronet.benchmark.statistics import Comparison, compare_sums

BASE, OFFICIAL, NORMALIZED = MODELS = ("base", "in_batch", "profile_normalize_random")
PROTOCOLS = ("single", "enrol-3", "full")
WITHIN_CLASS, AMONG_ALL = CONTROLS = ("shuffled_within_class", "shuffled_profiles")
NOTES = """\
base: the backbone without profiles; in_batch: the official form of NeuProNet; profile_normalize_random: each mel band
normalised over clips of the source. single: each clip alone; enrol-3: with three other clips of its source; full: with
all test clips of its source (transductive). shuffled: the same model and protocol with groups of the same sizes of
other sources' clips, within class: that keep how many clips of each class they hold. Brackets: 95 % intervals over the
sources ({profiles} of them, {clips} clips)."""


class Predictions:
    """The predictions of a demo's folder, which holds ``MODEL/evaluation`` of each model."""

    def __init__(self, out: Path):
        self._out = out
        # A model without profiles writes none.
        profile_of = {row["path"]: row["profile"] for row in _rows(self._path(NORMALIZED, "full"))}
        self._clips = sorted(profile_of)
        self._profile = np.unique([profile_of[clip] for clip in self._clips], return_inverse=True)[1]

    def accuracy(self, model: str, protocol: str, control: str | None = None) -> Comparison:
        """Accuracy and its interval: the difference from a model that is never right."""
        return self._compared(self._correct(model, protocol, control))

    def gain(self, ours: tuple[str, ...], theirs: tuple[str, ...]) -> Comparison:
        """How much more accurate one evaluation (model, protocol, perhaps control) is than another."""
        return self._compared(self._correct(*ours) - self._correct(*theirs))

    def _compared(self, of_clips: np.ndarray) -> Comparison:
        return compare_sums(np.bincount(self._profile, of_clips), np.bincount(self._profile))

    def _correct(self, model: str, protocol: str, control: str | None = None) -> np.ndarray:
        right = {row["path"]: row["target"] == row["prediction"] for row in _rows(self._path(model, protocol, control))}
        return np.array([right[clip] for clip in self._clips], float)

    def _path(self, model: str, protocol: str, control: str | None = None) -> Path:
        folder = f"{protocol}+{control}" if control else protocol
        return self._out / model / "evaluation" / "test" / folder / "predictions.tsv"


def _rows(predictions: Path) -> list[dict[str, str]]:
    with open(predictions, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def report(out: Path, data: str) -> str:
    """The table, what its columns mean, and the sentence.

    Args:
        out: the demo's folder.
        data: what the figures are of.
    """
    found = Predictions(out)
    lines = [
        f"{data}; accuracy",
        "",
        "| model | protocol | accuracy | − base | shuffled within class | shuffled |",
        "|---|---|---|---|---|---|",
    ]
    for model in MODELS:
        for protocol in PROTOCOLS:
            accuracy, cells = found.accuracy(model, protocol), ["", "", ""]
            if model != BASE:
                gain = found.gain((model, protocol), (BASE, protocol))
                cells[0] = f"{signed(gain.difference)} ({signed(gain.low)} … {signed(gain.high)})"
                if protocol != "single":
                    cells[1:] = [plain(found.accuracy(model, protocol, control).difference) for control in CONTROLS]
            shown = f"{plain(accuracy.difference)} ({plain(accuracy.low)} … {plain(accuracy.high)})"
            lines.append("| " + " | ".join([model, protocol, shown, *cells]) + " |")
    notes = NOTES.format(profiles=accuracy.profiles, clips=accuracy.clips)
    return "\n".join([*lines, "", notes, "", sentence(found), ""])


def sentence(found: Predictions) -> str:
    """What the figures under ``full`` say, in points of accuracy over base.

    A gain is one whose interval, in the whole points that are printed, lies above 0. That a gain comes from
    knowing the source is said only where the right source's clips are better than other sources' clips of the same
    classes as well.
    """
    base, ours = (BASE, "full"), (NORMALIZED, "full")
    gain, control = found.gain(ours, base), found.gain((*ours, WITHIN_CLASS), base)
    official = found.gain((OFFICIAL, "full"), base)
    if gains(gain) and gains(found.gain(ours, (*ours, WITHIN_CLASS))):
        first = f"Knowing the source is worth {in_points(gain)} at full"
    elif gains(gain):
        first = f"A group is worth {in_points(gain)} at full, but not for its source"
    else:
        first = f"Knowing the source gains nothing at full: {in_points(gain)}"
    same_classes = "are worth" if gains(control) else "gain nothing:"
    form = "gains" if gains(official) else "gains nothing:"
    return (
        f"{first}; other sources' clips of the same classes {same_classes} {in_points(control)}; "
        f"the official form {form} {in_points(official)}."
    )


def gains(difference: Comparison) -> bool:
    """Whether the interval, in whole points, lies above 0."""
    return points(difference.low) > 0


def in_points(gain: Comparison) -> str:
    """``+17 points (12 to 22)``."""
    difference = points(gain.difference)
    unit = "point" if abs(difference) == 1 else "points"
    return f"{difference:+d} {unit} ({points(gain.low)} to {points(gain.high)})".replace("-", "−").replace("+0", "0")


def points(value: float) -> int:
    """Hundredths."""
    return round(100 * value)


def plain(value: float) -> str:
    """``.671``."""
    return f"{value:.3f}".removeprefix("0")


def signed(value: float) -> str:
    """``+.172``."""
    return f"{value:+.3f}".replace("0.", ".", 1).replace("-", "−")
