"""A small folder in the layout of ICBHI 2017, with made-up sound: noise, clicks for crackles, a tone for wheezes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

# (crackles, wheezes), as in the annotation.
NORMAL, CRACKLE, WHEEZE, BOTH = (0, 0), (1, 0), (0, 1), (1, 1)
RATES = {"Meditron": 44100, "LittC2SE": 10000, "Litt3200": 4000, "AKGC417L": 44100}
CYCLE_SECONDS = (0.4, 0.55, 0.35, 0.5)


class Recording(NamedTuple):
    """One recording, its part of the official split, and (start, end, crackles, wheezes) of its cycles."""

    name: str
    split: str
    cycles: list[tuple[float, float, int, int]]

    @property
    def patient(self) -> str:
        return self.name[:3]


def recordings() -> list[Recording]:
    """Ten patients in train, three in test and one (156) in both; every class in every recording of two."""
    made = []
    for patient in (101, 103, 107, 112, 120, 135, 147, 156, 160, 163, 172):
        made += [_recording(patient, index, "train") for index in (1, 2)]
    for patient in (104, 109, 156, 226):
        made += [_recording(patient, index, "test") for index in (3, 4)]
    return made


def _recording(patient: int, index: int, split: str) -> Recording:
    device = list(RATES)[(patient + index) % 4]
    location = ("Al", "Pr", "Tc", "Lr")[index % 4]
    kinds = (NORMAL, CRACKLE, NORMAL, WHEEZE) if index % 2 else (NORMAL, BOTH, CRACKLE)
    cycles, start = [], 0.036
    for number, kind in enumerate(kinds):
        end = round(start + CYCLE_SECONDS[(patient + number) % 4], 3)
        cycles.append((start, end, *kind))
        start = end
    return Recording(f"{patient}_{index}b1_{location}_{'mc' if device == 'AKGC417L' else 'sc'}_{device}", split, cycles)


def waveform(recording: Recording) -> np.ndarray:
    """(samples,), from 0.1 s after the last cycle's end back to 0; each patient has a hum of its own."""
    rate = RATES[recording.name.split("_")[-1]]
    rng = np.random.default_rng(int(recording.patient))
    times = np.arange(round((recording.cycles[-1][1] + 0.1) * rate)) / rate
    wave = 0.02 * rng.normal(size=len(times)) + 0.05 * np.sin(2 * np.pi * (60 + int(recording.patient)) * times)
    for start, end, crackles, wheezes in recording.cycles:
        inside = slice(round(start * rate), round(end * rate))
        if wheezes:
            wave[inside] += 0.2 * np.sin(2 * np.pi * 400 * times[inside])
        if crackles:
            wave[inside][:: rate // 40] += 0.6
    return wave


def write_icbhi(root: Path) -> list[Recording]:
    """Recordings and annotations in ``ICBHI_final_database``, beside it the split file."""
    folder = root / "ICBHI_final_database"
    folder.mkdir(parents=True)
    made = recordings()
    for recording in made:
        soundfile.write(folder / f"{recording.name}.wav", waveform(recording), RATES[recording.name.split("_")[-1]])
        lines = ["\t".join(map(str, cycle)) + "\n" for cycle in recording.cycles]
        (folder / f"{recording.name}.txt").write_text("".join(lines))
    (folder / "filename_differences.txt").write_text("101_1b1_Al_sc_Meditron\n")  # comes with the official archive
    split_lines = [f"{recording.name}\t{recording.split}\n" for recording in made]
    (root / "ICBHI_challenge_train_test.txt").write_text("".join(split_lines))
    return made
