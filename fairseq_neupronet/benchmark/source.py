"""What a report is made of: the table, the counts by profile, and what is kept in the cells beside it."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from fairseq_neupronet.arrays import read_npz
from fairseq_neupronet.benchmark.by_profile import ProfileCounts, evaluation_folder
from fairseq_neupronet.benchmark.comparison import Summary, summaries
from fairseq_neupronet.benchmark.results import Key, Row, read_rows, read_table
from fairseq_neupronet.errors import InputError

_ENROLLED = re.compile(r"enrol-(\d+)")


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

    def embeddings(self, dataset: str, variant: str) -> "Embeddings | None":
        """Of the first cell that has any, under the protocol of the largest groups.

        Raises:
            InputError: a damaged file of them, or none of predictions beside it.
        """
        for protocol in reversed(self.protocols(dataset)):
            key = (dataset, variant, self.subset(dataset), protocol)
            for fold, seed in self.rows[key].trainings if key in self.rows else ():
                folder = evaluation_folder(self.path.parent / "cells", key, (fold, seed))
                path = folder / "embeddings.npz"
                if path.is_file():
                    try:
                        arrays = read_npz(path)
                    except ValueError as error:
                        raise InputError(f"{path}: is damaged ({error}); run the cell again") from None
                    where = f"fold {fold}, seed {seed}, {protocol}"
                    return Embeddings(where, _classes(folder / "predictions.tsv"), arrays)
        return None

    def curves(self, dataset: str, variant: str, columns: Sequence[str]) -> Iterator[dict[str, dict[int, float]]]:
        """Of each cell that has a ``training.csv``: column → epoch → figure; of an epoch's validations the last.

        Raises:
            InputError: a damaged one.
        """
        found = {one for key, row in self.rows.items() if key[:2] == (dataset, variant) for one in row.trainings}
        for training in sorted(found):
            path = self._cell(dataset, variant, training) / "train" / "checkpoints" / "training.csv"
            if path.is_file():
                yield _curves(path, columns)

    def _cell(self, dataset: str, variant: str, training: tuple[str, str]) -> Path:
        return self.path.parent / "cells" / dataset / variant / f"fold-{training[0]}" / f"seed-{training[1]}"


def _curves(path: Path, columns: Sequence[str]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for number, row in enumerate(read_rows(path, {"epoch"}), start=2):
        try:
            for name in columns:
                if row.get(name):
                    found.setdefault(name, {})[int(row["epoch"])] = float(row[name])
        except ValueError:
            raise InputError(f"{path}:{number}: epoch or {name} is no number; run the cell again") from None
    return found


def _config_text(variant: Path) -> str:
    """The recipe and the overrides of a variant's first cell, as its ``cell.json`` names them."""
    for path in sorted(variant.glob("*/*/cell.json")):
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            return " ".join([state["recipe"], *state["overrides"]])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return ""


def _classes(predictions: Path) -> list[str]:
    try:
        header = predictions.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, ValueError) as error:
        raise InputError(f"{predictions}: cannot be read ({error}); run the cell again") from error
    return header.split("\t")[4:]


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


def group_size(protocol: str) -> tuple[int, str]:
    """Sorts protocols by how many clips a group has at most."""
    if match := _ENROLLED.fullmatch(protocol):
        return int(match[1]), protocol
    return {"single": 0, "full": 1_000_000}.get(protocol, 500_000), protocol
