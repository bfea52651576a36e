"""Invented machines, for the walk-through beside this file: python make_sounds.py OUT

A machine has a hum of its own (pitch, harmonics, noise). A healthy clip is that hum, `worn` adds a whine a fifth above
the machine's own pitch, `loose` adds a knock at its own turning rate: who knows the machine hears best what is wrong.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000  # Hz
SPLITS = {"train": range(0, 12), "valid": range(12, 16), "test": range(16, 20)}  # machines
CLIPS = {"normal": 8, "worn": 3, "loose": 3}  # of each machine


def clip(state: str, machine: np.random.Generator, chance: np.random.Generator) -> np.ndarray:
    """One second of a machine in a state, (samples,) within ±1."""
    pitch, turns, noise = machine.uniform(80, 320), machine.uniform(4, 11), machine.uniform(0.02, 0.2)
    strengths = machine.uniform(0.1, 1, 6)
    times = np.arange(RATE) / RATE + chance.uniform(0, 1)
    sound = sum(strength * np.sin(2 * np.pi * pitch * (n + 1) * times) for n, strength in enumerate(strengths))
    sound = sound + noise * strengths.sum() * chance.normal(size=RATE)
    if state == "worn":
        sound += 0.5 * strengths.sum() * np.sin(2 * np.pi * 1.5 * pitch * times)
    if state == "loose":
        since_knock = (times * turns) % 1 / turns
        sound += 2 * strengths.sum() * np.exp(-since_knock / 0.004) * np.sin(2 * np.pi * 1800 * since_knock)
    return 0.5 * chance.uniform(0.5, 1) * sound / np.abs(sound).max()


def main(out: Path) -> None:
    rows = []
    for split, machines in SPLITS.items():
        for number in machines:
            for label, n_clips in CLIPS.items():
                for take in range(n_clips):
                    path = f"machine{number:02d}/{label}{take}.wav"
                    (out / path).parent.mkdir(parents=True, exist_ok=True)
                    chance = np.random.default_rng([number, sorted(CLIPS).index(label), take])
                    soundfile.write(out / path, clip(label, np.random.default_rng(number), chance), RATE)
                    rows.append((path, label, f"machine{number:02d}", split))
    with (out / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "profile", "split"), *rows])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
