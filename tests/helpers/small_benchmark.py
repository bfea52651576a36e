"""A benchmark of tiny trainings: three folds of a corpus, a plain backbone and NeuProNet."""

from pathlib import Path

import tiny
import yaml

CLIPS = {"train": 24, "valid": 12, "test": 14}


def write_folds(folder: Path, n_folds: int = 3) -> Path:
    """Corpora of their own, ``fold01`` …; returns the folder."""
    for fold in range(1, n_folds + 1):
        tiny.write_corpus(folder / f"fold{fold:02d}", seed=fold, clips=CLIPS)
    return folder


def config(data: Path, **changes) -> dict:
    """Two variants, three folds, two seeds."""
    return {
        "seeds": [1, 2],
        "protocols": ["single", "full"],
        "evaluation": ["--workers", 0, "--device", "cpu"],
        "overrides": [*tiny.TINY_FINETUNING, "common.cpu=true"],
        "datasets": {
            "tiny": {"data": f"{data}/fold{{fold:02d}}", "recipe": "vocalsound", "folds": [1, 2, 3], "ms_per_clip": 10}
        },
        "variants": {"base": {"overrides": ["ablation=base"]}, "dot": {"overrides": ["ablation=in_batch"]}},
    } | changes


def write_config(path: Path, data: Path, **changes) -> Path:
    path.write_text(yaml.safe_dump(config(data, **changes)), encoding="utf-8")
    return path
