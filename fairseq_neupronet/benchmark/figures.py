"""Figures of results: accuracy by protocol and by enrolment, confusion matrices, learning curves, maps of embeddings.

Each is of one data set, and None where there is nothing to draw.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from fairseq_neupronet.arrays import read_npz
from fairseq_neupronet.benchmark.by_profile import evaluation_folder
from fairseq_neupronet.benchmark.comparison import Source, group_size
from fairseq_neupronet.benchmark.results import read_rows
from fairseq_neupronet.benchmark.statistics import bootstrap_interval
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.metrics import draw_confusion

_COLOURS = colormaps["tab10"].colors + colormaps["Set2"].colors
_MOST_CLIPS = 1500
_MOST_PROFILES = 10
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
    figure = Figure(figsize=(min(13, 3.4 + 1.5 * len(protocols) + 0.2 * len(models)), 4.2))
    axes = figure.subplots()
    for number, model in enumerate(models):
        points = _accuracies(source, dataset, model, protocols)
        if len(points):
            points[:, 0] += (number - (len(models) - 1) / 2) * 0.8 / max(len(models), 2)
            x, y, low, high = points.T
            colour = _colour(number)
            # A mean over folds may lie outside the interval of the clips'.
            axes.errorbar(x, (low + high) / 2, yerr=(high - low) / 2, fmt="none", capsize=3, color=colour)
            axes.plot(x, y, "o", ms=5, label=model, color=colour)
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
    figure = Figure(figsize=(7, 4.2))
    axes = figure.subplots()
    for number, model in enumerate(source.models(dataset)):
        points = _accuracies(source, dataset, model, protocols)
        if len(points):
            x, y, low, high = points.T
            colour = _colour(number)
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
            whole = source.counts.sums(row)
            low, high = bootstrap_interval(*whole) if whole else (np.nan, np.nan)
            if low != low:
                low, high = mean - np.nan_to_num(deviation), mean + np.nan_to_num(deviation)
            points.append((place, mean, low, high))
    return np.array(points, float).reshape(-1, 4)


def _finish(axes, grid: str, **labels: str) -> None:
    axes.set(**labels)
    axes.grid(axis=grid, alpha=0.3)
    axes.legend(bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False)


def confusion(source: Source, dataset: str) -> Figure | None:
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
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for panel in axes.flat[len(found) :]:
        panel.axis("off")
    for panel, (model, (matrix, classes)) in zip(axes.flat, found.items(), strict=False):
        draw_confusion(panel, matrix, classes, per_cent=True)
        panel.set_title(model)
    figure.suptitle(f"{dataset}, {subset}, {protocol}: predictions for each class, per cent")
    return figure


def learning_curves(source: Source, dataset: str) -> Figure | None:
    """Loss and validation accuracy by epoch: a thin line a cell, a thick one their mean."""
    cells = {model: list(curves(source, dataset, model)) for model in source.models(dataset)}
    if not any(any(found) for found in cells.values()):
        return None
    figure = Figure(figsize=(13, 3.8))
    panels = figure.subplots(1, len(_CURVES))
    for panel, (name, title) in zip(panels, _CURVES.items(), strict=True):
        for number, (model, found) in enumerate(cells.items()):
            colour, lines = _colour(number), [cell[name] for cell in found if name in cell]
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


def curves(source: Source, dataset: str, variant: str) -> Iterator[dict[str, dict[int, float]]]:
    """Of each cell that has a ``training.csv``: column → epoch → figure; of an epoch's validations the last.

    Raises:
        InputError: a damaged one.
    """
    keys = [key for key in source.rows if key[:2] == (dataset, variant)]
    for training in sorted({training for key in keys for training in source.rows[key].trainings}):
        # Beside the evaluation's folder, of whatever subset and protocol.
        cell = evaluation_folder(source.cells, keys[0], training).parents[2]
        path = cell / "train" / "checkpoints" / "training.csv"
        found: dict[str, dict[int, float]] = {}
        for number, row in enumerate(read_rows(path, {"epoch"}) if path.is_file() else (), start=2):
            try:
                for name in _CURVES:
                    if row.get(name):
                        found.setdefault(name, {})[int(row["epoch"])] = float(row[name])
            except ValueError:
                raise InputError(f"{path}:{number}: epoch or {name} is no number; run the cell again") from None
        if path.is_file():
            yield found


@dataclass(frozen=True)
class Embeddings:
    """Of one cell's clips.

    Attributes:
        where: the cell, in words.
        classes: K names.
        arrays: ``target`` (N,), ``profile_code`` (N,), and of ``clip``, ``profile``, ``fused`` (N, …) those there are.
    """

    where: str
    classes: list[str]
    arrays: dict[str, np.ndarray]


def read_embeddings(source: Source, dataset: str, variant: str) -> Embeddings | None:
    """Those of the first cell that has any, under the protocol of the largest groups.

    Raises:
        InputError: a damaged file of them, or none of predictions beside it.
    """
    for protocol in reversed(source.protocols(dataset)):
        key = (dataset, variant, source.subset(dataset), protocol)
        for fold, seed in source.rows[key].trainings if key in source.rows else ():
            folder = evaluation_folder(source.cells, key, (fold, seed))
            path = folder / "embeddings.npz"
            if path.is_file():
                try:
                    arrays = read_npz(path)
                except ValueError as error:
                    raise InputError(f"{path}: is damaged ({error}); run the cell again") from None
                _, _, _, _, *classes = read_rows(folder / "predictions.tsv", {"prediction"})[0]
                return Embeddings(f"fold {fold}, seed {seed}, {protocol}", classes, arrays)
    return None


def tsne_maps(embeddings: Embeddings, title: str) -> Figure | None:
    """Maps (van der Maaten and Hinton 2008) of clip, profile and fused embeddings, coloured by class and by profile.

    The profiles of most clips have colours, the others are grey. At most 1,500 clips are drawn, chosen at random.
    """
    arrays, target = embeddings.arrays, embeddings.arrays["target"]
    kinds = [kind for kind in ("clip", "profile", "fused") if kind in arrays]
    if {"clip", "fused"} <= set(kinds) and np.array_equal(arrays["clip"], arrays["fused"]):
        kinds.remove("fused")  # nothing is fused where there is no profile
    profile = arrays.get("profile_code", np.arange(len(target)))
    if len(target) < 5 or not kinds:
        return None
    chosen = np.sort(np.random.default_rng(0).permutation(len(target))[:_MOST_CLIPS])
    target, profile = target[chosen], profile[chosen]
    codes, counts = np.unique(profile, return_counts=True)
    largest = codes[np.argsort(-counts, kind="stable")][:_MOST_PROFILES]
    figure = Figure(figsize=(4.2 * len(kinds) + 1.6, 8))
    axes = figure.subplots(2, len(kinds), squeeze=False)
    for column, kind in enumerate(kinds):
        vectors = arrays[kind][chosen].astype(np.float32)
        perplexity = min(30, (len(vectors) - 1) / 3)
        place = TSNE(perplexity=perplexity, init="random", random_state=0).fit_transform(vectors)
        axes[0, column].set_title(f"{kind} embeddings")
        for number, name in enumerate(embeddings.classes):
            _dots(axes[0, column], place[target == number], _colour(number), name)
        _dots(axes[1, column], place[~np.isin(profile, largest)], "lightgrey", "other profiles")
        for number, code in enumerate(largest):
            _dots(axes[1, column], place[profile == code], _colour(number), f"profile {code}")
    for panel, name in zip(axes[:, 0], ("class", "profile"), strict=True):
        panel.set_ylabel(f"coloured by {name}")
    for panel in axes[:, -1]:
        panel.legend(bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False, markerscale=2, fontsize=8)
    figure.suptitle(f"{title}: t-SNE")
    figure.tight_layout()
    return figure


def _dots(panel, place: np.ndarray, colour, label: str) -> None:
    panel.scatter(*place.T, s=8 if len(place) > 100 else 16, color=colour, label=label, linewidths=0)
    panel.set(xticks=[], yticks=[])


def _colour(number: int):
    return _COLOURS[number % len(_COLOURS)]


def draw_all(source: Source, dataset: str) -> Iterator[tuple[str, Figure]]:
    """The figures that a data set has, by name."""
    for draw in (accuracy_by_protocol, accuracy_by_enrolment, confusion, learning_curves):
        yield draw.__name__, draw(source, dataset)
    for model in source.models(dataset):
        embeddings = read_embeddings(source, dataset, model)
        if embeddings is not None:
            yield f"tsne_{model}", tsne_maps(embeddings, f"{dataset}, {model}, {embeddings.where}")
