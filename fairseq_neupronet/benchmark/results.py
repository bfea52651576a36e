"""The tables of a benchmark: ``results.csv``, a row a training and figure, and ``summary.csv``, their means."""

import csv
import gzip
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from fairseq_neupronet.benchmark.cell_folder import CellFolder, version
from fairseq_neupronet.benchmark.statistics import mean_and_deviation
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file, require_regular

Key = tuple[str, str, str, str]
Training = tuple[str, str]
KEY = ("dataset", "variant", "subset", "protocol")
COLUMNS = (
    "dataset",
    "variant",
    "fold",
    "seed",
    "subset",
    "protocol",
    "metric",
    "value",
    "config_hash",
    "version",
    "seconds",
)
SUMMARY_COLUMNS = (
    "dataset",
    "variant",
    "control",
    "subset",
    "protocol",
    "metric",
    "mean",
    "deviation",
    "folds",
    "seeds",
    "trainings",
    "clips",
    "low",
    "high",
    "hours",
    "version",
    "config",
)
_EVALUATED = {"subset", "protocol", "control", "metric", "value"}
_NUMBERS = {"value": ("", "None"), "seconds": ("",), "mean": (), "deviation": ("",), "hours": ("",)}  # and no number


@dataclass
class Row:
    """A variant under a protocol.

    Attributes:
        key: data set, variant (``variant+control`` for a control of its outputs), subset, protocol.
        trainings: (fold, seed) of each.
        figures: metric → (mean, standard deviation) over folds and seeds; see :func:`mean_and_deviation`. A metric that
            is never defined has none.
        hours: of all trainings with their evaluations.
        versions: of the code that made them.
        config: the recipe and its overrides; empty where they are not known.
    """

    key: Key
    trainings: list[Training]
    figures: dict[str, tuple[float, float]]
    hours: float
    versions: list[str]
    config: str = ""


def write_cell_rows(folder: CellFolder, seconds: float) -> None:
    """Turn the evaluation's ``results.csv`` into the cell's own rows; a control joins the variant's name with ``+``.

    Raises:
        InputError: the evaluation left no such file, or another one.
    """
    cell = folder.cell
    common = {
        "dataset": cell.dataset,
        "fold": cell.fold,
        "seed": cell.seed,
        "config_hash": folder.digest,
        "version": version(),
        "seconds": f"{seconds:.1f}",
    }
    rows = []
    for row in read_rows(folder.evaluation / "results.csv", _EVALUATED):
        variant = f"{cell.variant}+{row['control']}" if row["control"] else cell.variant
        figure = {key: row[key] for key in ("subset", "protocol", "metric", "value")}
        rows.append(common | {"variant": variant} | figure)
    write_rows(folder.results, COLUMNS, rows)


def collect(folders: Iterable[CellFolder], path: Path) -> int:
    """Join the rows of cells into one table; returns how many there are."""
    rows = [row for folder in folders for row in read_rows(folder.results, set(COLUMNS))]
    write_rows(path, COLUMNS, rows)
    return len(rows)


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[dict]) -> None:
    """Write a table.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_file(path) as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path, columns: set[str]) -> list[dict[str, str]]:
    """Read a table, which is compressed where its name ends in ``.gz``, and has tabs and no quotes in ``.tsv``.

    Args:
        path: the file.
        columns: those that it must have.

    Raises:
        InputError: no such file, columns are missing, or a field is no number where there must be one.
    """
    require_regular(path, f"a {path.name}")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as file:
            form = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {}
            reader = csv.DictReader(file, **form)
            lines, rows = [], []
            for row in reader:
                lines.append(reader.line_num)
                rows.append(row)
            names = set(reader.fieldnames or ())
    except (csv.Error, UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: is no table of results ({error}); run the benchmark again") from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); run the benchmark that writes it"
        ) from error
    if missing := sorted(columns - names):
        raise InputError(f"{path}: has no column {missing[0]!r}; it is not a {path.name} of neupronet benchmark")
    for number, row in zip(lines, rows, strict=True):
        if None in row or None in row.values():
            raise InputError(f"{path}:{number}: has not as many fields as line 1; run the benchmark again")
        for column in _NUMBERS.keys() & columns:
            if row[column] not in _NUMBERS[column] and not _is_number(row[column]):
                raise InputError(
                    f"{path}:{number}: {column} is {row[column]!r}, which is no number; run the benchmark again"
                )
    return rows


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_table(path: Path, config_of=lambda dataset, variant: "") -> list[Row]:
    """Read a ``results.csv`` or a ``summary.csv``, each known by its columns, in the order of the file.

    Args:
        path: the file.
        config_of: (data set, variant) → what :attr:`Row.config` says, for a ``results.csv``.

    Raises:
        InputError: it is neither, or damaged.
    """
    rows = read_rows(path, set())
    if rows and {"mean", "trainings"} <= rows[0].keys():
        return _of_summary(read_rows(path, set(SUMMARY_COLUMNS)))
    return _of_results(read_rows(path, set(COLUMNS)), config_of)


def _of_results(rows: list[dict[str, str]], config_of) -> list[Row]:
    found: dict[Key, list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in KEY), []).append(row)
    table = []
    for key, group in found.items():
        trainings = {(row["fold"], row["seed"]): float(row["seconds"] or 0) for row in group}
        values: dict[str, dict[str, list[float]]] = {}
        for row in group:
            if row["value"] not in ("", "nan", "None"):
                values.setdefault(row["metric"], {}).setdefault(row["fold"], []).append(float(row["value"]))
        figures = {metric: mean_and_deviation(by_fold.values()) for metric, by_fold in values.items()}
        versions = list(dict.fromkeys(row["version"] for row in group))
        config = config_of(key[0], key[1].partition("+")[0])
        table.append(Row(key, list(trainings), figures, sum(trainings.values()) / 3600, versions, config))
    return table


def _of_summary(rows: list[dict[str, str]]) -> list[Row]:
    table: dict[Key, Row] = {}
    for row in rows:
        variant = f"{row['variant']}+{row['control']}" if row["control"] else row["variant"]
        key = row["dataset"], variant, row["subset"], row["protocol"]
        if key not in table:
            trainings = [tuple(map(unquote, training.partition(":")[::2])) for training in row["trainings"].split()]
            table[key] = Row(key, trainings, {}, float(row["hours"] or 0), row["version"].split(), row["config"])
        table[key].figures[row["metric"]] = float(row["mean"]), float(row["deviation"] or "nan")
    return list(table.values())
