"""How many clips of each profile a training predicts as what: all that the paired tests need of it.

The counts of a cell come from its ``predictions.tsv``. ``by_profile.csv.gz`` beside a table holds those of all cells
and takes their place where the cells are not there. Its columns ``target`` and ``prediction`` are empty where only
right and wrong were counted, which an accuracy needs.

Letters: P profiles, S trainings (a fold and a seed each), K classes.
"""

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fairseq_neupronet.benchmark.results import KEY, Key, Row, Training, read_rows
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file

NAME = "by_profile.csv.gz"
_PLACE = (*KEY, "fold", "seed")
_COUNTED = ("clips", "correct")
_CLASSES = ("target", "prediction")

Counts = dict[str, dict[tuple[str, str], tuple[int, int]]]
"""Of a training: profile → (target, prediction) → clips, and how many of them are right."""


def evaluation_folder(cells: Path, key: Key, training: Training) -> Path:
    """Where a cell keeps the evaluation of a row of the table; ``variant+control`` is of the variant's cell.

    Args:
        cells: the folder ``cells`` of a benchmark.
        key: data set, variant, subset, protocol.
        training: fold and seed.
    """
    dataset, variant, subset, protocol = key
    model, _, control = variant.partition("+")
    folder = cells / dataset / model / f"fold-{training[0]}" / f"seed-{training[1]}" / "evaluation" / subset
    return folder / (f"{protocol}+{control}" if control else protocol)


def count_predictions(path: Path, fold: str) -> Counts:
    """Count a ``predictions.tsv``.

    Args:
        path: the table.
        fold: of the cell; a clip that has no profile is one by itself, named by its fold and path.

    Raises:
        InputError: not a table of predictions.
    """
    counts: Counts = {}
    for row in read_rows(path, {"path", "profile", *_CLASSES}):
        target, prediction = (row[name] for name in _CLASSES)
        # Profiles are clusters over folds too: some recordings of UrbanSound8K lie in two.
        profile = row["profile"] or f"\t{fold}\t{row['path']}"
        _add(counts, profile, (target, prediction), 1, int(target == prediction))
    return counts


def _add(counts: Counts, profile: str, classes: tuple[str, str], clips: int, correct: int) -> None:
    by_class = counts.setdefault(profile, {})
    before = by_class.get(classes, (0, 0))
    by_class[classes] = before[0] + clips, before[1] + correct


def _clips(by_class: dict) -> int:
    return sum(clips for clips, _ in by_class.values())


class ProfileCounts:
    """The counts of all trainings of a table.

    Args:
        table: ``results.csv`` or ``summary.csv``.
        from_file: whether to use ``by_profile.csv.gz`` where a cell has no predictions.

    Raises:
        InputError: that file is damaged. The methods raise it for damaged predictions.
    """

    def __init__(self, table: Path, from_file: bool = True):
        self._cells = table.parent / "cells"
        self._counts: dict[tuple[Key, Training], Counts | None] = {}
        self._stored: dict[tuple[Key, Training], Counts] = {}
        path = table.with_name(NAME)
        if not (from_file and path.is_file()):
            return
        for number, row in enumerate(read_rows(path, {*_PLACE, "profile", *_CLASSES, *_COUNTED}), start=2):
            if not (row["clips"].isdecimal() and row["correct"].isdecimal()):
                raise InputError(
                    f"{path}:{number}: clips and correct have to be whole numbers; run the benchmark again"
                )
            *key, fold, seed = (row[name] for name in _PLACE)
            counts = self._stored.setdefault((tuple(key), (fold, seed)), {})
            classes = row["target"], row["prediction"]
            _add(counts, row["profile"], classes, int(row["clips"]), int(row["correct"]))

    def counted(self, row: Row) -> dict[Training, Counts]:
        """The counts of a row's trainings, of those that have any."""
        found = {training: self._of(row.key, training) for training in row.trainings}
        return {training: counts for training, counts in found.items() if counts is not None}

    def _of(self, key: Key, training: Training) -> Counts | None:
        place = key, training
        if place not in self._counts:
            path = evaluation_folder(self._cells, key, training) / "predictions.tsv"
            self._counts[place] = count_predictions(path, training[0]) if path.is_file() else self._stored.get(place)
        return self._counts[place]

    def sums(self, row: Row) -> tuple[np.ndarray, np.ndarray] | None:
        """How many clips of each profile are right, the mean over seeds, and how many there are: (P,) and (P,).

        None where a training was not counted, or the seeds of a fold were not given the same clips.
        """
        averaged = self._averaged(row) if len(self.counted(row)) == len(row.trainings) else None
        return None if averaged is None else _by_profile(averaged)

    def differences(self, row: Row, other: Row) -> tuple[np.ndarray, np.ndarray] | None:
        """What a row has right more than another by profile, (P,), and the clips, (P,); seeds are averaged first.

        A profile's clips in a fold are paired where both were given as many of them. None where none are, where a fold
        was not counted, and where its seeds were not given the same clips.
        """
        ours, theirs = self._averaged(row), self._averaged(other)
        if ours is None or theirs is None:
            return None
        paired = {
            at: (n, right - theirs[at][1]) for at, (n, right) in ours.items() if at in theirs and theirs[at][0] == n
        }
        return _by_profile(paired) if paired else None

    def _averaged(self, row: Row) -> dict[tuple[str, str], tuple[int, float]] | None:
        """(Fold, profile) → clips, and the mean over the fold's counted seeds of how many are right."""
        by_fold: dict[str, list[Counts]] = {}
        for (fold, _), counts in self.counted(row).items():
            by_fold.setdefault(fold, []).append(counts)
        if by_fold.keys() != {fold for fold, _ in row.trainings}:
            return None
        averaged = {}
        for fold, seeds in by_fold.items():
            clips = [{profile: _clips(by_class) for profile, by_class in counts.items()} for counts in seeds]
            if any(found != clips[0] for found in clips):
                return None
            for profile, n_clips in clips[0].items():
                right = [sum(correct for _, correct in counts[profile].values()) for counts in seeds]
                averaged[fold, profile] = n_clips, float(np.mean(right))
        return averaged

    def confusions(self, row: Row, other: Row) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
        """Confusion counts of both rows by profile, in the trainings and for the clips that both have.

        Returns:
            (P, S, K, K) twice, and the K classes; None where there is nothing in common, or classes were not counted.
        """
        ours, theirs = self.counted(row), self.counted(other)
        cells = []  # training, profile, counts of the one, counts of the other
        for training in sorted(ours.keys() & theirs.keys()):
            for profile in sorted(ours[training].keys() & theirs[training].keys()):
                both = ours[training][profile], theirs[training][profile]
                if _clips(both[0]) == _clips(both[1]):
                    cells.append((training, profile, both))
        classes = sorted({name for _, _, both in cells for one in both for pair in one for name in pair})
        if not cells or "" in classes:
            return None
        trainings, profiles, place = (
            _numbered(names) for names in ((cell[0] for cell in cells), (cell[1] for cell in cells), classes)
        )
        counts = np.zeros((2, len(profiles), len(trainings), len(classes), len(classes)))
        for training, profile, both in cells:
            for side, by_class in enumerate(both):
                for (target, prediction), (clips, _) in by_class.items():
                    counts[side, profiles[profile], trainings[training], place[target], place[prediction]] += clips
        return counts[0], counts[1], classes

    def confusion(self, row: Row) -> tuple[np.ndarray, list[str]] | None:
        """The sum over a row's trainings, (K, K) rows targets, and the classes; None where one has no counts."""
        found = self.confusions(row, row) if len(self.counted(row)) == len(row.trainings) else None
        return None if found is None else (found[0].sum(axis=(0, 1)), found[2])


def _numbered(names: Iterable) -> dict:
    return {name: number for number, name in enumerate(sorted(set(names)))}


def _by_profile(values: dict[tuple[str, str], tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Sums and clips of each profile, over folds."""
    place = _numbered(profile for _, profile in values)
    at = [place[profile] for _, profile in values]
    clips, sums = np.array(list(values.values())).T
    return np.bincount(at, sums), np.bincount(at, clips).astype(np.int64)


def write_by_profile(path: Path, table: Sequence[Row], counts: ProfileCounts) -> None:
    """Write the counts of a table's rows, the same bytes for the same counts; trainings without any are left out.

    Raises:
        InputError: the file cannot be written.
    """
    with (
        atomic_file(path, "wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((*_PLACE, "profile", *_CLASSES, *_COUNTED))
        for row in table:
            for training, found in counts.counted(row).items():
                writer.writerows(
                    (*row.key, *training, profile, *classes, *numbers)
                    for profile, by_class in sorted(found.items())
                    for classes, numbers in sorted(by_class.items())
                )
