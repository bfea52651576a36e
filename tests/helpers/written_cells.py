"""Cells of a benchmark with made-up predictions, as if trainings and evaluations had written them."""

import json
from pathlib import Path

import numpy as np

from fairseq_neupronet.benchmark.results import COLUMNS

CLASSES = ("cough", "laughter", "sigh", "sniff")
PROTOCOLS = {"single": 0.0, "enrol-1": 0.2, "enrol-3": 0.5, "full": 1.0}  # share of a variant's gain
TRAINING = """\
epoch,updates,train_loss,train_accuracy,valid_loss,valid_accuracy
1,10,1.0,0.2,0.9,0.3
1,20,0.9,0.3,0.8,0.4
2,40,0.5,0.6,0.6,0.7
"""


def write_cells(
    out: Path,
    variants: dict[str, float],
    n_profiles: int = 24,
    clips: int = 12,
    folds=(1, 2),
    seeds=(1, 2),
    embeddings: bool = True,
) -> Path:
    """Write ``results.csv`` and its cells.

    Args:
        out: the benchmark's folder.
        variants: name → accuracy gained over .7 where the group is whole.
    """
    rng = np.random.default_rng(0)
    lines = [",".join(COLUMNS)]
    for variant, gain in variants.items():
        model, _, control = variant.partition("+")
        for fold in folds:
            for seed in seeds:
                cell = out / "cells" / "sounds" / model / f"fold-{fold}" / f"seed-{seed}"
                for protocol, share in PROTOCOLS.items():
                    folder = cell / "evaluation" / "test" / (f"{protocol}+{control}" if control else protocol)
                    accuracy = _write_evaluation(folder, rng, 0.7 + gain * share, n_profiles, clips, fold)
                    lines.append(f"sounds,{variant},{fold},{seed},test,{protocol},accuracy,{accuracy},abc,0.1.0,60.0")
                if not control:
                    (cell / "train" / "checkpoints").mkdir(parents=True)
                    (cell / "train" / "checkpoints" / "training.csv").write_text(TRAINING, encoding="utf-8")
    if embeddings:
        for variant in variants:
            if "+" not in variant:
                cell = out / "cells" / "sounds" / variant / f"fold-{folds[0]}" / f"seed-{seeds[0]}"
                folder = cell / "evaluation" / "test" / "full"
                _write_embeddings(folder, rng, n_profiles, clips, profiling=variant != "base")
    (out / "results.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return out / "results.csv"


def _write_evaluation(folder: Path, rng, accuracy: float, n_profiles: int, clips: int, fold: int) -> float:
    folder.mkdir(parents=True)
    rows, confusion = ["\t".join(["path", "profile", "target", "prediction", *CLASSES])], np.zeros((4, 4), int)
    for profile in range(n_profiles):
        for clip in range(clips - profile % 5):
            target = clip % 4
            predicted = target if rng.random() < accuracy else int((target + rng.integers(1, 4)) % 4)
            confusion[target, predicted] += 1
            probabilities = "\t".join("0.25" for _ in CLASSES)
            rows.append(
                f"{profile}/{clip}.npy\tf{fold}p{profile}\t{CLASSES[target]}\t{CLASSES[predicted]}\t{probabilities}"
            )
    (folder / "predictions.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    summary = {"classes": CLASSES, "confusion": confusion.tolist()}
    (folder / "metrics.json").write_text(json.dumps(summary), encoding="utf-8")
    return float(np.trace(confusion) / confusion.sum())


def _write_embeddings(folder: Path, rng, n_profiles: int, clips: int, profiling: bool) -> None:
    profile = np.repeat(np.arange(n_profiles), clips)
    target = np.tile(np.arange(clips) % 4, n_profiles)
    classes, voices = rng.normal(size=(4, 8)), rng.normal(size=(n_profiles, 8))
    arrays = {"clip": 2 * classes[target] + voices[profile] + rng.normal(0, 0.5, (len(target), 8))}
    if profiling:
        arrays["profile"] = 2 * voices[profile] + rng.normal(0, 0.5, (len(target), 8))
        arrays["fused"] = np.concatenate([arrays["clip"], arrays["profile"]], axis=1)
    else:
        arrays["fused"] = arrays["clip"]
    paths = np.array([f"{number}.npy" for number in range(len(target))])
    np.savez(folder / "embeddings.npz", path=paths, target=target, profile_code=profile, **arrays)
