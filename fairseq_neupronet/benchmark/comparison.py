"""A table's rows summed up: mean and deviation over folds and seeds, and the paired test against a reference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairseq_neupronet.benchmark.by_profile import ProfileCounts
from fairseq_neupronet.benchmark.counted_metrics import compare_counts, counted_metric
from fairseq_neupronet.benchmark.predictions import paired, profile_counts, scored
from fairseq_neupronet.benchmark.results import read_rows
from fairseq_neupronet.benchmark.statistics import Comparison, compare, compare_sums, mean_and_deviation

_TESTED = ("accuracy", "macro_f1", "icbhi_score")


@dataclass(frozen=True)
class Summary:
    """A variant under a protocol.

    Attributes:
        dataset, variant, subset, protocol: which.
        figures: metric → (mean, standard deviation) over folds and seeds; see :func:`mean_and_deviation`.
        cells: how many of them.
        comparison: of its tested metric with the reference's; None for the reference, where predictions are missing
            and where the metric is not defined for these clips and classes.
    """

    dataset: str
    variant: str
    subset: str
    protocol: str
    figures: dict[str, tuple[float, float]]
    cells: int
    comparison: Comparison | None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Data set, variant, subset, protocol."""
        return self.dataset, self.variant, self.subset, self.protocol


def places_of(rows: Sequence[dict[str, str]]) -> dict[tuple[str, str, str, str], list[tuple[str, str]]]:
    """(Data set, variant, subset, protocol) → (fold, seed) of its cells, all in the order of the table."""
    places = {}
    for row in rows:
        key = (row["dataset"], row["variant"], row["subset"], row["protocol"])
        places.setdefault(key, {})[row["fold"], row["seed"]] = None
    return {key: list(found) for key, found in places.items()}


def compared_metric(metrics: Sequence[str]) -> str:
    """The metric of the paired test: the first of a table's, or accuracy where that one cannot be tested."""
    return metrics[0] if metrics and metrics[0] in _TESTED else _TESTED[0]


def summaries(results: str | Path, reference: str | None = None, metric: str = _TESTED[0]) -> list[Summary]:
    """Sum up a ``results.csv``, with the predictions in the cells beside it, or else the counts by profile.

    Args:
        results: the table.
        reference: the variant to compare with, under the same data set, subset and protocol; unset: the first.
        metric: of the paired test.

    Raises:
        InputError: the table or a file of predictions is damaged.
    """
    results = Path(results)
    rows = read_rows(results)
    places = places_of(rows)
    values = {}
    for row in rows:
        key = (row["dataset"], row["variant"], row["subset"], row["protocol"])
        if row["value"] not in ("", "nan", "None"):
            by_fold = values.setdefault(key, {}).setdefault(row["metric"], {})
            by_fold.setdefault(row["fold"], []).append(float(row["value"]))
    reference = reference or (rows[0]["variant"] if rows else None)
    counts = ProfileCounts.beside(results)
    return [
        Summary(
            *key,
            figures={metric: mean_and_deviation(found.values()) for metric, found in values.get(key, {}).items()},
            cells=len(cells),
            comparison=None
            if key[1] == reference
            else _compared(results.parent / "cells", counts, key, reference, places, metric),
        )
        for key, cells in places.items()
    ]


def _compared(
    cells: Path, counts: ProfileCounts, key: tuple[str, str, str, str], reference: str, places: dict, metric: str
) -> Comparison | None:
    other = (key[0], reference, *key[2:])
    if other not in places:
        return None
    ours, theirs = scored(cells, key, places[key]), scored(cells, other, places[other])
    if ours is None or theirs is None:
        differences = counts.differences(key, places[key], other, places[other]) if metric == "accuracy" else None
        return None if differences is None else compare_sums(*differences)
    correct, correct_reference, profile = paired(ours, theirs)
    if not len(profile):
        return None
    if metric == "accuracy":
        return compare(correct, correct_reference, profile)
    counts, counts_reference, classes, n_clips = profile_counts(ours, theirs)
    function = counted_metric(metric, classes)
    if function is None or not counts.size:  # no fold and seed in common
        return None
    comparison = compare_counts(counts, counts_reference, function, n_clips)
    return None if math.isnan(comparison.difference) else comparison


def summary_table(found: Sequence[Summary], metrics: Sequence[str], reference: str) -> list[list[str]]:
    """Header and rows of text: figures as mean ± deviation, the difference with interval and p."""
    named = len({summary.dataset for summary in found}) > 1
    subsets = len({summary.subset for summary in found}) > 1
    header = [
        *(["data set"] if named else []),
        "variant",
        *(["subset"] if subsets else []),
        "protocol",
        *metrics,
        "cells",
        f"{compared_metric(metrics)} − {reference}",
        "95 % interval",
        "p",
        "profiles",
    ]
    table = [header]
    for summary in found:
        row = [
            *([summary.dataset] if named else []),
            summary.variant,
            *([summary.subset] if subsets else []),
            summary.protocol,
            *(figure(summary.figures.get(metric)) for metric in metrics),
            str(summary.cells),
        ]
        table.append(row + comparison_fields(summary.comparison))
    return table


def figure(value: tuple[float, float] | None) -> str:
    """``.853 ± .012``; without a deviation where there is one value, ``–`` where there is none."""
    if value is None:
        return "–"
    mean, deviation = value
    return _short(mean) if deviation != deviation else f"{_short(mean)} ± {_short(deviation)}"


def comparison_fields(comparison: Comparison | None) -> list[str]:
    """Difference, interval, p (``*``: all sign patterns) and number of profiles."""
    if comparison is None:
        return ["", "", "", ""]
    interval = "–" if comparison.low != comparison.low else f"{comparison.low:+.3f} … {comparison.high:+.3f}"
    p = "< .001" if comparison.p < 0.001 else f"{comparison.p:.3f}".lstrip("0")
    return [
        f"{comparison.difference:+.3f}",
        interval,
        ("1.000" if comparison.p == 1 else p) + ("*" if comparison.exact else ""),
        str(comparison.profiles),
    ]


def _short(value: float) -> str:
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text


def summary_lines(results: Path, reference: str, metrics: Sequence[str]) -> list[str]:
    """The table for a terminal, and what its columns mean."""
    table = summary_table(summaries(results, reference, compared_metric(metrics)), metrics, reference)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["  ".join(field.ljust(width) for field, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return [*lines, *NOTES.splitlines()]


NOTES = """\
mean ± standard deviation over folds and seeds; difference on the same clips of all folds, seeds averaged first, with
the 95 % interval of a bootstrap over profiles (10,000 resamples) and p of a sign-flip test over profiles (* exact:
with fewer than 20 profiles the bootstrap's interval is too narrow)."""
