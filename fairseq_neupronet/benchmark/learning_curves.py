"""Learning curves, read from the logs of the cells' trainings."""

import re
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from fairseq_neupronet.benchmark.figures import COLOURS
from fairseq_neupronet.benchmark.source import Source

_EPOCH = re.compile(r"\[(train|valid)\]\[INFO\] - epoch (\d+) \|(.*)")
_NUMBER = re.compile(r"(\w+) (-?[\d.]+(?:e-?\d+)?)(?: \||$)")
_CURVES = (
    ("train", "loss", "training loss"),
    ("valid", "loss", "validation loss"),
    ("valid", "accuracy", "validation accuracy"),
)


def read_curves(log: Path) -> dict[tuple[str, str], dict[int, float]]:
    """(``train`` or ``valid``, metric) → epoch → figure; of an epoch that was begun twice the later."""
    curves = {}
    with open(log, encoding="utf-8", errors="replace") as file:
        for line in file:
            if match := _EPOCH.search(line):
                for name, value in _NUMBER.findall(match[3]):
                    curves.setdefault((match[1], name), {})[int(match[2])] = float(value)
    return curves


def learning_curves(source: Source, dataset: str) -> Figure | None:
    """Loss and validation accuracy by epoch: a thin line a cell, a thick one their mean."""
    figure, axes = plt.subplots(1, len(_CURVES), figsize=(13, 3.8))
    drawn = False
    for number, model in enumerate(source.models(dataset)):
        found = [read_curves(log) for _, _, log in source.logs(dataset, model)]
        colour = COLOURS[number % len(COLOURS)]
        for panel, (subset, metric, _) in zip(axes, _CURVES, strict=True):
            curves = [curve[subset, metric] for curve in found if curve.get((subset, metric))]
            for curve in curves:
                panel.plot(list(curve), list(curve.values()), color=colour, alpha=0.25, lw=0.8, marker=".", ms=2)
            if curves:
                epochs = sorted(set.intersection(*map(set, curves)))
                means = [sum(curve[epoch] for curve in curves) / len(curves) for epoch in epochs]
                panel.plot(epochs, means, color=colour, lw=2, label=model, marker="o", ms=3)
                drawn = True
    if not drawn:
        plt.close(figure)
        return None
    for panel, (_, _, title) in zip(axes, _CURVES, strict=True):
        panel.set(title=title, xlabel="epoch")
        low, high = panel.get_xlim()
        panel.set_xlim(min(low, 0.5), max(high, 1.5))  # a single epoch has no width
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
    axes[-1].legend(bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False)
    figure.suptitle(f"{dataset}: learning curves")
    figure.tight_layout()
    return figure
