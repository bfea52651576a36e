"""Figures of results: accuracy by protocol, gain by profile size, confusion matrices."""

from collections.abc import Callable

import matplotlib
import numpy as np

from fairseq_neupronet.benchmark.predictions import paired
from fairseq_neupronet.benchmark.source import Source, group_size
from fairseq_neupronet.benchmark.statistics import bootstrap_interval, profile_sums

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

COLOURS = plt.get_cmap("tab10").colors + plt.get_cmap("Set2").colors
_SIZE_CLASSES = 6


def accuracy_by_protocol(source: Source, dataset: str) -> Figure | None:
    """A row of points a protocol, a point a variant: mean accuracy with the 95 % interval of a bootstrap over profiles.

    Where predictions are missing the bar is the standard deviation over cells.
    """
    protocols, models, subset = source.protocols(dataset), source.models(dataset), source.subset(dataset)
    means = {summary.key: summary.figures.get("accuracy") for summary in source.summaries}
    figure, axes = plt.subplots(figsize=(min(13, 3.4 + 1.5 * len(protocols) + 0.2 * len(models)), 4.2))
    for number, model in enumerate(models):
        offset = (number - (len(models) - 1) / 2) * 0.8 / max(len(models), 2)
        points = []
        for place, protocol in enumerate(protocols):
            key = (dataset, model, subset, protocol)
            if means.get(key) is not None:
                points.append((place + offset, means[key][0], *_interval(source, key, means[key])))
        if points:
            _draw_intervals(axes, np.array(points), "o", model, COLOURS[number % len(COLOURS)])
    axes.set_xticks(range(len(protocols)), protocols)
    axes.set_xlim(-0.6, len(protocols) - 0.4)
    axes.set(xlabel="protocol", ylabel="accuracy", title=f"{dataset}, {subset}: accuracy by protocol")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False)
    return figure


def _draw_intervals(axes, points: np.ndarray, style: str, label: str, colour) -> None:
    """Points (N, 4) of place, figure, low and high; a mean over folds may lie outside the interval of the clips'."""
    x, y, low, high = points.T
    axes.errorbar(x, (low + high) / 2, yerr=(high - low) / 2, fmt="none", capsize=3, color=colour)
    axes.plot(x, y, style, ms=5, label=label, color=colour)


def _interval(source: Source, key: tuple[str, str, str, str], figure: tuple[float, float]) -> tuple[float, float]:
    found = source.scored(key)
    if found is not None:
        low, high = bootstrap_interval(*profile_sums(found.correct, found.profile))
        if low == low:
            return low, high
    deviation = 0.0 if figure[1] != figure[1] else figure[1]
    return figure[0] - deviation, figure[0] + deviation


def accuracy_by_enrolment(source: Source, dataset: str) -> Figure | None:
    """Accuracy over the other clips in the group: ``single``, ``enrol-n`` and ``full``; None without enrol-n."""
    protocols = [name for name in source.protocols(dataset) if name.startswith("enrol-") or name in ("single", "full")]
    if not any(name.startswith("enrol-") for name in protocols):
        return None
    means = {summary.key: summary.figures.get("accuracy") for summary in source.summaries}
    subset = source.subset(dataset)
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for number, model in enumerate(source.models(dataset)):
        points = [
            (place, *_with_interval(source, (dataset, model, subset, name), means))
            for place, name in enumerate(protocols)
            if means.get((dataset, model, subset, name)) is not None
        ]
        if points:
            x, y, low, high = np.array(points).T
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(x, y, "o-", label=model, color=colour)
            axes.fill_between(x, low, high, alpha=0.12, color=colour)
    sizes = [group_size(name)[0] for name in protocols]
    labels = ["all" if name == "full" else str(size) for name, size in zip(protocols, sizes, strict=True)]
    axes.set_xticks(range(len(protocols)), labels)
    axes.set(
        xlabel="other clips of the profile in the group",
        ylabel="accuracy",
        title=f"{dataset}, {subset}: accuracy by enrolled clips",
    )
    axes.grid(alpha=0.3)
    axes.legend(bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False)
    return figure


def _with_interval(source: Source, key: tuple[str, str, str, str], means: dict) -> tuple[float, float, float]:
    return means[key][0], *_interval(source, key, means[key])


def gain_by_profile_size(source: Source, dataset: str) -> Figure | None:
    """Difference to the reference for profiles of few and of many clips, under the protocol of the largest groups."""
    protocol, subset = source.protocols(dataset)[-1], source.subset(dataset)
    theirs = source.scored((dataset, source.reference, subset, protocol))
    models = [model for model in source.models(dataset) if model != source.reference]
    if theirs is None or not models:
        return None
    figure, axes = plt.subplots(figsize=(7, 4.2))
    drawn = False
    names, counts = np.unique(theirs.profile, return_counts=True)
    classes = _size_classes(counts)
    class_of = {
        name: next(place for place, (_, high) in enumerate(classes) if count <= high)
        for name, count in zip(names, counts, strict=True)
    }
    for number, model in enumerate(models, start=1):
        ours = source.scored((dataset, model, subset, protocol))
        points = [] if ours is None else _gains(*paired(ours, theirs), class_of)
        if points:
            points = np.array(points)
            points[:, 0] += (number - len(models) / 2) * 0.06
            _draw_intervals(axes, points, "o-", model, COLOURS[number % len(COLOURS)])
            drawn = True
    if not drawn:
        plt.close(figure)
        return None
    labels = [f"{low}–{high}" if low < high else str(low) for low, high in classes]
    axes.axhline(0, color="black", lw=0.8)
    axes.set_xticks(range(len(labels)), labels)
    axes.set(
        xlabel="clips of the profile",
        ylabel=f"accuracy − {source.reference}",
        title=f"{dataset}, {subset}, {protocol}: gain by clips of a profile",
    )
    axes.grid(axis="y", alpha=0.3)
    axes.legend(bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False)
    return figure


def _gains(
    correct: np.ndarray, reference: np.ndarray, profile: np.ndarray, class_of: dict[str, int]
) -> list[tuple[int, float, float, float]]:
    """Class of size, difference and interval, for each class that has clips."""
    names, codes = np.unique(profile, return_inverse=True)
    sizes, sums = np.bincount(codes), np.bincount(codes, weights=correct - reference)
    places = np.array([class_of[name] for name in names], np.int64)
    return [
        (
            int(place),
            sums[places == place].sum() / sizes[places == place].sum(),
            *bootstrap_interval(sums[places == place], sizes[places == place]),
        )
        for place in np.unique(places)
    ]


def _size_classes(sizes: np.ndarray) -> list[tuple[int, int]]:
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
    found = [(model, source.confusion((dataset, model, subset, protocol))) for model in source.models(dataset)]
    found = [(model, *result) for model, result in found if result is not None]
    if not found:
        return None
    n_columns = min(4, len(found))
    n_rows = -(-len(found) // n_columns)
    n_classes = len(found[0][2])
    side = max(2.6, 0.42 * n_classes + 1.4)
    size = (side * n_columns + 1, 1.1 * side * n_rows + 0.6)
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")
    for panel in axes.flat[len(found) :]:
        panel.axis("off")
    for number, (panel, (model, matrix, classes)) in enumerate(zip(axes.flat, found, strict=False)):
        share = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
        panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*share.shape):
            if share[row, column] >= 0.005:
                panel.text(
                    column,
                    row,
                    f"{100 * share[row, column]:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if share[row, column] > 0.5 else "black",
                )
        panel.set_xticks(range(n_classes), classes, rotation=60, ha="right", fontsize=8)
        panel.set_yticks(range(n_classes), classes if number % n_columns == 0 else [], fontsize=8)
        panel.set_title(model)
    figure.suptitle(f"{dataset}, {subset}, {protocol}: predictions (columns) for each class (rows), per cent")
    return figure


FIGURES: dict[str, Callable[[Source, str], Figure | None]] = {
    "accuracy_by_protocol": accuracy_by_protocol,
    "accuracy_by_enrolment": accuracy_by_enrolment,
    "gain_by_profile_size": gain_by_profile_size,
    "confusion": confusion_matrices,
}
