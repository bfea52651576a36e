"""``results.csv``: the rows of all finished cells, in the order of the plan."""

import csv
from collections.abc import Iterable
from pathlib import Path

from fairseq_neupronet.benchmark.cell_folder import CellFolder
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file, require_regular

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
_EVALUATED = {"subset", "protocol", "control", "metric", "value"}


def write_cell_rows(folder: CellFolder, digest: str, version: str, seconds: float) -> None:
    """Turn the evaluation's ``results.csv`` into the cell's own rows; a control joins the variant's name with ``+``.

    Raises:
        InputError: the evaluation left no such file, or another one.
    """
    cell = folder.cell
    common = {
        "dataset": cell.dataset,
        "fold": cell.fold,
        "seed": cell.seed,
        "config_hash": digest,
        "version": version,
        "seconds": f"{seconds:.1f}",
    }
    rows = []
    for row in read_rows(folder.evaluation / "results.csv", _EVALUATED):
        variant = f"{cell.variant}+{row['control']}" if row["control"] else cell.variant
        figure = {key: row[key] for key in ("subset", "protocol", "metric", "value")}
        rows.append(common | {"variant": variant} | figure)
    _write(folder.results, rows)


def collect(folders: Iterable[CellFolder], path: Path) -> list[dict[str, str]]:
    """Join the rows of cells into one table; returns them."""
    rows = [row for folder in folders for row in read_rows(folder.results, set(COLUMNS))]
    _write(path, rows)
    return rows


def read_rows(path: Path, columns: set[str] = frozenset(COLUMNS)) -> list[dict[str, str]]:
    """Read a table.

    Raises:
        InputError: no such file, or columns are missing.
    """
    require_regular(path, "a results.csv")
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            lines, rows = [], []
            for row in reader:
                lines.append(reader.line_num)
                rows.append(row)
            names = set(reader.fieldnames or ())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); run the benchmark that writes it"
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no table of results ({error}); run the benchmark again") from error
    if missing := sorted(columns - names):
        raise InputError(f"{path}: has no column {missing[0]!r}; it is not a results.csv of neupronet benchmark")
    for number, row in zip(lines, rows, strict=True):
        if None in row or None in row.values():
            raise InputError(f"{path}:{number}: has not as many fields as line 1; run the benchmark again")
        for column in {"value", "seconds"} & columns:
            empty = ("", "None") if column == "value" else ("",)
            if row[column] not in empty and not _is_number(row[column]):
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


def _write(path: Path, rows: list[dict]) -> None:
    with atomic_file(path) as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
