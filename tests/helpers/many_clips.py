"""A manifest as long as wanted, over a few feature files: for tests and benchmarks of how things grow. Plain numpy."""

from pathlib import Path

import numpy as np

N_MELS = 16
CLASSES = ("cough", "laugh", "sniff")


def write_many_clips(folder: Path, n_rows: int, n_files: int = 50, clips_per_profile: int = 7, profiles: bool = True):
    """Write ``train.tsv``, ``train.label`` and the files that its rows share.

    Args:
        folder: made if missing.
        n_rows: clips of the manifest; row r has file r mod ``n_files`` and 20 + r mod ``n_files`` frames.
        n_files: feature files, (16, 20 …) float32.
        clips_per_profile: consecutive rows of one profile.
        profiles: write the profile column.

    Returns:
        The manifest's path.
    """
    (folder / "features").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    names = [f"recordings/many_clips_{number:04d}_throatclearing.npy" for number in range(n_files)]
    (folder / "features" / "recordings").mkdir(exist_ok=True)
    for number, name in enumerate(names):
        np.save(folder / "features" / name, rng.normal(size=(N_MELS, 20 + number)).astype(np.float32))
    with open(folder / "train.tsv", "w", encoding="utf-8") as manifest, open(folder / "train.label", "w") as labels:
        manifest.write("features\n")
        for row in range(n_rows):
            number = row % n_files
            profile = f"\tspeaker{row // clips_per_profile:06d}" if profiles else ""
            manifest.write(f"{names[number]}\t{N_MELS}\t{20 + number}{profile}\n")
            labels.write(f"{CLASSES[row % len(CLASSES)]}\n")
    return folder / "train.tsv"
