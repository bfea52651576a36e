"""Noise in the official layout, small enough to be trained on in seconds."""

from pathlib import Path

import numpy as np

N_MELS, CLASSES, N_PROFILES = 8, ("a", "b", "c"), 6


def write_corpus(folder: Path, clips: dict[str, int]) -> Path:
    """Write manifests, labels and features; ``clips``: split → number. Returns the folder."""
    rng = np.random.default_rng(0)
    (folder / "features").mkdir(parents=True)
    for split, n_clips in clips.items():
        rows = ["features"]
        for number in range(n_clips):
            n_frames = int(rng.integers(20, 61))
            np.save(folder / "features" / f"{split}{number}.npy", rng.normal(size=(N_MELS, n_frames)).astype("f4"))
            rows.append(f"{split}{number}.npy\t{N_MELS}\t{n_frames}\tp{rng.integers(N_PROFILES)}")
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
        labels = (CLASSES[number % len(CLASSES)] for number in range(n_clips))
        (folder / f"{split}.label").write_text("".join(f"{label}\n" for label in labels))
    (folder / "dict.label.txt").write_text("".join(f"{name} 1\n" for name in CLASSES))
    return folder
