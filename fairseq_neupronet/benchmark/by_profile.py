"""``by_profile.csv`` beside a ``results.csv``: how many clips of each profile every cell predicts right.

It is small where predictions are not, and all that the paired test of accuracy needs.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fairseq_neupronet.benchmark.predictions import scored
from fairseq_neupronet.benchmark.results import read_rows
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file

NAME = "by_profile.csv"
_PLACE = ("dataset", "variant", "subset", "protocol", "fold", "seed")
_COLUMNS = (*_PLACE, "profile", "clips", "correct")

Key = tuple[str, str, str, str]
Places = Sequence[tuple[str, str]]


def write_by_profile(results: Path, table: Sequence[dict[str, str]]) -> None:
    """Count the predictions in the cells beside ``results``; rows of its ``table`` without predictions are left out."""
    rows = []
    for place in dict.fromkeys(tuple(row[name] for name in _PLACE) for row in table):
        found = scored(results.parent / "cells", place[:4], [place[4:]])
        if found is not None:
            names, codes = np.unique(found.profile, return_inverse=True)
            correct, clips = np.bincount(codes, weights=found.correct), np.bincount(codes)
            rows += [(*place, *row) for row in zip(names, clips, correct.astype(int), strict=True)]
    with atomic_file(results.with_name(NAME)) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(rows)


class ProfileCounts:
    """The counts of a ``by_profile.csv``: for each row of the table and (fold, seed), profile → (clips, correct)."""

    def __init__(self, counts: dict[Key, dict[tuple[str, str], dict[str, tuple[int, int]]]]):
        self._counts = counts

    @classmethod
    def beside(cls, results: Path) -> "ProfileCounts":
        """Read the counts beside a ``results.csv``; none where there is no such file.

        Raises:
            InputError: the file is damaged.
        """
        path, counts = results.with_name(NAME), {}
        for number, row in enumerate(read_rows(path, set(_COLUMNS)) if path.exists() else (), start=2):
            place = tuple(row[name] for name in _PLACE)
            if not (row["clips"].isdecimal() and row["correct"].isdecimal()):
                raise InputError(
                    f"{path}:{number}: clips and correct have to be whole numbers; run the benchmark again"
                )
            by_profile = counts.setdefault(place[:4], {}).setdefault(place[4:], {})
            by_profile[row["profile"]] = int(row["clips"]), int(row["correct"])
        return cls(counts)

    def differences(self, key: Key, places: Places, other: Key, other_places: Places):
        """What one row of the table has right more than another, the seeds of each averaged first.

        Returns:
            Sums (P,) and numbers of clips (P,) by profile; None where a cell of either was not counted, or they were
            not given the same clips.
        """
        ours, theirs = self._averaged(key, places), self._averaged(other, other_places)
        if (
            not ours
            or not theirs
            or {at: clips for at, (clips, _) in ours.items()} != {at: clips for at, (clips, _) in theirs.items()}
        ):
            return None
        sums, n_clips = {}, {}
        for (_, profile), (clips, correct) in ours.items():
            sums[profile] = sums.get(profile, 0.0) + correct
            n_clips[profile] = n_clips.get(profile, 0) + clips
        for (_, profile), (_, correct) in theirs.items():
            sums[profile] -= correct
        names = sorted(sums)
        return np.array([sums[name] for name in names]), np.array([n_clips[name] for name in names])

    def _averaged(self, key: Key, places: Places) -> dict[tuple[str, str], tuple[int, float]] | None:
        """(Fold, profile) → clips and the mean over seeds of how many are right; None where a cell lacks."""
        by_seed, n_seeds = {}, Counter(fold for fold, _ in places)
        for fold, seed in places:
            for profile, counts in self._counts.get(key, {}).get((fold, seed), {}).items():
                by_seed.setdefault((fold, profile), []).append(counts)
        complete = {fold for fold, _ in by_seed} == set(n_seeds) and all(
            len(counts) == n_seeds[fold] and len({clips for clips, _ in counts}) == 1
            for (fold, _), counts in by_seed.items()
        )
        if not complete:
            return None
        return {
            at: (counts[0][0], float(np.mean([correct for _, correct in counts]))) for at, counts in by_seed.items()
        }
