"""Figures of results: accuracy by protocol and by enrolment, gain by profile size, confusion matrices, learning curves.

Each is of one data set, and None where there is nothing to draw.
"""

from collections.abc import Callable, Iterable

import matplotlib
import numpy as np

from fairseq_neupronet.benchmark.source import Source, group_size
from fairseq_neupronet.benchmark.statistics import bootstrap_interval
from fairseq_neupronet.evaluation.metrics import draw_confusion

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

COLOURS = plt.get_cmap("tab10").colors + plt.get_cmap("Set2").colors
_SIZE_CLASSES = 6
_CURVES = {
    "train_loss": "training loss",
    "valid_loss": "validation loss",
    "valid_accuracy": "validation accuracy",
}


def accuracy_by_protocol(source: Source, dataset: str) -> Figure | None:
    """A row of points a protocol, a point a variant: mean accuracy with the 95 % interval of a bootstrap over profiles.

    Where predictions are missing the bar is the standard deviation over cells.
    """
    protocols, models = source.protocols(dataset), source.models(dataset)
    figure, axes = plt.subplots(figsize=(min(13, 3.4 + 1.5 * len(protocols) + 0.2 * len(models)), 4.2))
    for number, model in enumerate(models):
        points = _accuracies(source, dataset, model, protocols)
        if len(points):
            points[:, 0] += (number - (len(models) - 1) / 2) * 0.8 / max(len(models), 2)
            _draw_intervals(axes, points, "o", model, COLOURS[number % len(COLOURS)])
    axes.set_xticks(range(len(protocols)), protocols)
    axes.set_xlim(-0.6, len(protocols) - 0.4)
    title = f"{dataset}, {source.subset(dataset)}: accuracy by protocol"
    _finish(axes, "y", xlabel="protocol", ylabel="accuracy", title=title)
    return figure


def accuracy_by_enrolment(source: Source, dataset: str) -> Figure | None:
    """Accuracy over the other clips in the group: ``single``, ``enrol-n`` and ``full``; None without enrol-n."""
    protocols = [name for name in source.protocols(dataset) if name.startswith("enrol-") or name in ("single", "full")]
    if not any(name.startswith("enrol-") for name in protocols):
        return None
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for number, model in enumerate(source.models(dataset)):
        points = _accuracies(source, dataset, model, protocols)
        if len(points):
            x, y, low, high = points.T
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(x, y, "o-", label=model, color=colour)
            axes.fill_between(x, low, high, alpha=0.12, color=colour)
    sizes = [group_size(name)[0] for name in protocols]
    labels = ["all" if name == "full" else str(size) for name, size in zip(protocols, sizes, strict=True)]
    axes.set_xticks(range(len(protocols)), labels)
    title = f"{dataset}, {source.subset(dataset)}: accuracy by enrolled clips"
    _finish(axes, "both", xlabel="other clips of the profile in the group", ylabel="accuracy", title=title)
    return figure


def _accuracies(source: Source, dataset: str, model: str, protocols: list[str]) -> np.ndarray:
    """(N, 4): the place among the protocols, the mean accuracy, and the ends of its interval."""
    points = []
    for place, protocol in enumerate(protocols):
        row = source.rows.get((dataset, model, source.subset(dataset), protocol))
        if row is not None and "accuracy" in row.figures:
            mean, deviation = row.figures["accuracy"]
            whole = len(source.counts.counted(row)) == len(row.trainings) and source.counts.sums(row)
            low, high = bootstrap_interval(*whole) if whole else (np.nan, np.nan)
            if low != low:
                low, high = mean - np.nan_to_num(deviation), mean + np.nan_to_num(deviation)
            points.append((place, mean, low, high))
    return np.array(points, float).reshape(-1, 4)


def _draw_intervals(axes, points: np.ndarray, style: str, label: str, colour) -> None:
    """Points (N, 4) of place, figure, low and high; a mean over folds may lie outside the interval of the clips'."""
    x, y, low, high = points.T
    axes.errorbar(x, (low + high) / 2, yerr=(high - low) / 2, fmt="none", capsize=3, color=colour)
    axes.plot(x, y, style, ms=5, label=label, color=colour)


def _finish(axes, grid: str, **labels: str) -> None:
    axes.set(**labels)
    axes.grid(axis=grid, alpha=0.3)
    axes.legend(bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False)


def gain_by_profile_size(source: Source, dataset: str) -> Figure | None:
    """Difference to the reference for profiles of few and of many clips, under the protocol of the largest groups."""
    protocol, subset = source.protocols(dataset)[-1], source.subset(dataset)
    reference = source.rows.get((dataset, source.reference, subset, protocol))
    whole = None if reference is None else source.counts.sums(reference)
    if whole is None:
        return None
    differences = {}
    for model in source.models(dataset):
        row = source.rows.get((dataset, model, subset, protocol))
        found = None if row is None or row is reference else source.counts.differences(row, reference)
        if found is not None:
            differences[model] = found
    if not differences:
        return None
    figure, axes = plt.subplots(figsize=(7, 4.2))
    ranges = _size_ranges(whole[1])
    for number, model in enumerate(source.models(dataset)):
        if model in differences:
            points = np.array(list(_gains(*differences[model], ranges)))
            points[:, 0] += (number - len(differences) / 2) * 0.06
            _draw_intervals(axes, points, "o-", model, COLOURS[number % len(COLOURS)])
    labels = [f"{low}–{high}" if low < high else str(low) for low, high in ranges]
    axes.axhline(0, color="black", lw=0.8)
    axes.set_xticks(range(len(labels)), labels)
    title = f"{dataset}, {subset}, {protocol}: gain by clips of a profile"
    _finish(axes, "y", xlabel="clips of the profile", ylabel=f"accuracy − {source.reference}", title=title)
    return figure


def _gains(
    sums: np.ndarray, clips: np.ndarray, ranges: list[tuple[int, int]]
) -> Iterable[tuple[int, float, float, float]]:
    """The place of a range of sizes, the difference and its interval, for each range that has profiles."""
    places = np.searchsorted([high for _, high in ranges], clips)
    for place in np.unique(places):
        chosen = places == place
        yield place, sums[chosen].sum() / clips[chosen].sum(), *bootstrap_interval(sums[chosen], clips[chosen])


def _size_ranges(sizes: np.ndarray) -> list[tuple[int, int]]:
    """Ranges of sizes that hold about as many clips each; few sizes are a range each."""
    distinct = np.unique(sizes)
    if len(distinct) <= _SIZE_CLASSES:
        return [(int(size), int(size)) for size in distinct]
    ordered = np.sort(np.repeat(sizes, sizes))
    ends = np.linspace(0, len(ordered), _SIZE_CLASSES + 1)[1:].round().astype(int) - 1
    bounds = np.unique(ordered[ends])
    lows = [int(distinct[0]), *(int(distinct[distinct > bound][0]) for bound in bounds[:-1])]
    return list(zip(lows, map(int, bounds), strict=True))


def confusion_matrices(source: Source, dataset: str) -> Figure | None:
    """Row-normalised matrices side by side, sums over folds and seeds, under the protocol of the largest groups."""
    protocol, subset = source.protocols(dataset)[-1], source.subset(dataset)
    found = {}
    for model in source.models(dataset):
        row = source.rows.get((dataset, model, subset, protocol))
        result = None if row is None else source.counts.confusion(row)
        if result is not None:
            found[model] = result
    if not found:
        return None
    n_columns = min(4, len(found))
    n_rows = -(-len(found) // n_columns)
    side = max(2.6, 0.42 * max(len(classes) for _, classes in found.values()) + 1.4)
    size = (side * n_columns + 1, 1.1 * side * n_rows + 0.6)
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")
    for panel in axes.flat[len(found) :]:
        panel.axis("off")
    for panel, (model, (matrix, classes)) in zip(axes.flat, found.items(), strict=False):
        draw_confusion(panel, matrix, classes, per_cent=True)
        panel.set_title(model)
    figure.suptitle(f"{dataset}, {subset}, {protocol}: predictions for each class, per cent")
    return figure


def learning_curves(source: Source, dataset: str) -> Figure | None:
    """Loss and validation accuracy by epoch: a thin line a cell, a thick one their mean."""
    cells = {model: list(source.curves(dataset, model, list(_CURVES))) for model in source.models(dataset)}
    if not any(any(found) for found in cells.values()):
        return None
    figure, panels = plt.subplots(1, len(_CURVES), figsize=(13, 3.8))
    for panel, (name, title) in zip(panels, _CURVES.items(), strict=True):
        for number, (model, found) in enumerate(cells.items()):
            colour, lines = COLOURS[number % len(COLOURS)], [cell[name] for cell in found if name in cell]
            for line in lines:
                panel.plot(list(line), list(line.values()), color=colour, alpha=0.25, lw=0.8, marker=".", ms=2)
            if lines:
                epochs = sorted(set.intersection(*map(set, lines)))
                means = [sum(line[epoch] for line in lines) / len(lines) for epoch in epochs]
                panel.plot(epochs, means, color=colour, lw=2, label=model, marker="o", ms=3)
        panel.set(title=title, xlabel="epoch")
        low, high = panel.get_xlim()
        panel.set_xlim(min(low, 0.5), max(high, 1.5))  # a single epoch has no width
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
    panels[-1].legend(bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False)
    figure.suptitle(f"{dataset}: learning curves")
    figure.tight_layout()
    return figure


FIGURES: dict[str, Callable[[Source, str], Figure | None]] = {
    "accuracy_by_protocol": accuracy_by_protocol,
    "accuracy_by_enrolment": accuracy_by_enrolment,
    "gain_by_profile_size": gain_by_profile_size,
    "confusion": confusion_matrices,
    "learning_curves": learning_curves,
}
