"""What each clip was predicted as, in the cells beside a ``results.csv``."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from fairseq_neupronet.errors import InputError


@dataclass(frozen=True)
class Scored:
    """The clips of one variant under one protocol, over folds and seeds.

    Attributes:
        clips: N (fold, path).
        profile: (N,) names; a clip without one is a profile of its own.
        correct: (N,) share of the seeds whose prediction is right.
        labels: for each clip, seed → (target, prediction).
    """

    clips: list[tuple[str, str]]
    profile: np.ndarray
    correct: np.ndarray
    labels: list[dict[str, tuple[str, str]]]


def evaluation_folder(cells: Path, key: tuple[str, str, str, str], fold: str, seed: str) -> Path:
    """Where a cell keeps the evaluation of a row of the table; ``variant+control`` is of the variant's cell.

    Args:
        cells: the folder ``cells`` of a benchmark.
        key: data set, variant, subset, protocol.
        fold, seed: of the cell.
    """
    dataset, variant, subset, protocol = key
    model, _, control = variant.partition("+")
    folder = cells / dataset / model / f"fold-{fold}" / f"seed-{seed}" / "evaluation" / subset
    return folder / (f"{protocol}+{control}" if control else protocol)


def scored(cells: Path, key: tuple[str, str, str, str], places: Iterable[tuple[str, str]]) -> Scored | None:
    """Read the predictions of a row of the table.

    Args:
        cells: the folder ``cells`` of a benchmark.
        key: data set, variant, subset, protocol.
        places: (fold, seed) of its cells.

    Returns:
        None where any of them has no predictions.
    """
    labels, profiles = {}, {}
    for fold, seed in places:
        path = evaluation_folder(cells, key, fold, seed) / "predictions.tsv"
        if not path.is_file():
            return None
        for clip, profile, target, prediction in read_predictions(path):
            labels.setdefault((fold, clip), {})[seed] = target, prediction
            # Profiles are clusters over folds too: some recordings of UrbanSound8K lie in two.
            profiles[fold, clip] = profile or f"\t{fold}\t{clip}"
    clips = sorted(labels)
    correct = [np.mean([target == prediction for target, prediction in labels[clip].values()]) for clip in clips]
    return Scored(
        clips, np.array([profiles[clip] for clip in clips]), np.array(correct), [labels[clip] for clip in clips]
    )


@lru_cache(maxsize=512)
def read_predictions(path: Path) -> list[tuple[str, str, str, str]]:
    """Clip, profile, target and prediction of each line.

    Raises:
        InputError: not a table of predictions.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except ValueError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error}); run the cell again") from None
    lines = lines[:-1] if not lines[-1] else lines
    if not lines or not lines[0].startswith("path\tprofile\ttarget\tprediction"):
        raise InputError(f"{path}: is no predictions.tsv; run the cell again")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t", 4)
        if len(fields) < 4:
            raise InputError(f"{path}:{number}: has {len(fields)} fields of at least 4; run the cell again")
        rows.append(tuple(fields[:4]))
    return rows


def paired(ours: Scored, theirs: Scored) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correctness of both (N,), (N,) and profiles (N,) of the clips that both have predictions for."""
    kept, others = _shared(ours, theirs)
    return ours.correct[kept], theirs.correct[others], ours.profile[kept]


def profile_counts(ours: Scored, theirs: Scored) -> tuple[np.ndarray, np.ndarray, list[str], int]:
    """Confusion counts of both for each profile in each training, over the clips that both have predictions for.

    Returns:
        Counts (P, S, K, K) and (P, S, K, K), S the folds and seeds that both have; the K classes; the number of clips.
    """
    kept, others = _shared(ours, theirs)
    pairs = [(ours.labels[one], theirs.labels[other]) for one, other in zip(kept, others, strict=True)]
    classes = sorted({label for both in pairs for labels in both for found in labels.values() for label in found})
    place = {name: number for number, name in enumerate(classes)}
    trainings = sorted(
        {
            (ours.clips[number][0], seed)
            for number, (mine, yours) in zip(kept, pairs, strict=True)
            for seed in mine.keys() & yours.keys()
        }
    )
    column = {training: number for number, training in enumerate(trainings)}
    names, codes = np.unique(ours.profile[kept], return_inverse=True)
    counts = np.zeros((2, len(names), len(trainings), len(classes), len(classes)))
    for code, number, both in zip(codes, kept, pairs, strict=True):
        for seed in both[0].keys() & both[1].keys():
            for side, labels in enumerate(both):
                target, prediction = labels[seed]
                counts[side, code, column[ours.clips[number][0], seed], place[target], place[prediction]] += 1
    return counts[0], counts[1], classes, len(kept)


def _shared(ours: Scored, theirs: Scored) -> tuple[list[int], list[int]]:
    """Places of the clips that both have, in the one and in the other."""
    place = {clip: number for number, clip in enumerate(theirs.clips)}
    kept = [number for number, clip in enumerate(ours.clips) if clip in place]
    return kept, [place[ours.clips[number]] for number in kept]


def confusion(cells: Path, key: tuple[str, str, str, str], places: Iterable[tuple[str, str]]):
    """Sum of the cells' confusion matrices, (K, K) rows targets, and the class names; None where one is missing."""
    total, classes = None, None
    for fold, seed in places:
        path = evaluation_folder(cells, key, fold, seed) / "metrics.json"
        if not path.is_file():
            return None
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            matrix = np.array(summary["confusion"])
            sound = matrix.dtype.kind == "i" and matrix.shape == (len(summary["classes"]),) * 2
        except (ValueError, KeyError, TypeError, RecursionError):
            sound = False
        if not sound:
            raise InputError(f"{path}: is no metrics.json of an evaluation, or damaged; run the cell again")
        if classes is not None and classes != summary["classes"]:
            raise InputError(f"{path}: has other classes than the other cells of {key[1]}; run the cell again")
        total, classes = matrix if total is None else total + matrix, summary["classes"]
    return None if total is None else (total, classes)
