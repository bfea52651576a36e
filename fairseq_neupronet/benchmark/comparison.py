"""A table of results: its rows compared with a reference by a paired test, and printed."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from urllib.parse import quote

from fairseq_neupronet.benchmark.by_profile import ProfileCounts
from fairseq_neupronet.benchmark.results import SUMMARY_COLUMNS, Key, Row, read_table, write_rows
from fairseq_neupronet.benchmark.statistics import (
    Comparison,
    bootstrap_interval,
    compare_counts,
    compare_sums,
    counted_metric,
)
from fairseq_neupronet.errors import InputError

_TESTED = ("accuracy", "macro_f1", "icbhi_score")
_ENROLLED = re.compile(r"enrol-(\d+)")


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


@dataclass(frozen=True)
class Source:
    """A ``results.csv`` with its cells or its ``by_profile.csv.gz``, or a ``summary.csv`` with the latter.

    Attributes:
        path: the table.
        table: its rows.
        reference: the variant that others are compared with.
        metric: of the paired test.
    """

    path: Path
    table: list[Row]
    reference: str
    metric: str = "accuracy"

    @classmethod
    def open(cls, path: str | Path, reference: str | None = None, metric: str = "accuracy") -> "Source":
        """Read a table.

        Raises:
            InputError: no such table, an empty one, or one without the reference.
        """
        path = Path(path)
        table = read_table(path, cache(lambda *names: _config_text(path.parent.joinpath("cells", *names))))
        if not table:
            raise InputError(f"{path}: has no rows; let neupronet benchmark finish a cell first")
        variants = list(dict.fromkeys(row.key[1] for row in table))
        if reference is not None and reference not in variants:
            raise InputError(
                f"--reference {reference}: there is no such variant in {path}; known are {', '.join(variants)}"
            )
        return cls(path, table, reference or ("base" if "base" in variants else variants[0]), metric)

    @cached_property
    def rows(self) -> dict[Key, Row]:
        return {row.key: row for row in self.table}

    @property
    def cells(self) -> Path:
        return self.path.parent / "cells"

    @cached_property
    def counts(self) -> ProfileCounts:
        return ProfileCounts(self.path)

    @cached_property
    def summaries(self) -> list[Summary]:
        return summaries(self.table, self.counts, self.reference, self.metric)

    @cached_property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(key[0] for key in self.rows))

    def subset(self, dataset: str) -> str:
        """The subset that figures show: test where there is one."""
        subsets = list(dict.fromkeys(key[2] for key in self.rows if key[0] == dataset))
        return "test" if "test" in subsets else subsets[0]

    def protocols(self, dataset: str) -> list[str]:
        """From the fewest clips in a group to the most."""
        subset = self.subset(dataset)
        found = dict.fromkeys(key[3] for key in self.rows if key[0] == dataset and key[2] == subset)
        return sorted(found, key=group_size)

    def models(self, dataset: str) -> list[str]:
        """Trained variants, without the controls of their outputs."""
        return list(dict.fromkeys(key[1] for key in self.rows if key[0] == dataset and "+" not in key[1]))


def _config_text(variant: Path) -> str:
    """The recipe and the overrides of a variant's first cell, as its ``cell.json`` names them."""
    for path in sorted(variant.glob("*/*/cell.json")):
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            return " ".join([state["recipe"], *state["overrides"]])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return ""


def group_size(protocol: str) -> tuple[int, str]:
    """Sorts protocols by how many clips a group has at most."""
    if match := _ENROLLED.fullmatch(protocol):
        return int(match[1]), protocol
    return {"single": 0, "full": 1_000_000}.get(protocol, 500_000), protocol


def write_summary(path: Path, table: Sequence[Row], counts: ProfileCounts) -> None:
    """Write ``summary.csv``: a line a variant, protocol, control and metric.

    An accuracy has its 95 % interval of a bootstrap over profiles where every training was counted.

    Raises:
        InputError: the file cannot be written.
    """
    lines = []
    for row in table:
        variant, _, control = row.key[1].partition("+")
        folds, seeds = ({training[axis] for training in row.trainings} for axis in (0, 1))
        trainings = " ".join(f"{quote(fold, safe='')}:{seed}" for fold, seed in row.trainings)
        whole = counts.sums(row)
        n_clips = "" if whole is None else whole[1].sum()
        for metric, (mean, deviation) in row.figures.items():
            interval = ("", "")
            if metric == "accuracy" and whole is not None and len(whole[0]) > 1:
                interval = [f"{end:.4f}" for end in bootstrap_interval(*whole)]
            fields = (
                *(row.key[0], variant, control, *row.key[2:], metric),
                *(f"{mean:.9g}", "" if math.isnan(deviation) else f"{deviation:.9g}"),
                *(len(folds), len(seeds), trainings, n_clips, *interval),
                *(f"{row.hours:.3g}", " ".join(row.versions), row.config),
            )
            lines.append(dict(zip(SUMMARY_COLUMNS, fields, strict=True)))
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
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(field.ljust(width) for field, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return [*lines, *NOTES.splitlines()]


NOTES = """\
mean ± standard deviation over folds and seeds; difference on the same clips of all folds, seeds averaged first, with
the 95 % interval of a bootstrap over profiles (10,000 resamples) and p of a sign-flip test over profiles (* exact:
with fewer than 20 profiles the bootstrap's interval is too narrow)."""
