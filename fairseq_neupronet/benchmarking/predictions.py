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
    """

    clips: list[tuple[str, str]]
    profile: np.ndarray
    correct: np.ndarray


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
    right, profiles = {}, {}
    for fold, seed in places:
        path = evaluation_folder(cells, key, fold, seed) / "predictions.tsv"
        if not path.is_file():
            return None
        for clip, profile, correct in read_predictions(path):
            right.setdefault((fold, clip), []).append(correct)
            # Profiles are clusters over folds too: some recordings of UrbanSound8K lie in two.
            profiles[fold, clip] = profile or f"\t{fold}\t{clip}"
    clips = sorted(right)
    correct = [np.mean(right[clip]) for clip in clips]
    return Scored(clips, np.array([profiles[clip] for clip in clips]), np.array(correct))


@lru_cache(maxsize=512)
def read_predictions(path: Path) -> list[tuple[str, str, bool]]:
    """Clip, profile, and whether the prediction is the target.

    Raises:
        InputError: not a table of predictions.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or not lines[0].startswith("path\tprofile\ttarget\tprediction"):
        raise InputError(f"{path}: is no predictions.tsv; run the cell again")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t", 4)
        if len(fields) < 4:
            raise InputError(f"{path}:{number}: has {len(fields)} fields of at least 4; run the cell again")
        rows.append((fields[0], fields[1], fields[2] == fields[3]))
    return rows


def paired(ours: Scored, theirs: Scored) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correctness of both (N,), (N,) and profiles (N,) of the clips that both have predictions for."""
    place = {clip: number for number, clip in enumerate(theirs.clips)}
    kept = [number for number, clip in enumerate(ours.clips) if clip in place]
    others = [place[ours.clips[number]] for number in kept]
    return ours.correct[kept], theirs.correct[others], ours.profile[kept]


def confusion(cells: Path, key: tuple[str, str, str, str], places: Iterable[tuple[str, str]]):
    """Sum of the cells' confusion matrices, (K, K) rows targets, and the class names; None where one is missing."""
    total, classes = None, None
    for fold, seed in places:
        path = evaluation_folder(cells, key, fold, seed) / "metrics.json"
        if not path.is_file():
            return None
        summary = json.loads(path.read_text(encoding="utf-8"))
        matrix = np.array(summary["confusion"])
        if classes is not None and classes != summary["classes"]:
            raise InputError(f"{path}: has other classes than the other cells of {key[1]}; run the cell again")
        total, classes = matrix if total is None else total + matrix, summary["classes"]
    return None if total is None else (total, classes)
