"""What a report is made of: the table, and what stands in the cells beside it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml

from fairseq_neupronet.benchmark.comparison import Summary, places_of, summaries
from fairseq_neupronet.benchmark.predictions import Scored, confusion, evaluation_folder, scored
from fairseq_neupronet.benchmark.results import read_rows
from fairseq_neupronet.data.npz import read_npz
from fairseq_neupronet.errors import InputError

_ENROLLED = re.compile(r"enrol-(\d+)")


@dataclass(frozen=True)
class Source:
    """A ``results.csv`` and its cells.

    Attributes:
        results: the table.
        reference: the variant that others are compared with.
        metric: of the paired test.
    """

    results: Path
    reference: str
    metric: str = "accuracy"

    @classmethod
    def open(cls, results: str | Path, reference: str | None = None, metric: str = "accuracy") -> "Source":
        """Read a table.

        Raises:
            InputError: no such table, an empty one, or one without the reference.
        """
        results = Path(results)
        rows = read_rows(results)
        if not rows:
            raise InputError(f"{results}: has no rows; let neupronet benchmark finish a cell first")
        variants = list(dict.fromkeys(row["variant"] for row in rows))
        if reference is not None and reference not in variants:
            raise InputError(
                f"--reference {reference}: there is no such variant in {results}; known are {', '.join(variants)}"
            )
        return cls(results, reference or ("base" if "base" in variants else variants[0]), metric)

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        return read_rows(self.results)

    @cached_property
    def places(self) -> dict[tuple[str, str, str, str], list[tuple[str, str]]]:
        return places_of(self.rows)

    @cached_property
    def summaries(self) -> list[Summary]:
        return summaries(self.results, self.reference, self.metric)

    @property
    def cells(self) -> Path:
        return self.results.parent / "cells"

    @cached_property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(key[0] for key in self.places))

    def subset(self, dataset: str) -> str:
        """The subset that figures show: test where there is one."""
        subsets = list(dict.fromkeys(key[2] for key in self.places if key[0] == dataset))
        return "test" if "test" in subsets else subsets[0]

    def protocols(self, dataset: str) -> list[str]:
        """From the fewest clips in a group to the most."""
        subset = self.subset(dataset)
        found = dict.fromkeys(key[3] for key in self.places if key[0] == dataset and key[2] == subset)
        return sorted(found, key=group_size)

    def models(self, dataset: str) -> list[str]:
        """Trained variants, without the controls of their outputs."""
        return list(dict.fromkeys(key[1] for key in self.places if key[0] == dataset and "+" not in key[1]))

    def scored(self, key: tuple[str, str, str, str]) -> Scored | None:
        return scored(self.cells, key, self.places[key]) if key in self.places else None

    def confusion(self, key: tuple[str, str, str, str]):
        return confusion(self.cells, key, self.places[key]) if key in self.places else None

    def embeddings(self, dataset: str, variant: str) -> "Embeddings | None":
        """Of the first cell that has any, under the protocol of the largest groups."""
        for protocol in reversed(self.protocols(dataset)):
            key = (dataset, variant, self.subset(dataset), protocol)
            for fold, seed in self.places.get(key, ()):
                path = evaluation_folder(self.cells, key, fold, seed) / "embeddings.npz"
                if path.is_file():
                    try:
                        arrays = read_npz(path)
                    except ValueError as error:
                        raise InputError(f"{path}: is damaged ({error}); run the cell again") from None
                    arrays.pop("path", None)
                    return Embeddings(
                        f"fold {fold}, seed {seed}, {protocol}",
                        protocol,
                        self._classes(path),
                        arrays,
                        self._config(dataset, variant, fold, seed),
                    )
        return None

    def logs(self, dataset: str, variant: str) -> Iterator[tuple[str, str, Path]]:
        """Fold, seed and log of each cell."""
        seen = {place for key, places in self.places.items() if key[:2] == (dataset, variant) for place in places}
        for fold, seed in sorted(seen):
            log = self.cells / dataset / variant / f"fold-{fold}" / f"seed-{seed}" / "log.txt"
            if log.is_file():
                yield fold, seed, log

    def _config(self, dataset: str, variant: str, fold: str, seed: str) -> dict:
        path = self.cells / dataset / variant / f"fold-{fold}" / f"seed-{seed}" / "config.yaml"
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (yaml.YAMLError, ValueError, RecursionError):
            config = None
        if not isinstance(config, dict):
            raise InputError(f"{path}: is no config of a cell, or damaged; run the cell again")
        return config

    @staticmethod
    def _classes(embeddings: Path) -> list[str]:
        table = embeddings.with_name("predictions.tsv")
        try:
            header = table.read_text(encoding="utf-8").partition("\n")[0]
        except (OSError, ValueError) as error:
            raise InputError(f"{table}: cannot be read ({error}); run the cell again") from error
        return header.split("\t")[4:]


@dataclass(frozen=True)
class Embeddings:
    """Of one cell's clips.

    Attributes:
        where: the cell, in words.
        protocol: under which they were made.
        classes: K names.
        arrays: ``target`` (N,), ``profile_code`` (N,), and of ``clip``, ``profile``, ``fused`` (N, …) those there are.
        config: the cell's recipe.
    """

    where: str
    protocol: str
    classes: list[str]
    arrays: dict[str, np.ndarray]
    config: dict


def group_size(protocol: str) -> tuple[int, str]:
    """Sorts protocols by how many clips a group has at most."""
    if match := _ENROLLED.fullmatch(protocol):
        return int(match[1]), protocol
    return {"single": 0, "full": 1_000_000}.get(protocol, 500_000), protocol
