"""A table's rows compared with a reference by a paired test, and printed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairseq_neupronet.benchmark.by_profile import ProfileCounts
from fairseq_neupronet.benchmark.results import SUMMARY_COLUMNS, Row, read_table, summary_row, write_rows
from fairseq_neupronet.benchmark.statistics import (
    Comparison,
    bootstrap_interval,
    compare_counts,
    compare_sums,
    counted_metric,
)

_TESTED = ("accuracy", "macro_f1", "icbhi_score")


@dataclass(frozen=True)
class Summary:
    """A row of a table and its test.

    Attributes:
        row: the variant under its protocol.
        comparison: of its tested metric with the reference's; None for the reference itself, where predictions are
            missing and where the metric is not defined for these clips and classes.
        n_counted: of how many trainings of the row, or of the reference's where these are fewer, there are counts.
    """

    row: Row
    comparison: Comparison | None
    n_counted: int


def compared_metric(metrics: Sequence[str]) -> str:
    """The metric of the paired test: the first of a table's, or accuracy where that one cannot be tested."""
    return metrics[0] if metrics and metrics[0] in _TESTED else _TESTED[0]


def summaries(table: Sequence[Row], counts: ProfileCounts, reference: str, metric: str = _TESTED[0]) -> list[Summary]:
    """Compare every row with the reference's under the same data set, subset and protocol.

    Args:
        table: of :func:`read_table`.
        counts: of its trainings.
        reference: the variant to compare with.
        metric: of the paired test.

    Raises:
        InputError: a file of predictions is damaged.
    """
    rows = {row.key: row for row in table}
    found = []
    for row in table:
        other = rows.get((row.key[0], reference, *row.key[2:]))
        comparison = None if other is None or other is row else _compared(counts, row, other, metric)
        n_counted = min(len(counts.counted(one)) for one in (row, other or row))
        found.append(Summary(row, comparison, n_counted))
    return found


def _compared(counts: ProfileCounts, row: Row, other: Row, metric: str) -> Comparison | None:
    differences = counts.differences(row, other)
    if differences is None or metric == "accuracy":
        return None if differences is None else compare_sums(*differences)
    confusions = counts.confusions(row, other)
    function = None if confusions is None else counted_metric(metric, confusions[2])
    if function is None:
        return None
    comparison = compare_counts(*confusions[:2], function, int(differences[1].sum()))
    return None if math.isnan(comparison.difference) else comparison


def write_summary(path: Path, table: Sequence[Row], counts: ProfileCounts) -> None:
    """Write ``summary.csv``: a line a variant, protocol, control and metric.

    An accuracy has its 95 % interval of a bootstrap over profiles where every training was counted.

    Raises:
        InputError: the file cannot be written.
    """
    lines = []
    for row in table:
        whole = counts.sums(row)
        for metric in row.figures:
            interval = ("", "")
            if metric == "accuracy" and whole is not None and len(whole[0]) > 1:
                low, high = bootstrap_interval(*whole)
                interval = f"{low:.4f}", f"{high:.4f}"
            lines.append(summary_row(row, metric, "" if whole is None else str(whole[1].sum()), interval))
    write_rows(path, SUMMARY_COLUMNS, lines)


def summary_table(found: Sequence[Summary], metrics: Sequence[str], reference: str) -> list[list[str]]:
    """Header and rows of text: figures as mean ± deviation, the difference with interval and p."""
    rows = [summary.row for summary in found]
    named, subsets = (len({row.key[axis] for row in rows}) > 1 for axis in (0, 2))
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
        dataset, variant, subset, protocol = summary.row.key
        row = [
            *([dataset] if named else []),
            variant,
            *([subset] if subsets else []),
            protocol,
            *(figure(summary.row.figures.get(metric)) for metric in metrics),
            str(len(summary.row.trainings)),
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
    # A mean that ends in 5 is not exact in binary: to nine digits, as summary.csv holds it, it is rounded the same way.
    text = f"{round(value, 9):.3f}"
    return text[1:] if text.startswith("0.") else text


def summary_lines(results: Path, reference: str, metrics: Sequence[str]) -> list[str]:
    """The table for a terminal, and what its columns mean."""
    found = summaries(read_table(results), ProfileCounts(results), reference, compared_metric(metrics))
    table = summary_table(found, metrics, reference)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["  ".join(field.ljust(width) for field, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return [*lines, *NOTES.splitlines()]


NOTES = """\
mean ± standard deviation over folds and seeds; difference on the same clips of all folds, seeds averaged first, with
the 95 % interval of a bootstrap over profiles (10,000 resamples) and p of a sign-flip test over profiles (* exact:
with fewer than 20 profiles the bootstrap's interval is too narrow)."""
