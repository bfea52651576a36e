"""A small world of synthetic sound, for the demo and the tests. It is no data set: figures from it say nothing of
real sound.

A class is an excitation: bursts of noise with a rhythm (bursts per second, decay) and a spectrum (centre, width). A
profile is a source: the object and the place that a recording comes from, with its own pitch, resonances, spectral
tilt, room, noise floor and gain. The source is applied to every clip of its profile and moves exactly the cues that
tell the classes apart: its pitch shifts the centre by more than the distance of two classes, its tilt and resonances
outweigh the classes' spectra, its room and noise floor blur the rhythm. Who knows other clips of the source can
take it into account, as one can with a speaker or a recording device; who has not must guess.

Clips of a profile differ by chance in length, level, rhythm, centre and noise. Each profile has several clips of every
class, in numbers that vary, so that its composition gives away less than an equal count would.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file

SAMPLE_RATE = 16000  # Hz
SPLIT_SHARES = {"train": 0.6, "valid": 0.15, "test": 0.25}  # of the profiles

_NOTE = """This folder holds SYNTHETIC sound: {clips} clips of {profiles} profiles, `neupronet synthesize`, seed {seed}.
A class is a kind of noise burst (rhythm and spectrum), a profile is an invented source (pitch, resonances, tilt, room,
noise floor, gain) that moves the classes' cues. It serves the demo and the tests; figures from it say nothing of real
sound.
"""


@dataclass(frozen=True)
class Excitation:
    """A class: bursts of noise.

    Args:
        rate: bursts per second.
        decay: seconds in which a burst's amplitude falls to 1/e.
        centre: Hz, of the burst's spectrum.
        width: octaves, standard deviation of the burst's spectrum around its centre.
    """

    rate: float
    decay: float
    centre: float
    width: float


CLASSES = {
    "crackle": Excitation(rate=12.0, decay=0.015, centre=1400.0, width=0.8),
    "hiss": Excitation(rate=4.0, decay=0.120, centre=1800.0, width=0.8),
    "knock": Excitation(rate=5.0, decay=0.040, centre=800.0, width=0.7),
    "rattle": Excitation(rate=9.0, decay=0.030, centre=1050.0, width=0.7),
    "rumble": Excitation(rate=4.0, decay=0.120, centre=600.0, width=0.8),
}


@dataclass(frozen=True)
class _Source:
    """A profile. Frequencies in octaves relative to 1 kHz, levels in dB."""

    pitch: float  # octaves by which every excitation's centre moves
    tilt: float  # dB per octave
    resonances: np.ndarray  # (3, 3): centre, width in octaves, gain
    reverberation: float  # seconds in which the room's response falls by 60 dB
    wet: float  # the room's share of the energy
    noise: float  # dB of the noise floor below the clip's level
    noise_tilt: float  # dB per octave
    gain: float  # dB


def synthesize(out, seed: int = 1, n_profiles: int = 30, clips_per_class: int = 5) -> Path:
    """Write ``audio/<profile>/*.wav`` (16 kHz, mono, 16 bit, .7 to 1.2 s), ``metadata.csv`` and ``SYNTHETIC.txt``.

    Args:
        out: output folder; files of the same names are overwritten.
        seed: the same seed and sizes give the same files.
        n_profiles: sources; splits share no profile (about 60 / 15 / 25 %, at least one each).
        clips_per_class: clips of each class per source on average; each count is drawn from that ± 2, at least 2.

    Returns:
        The metadata table (columns path, label, profile, split).

    Raises:
        InputError: fewer than 3 profiles or 2 clips per class, a negative seed, a folder that cannot be written.
    """
    for name, value, least in (("profiles", n_profiles, 3), ("clips-per-class", clips_per_class, 2), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"--{name} {value}: give a whole number from {least} up")
    out = Path(out)
    n_valid, n_test = (max(1, round(n_profiles * SPLIT_SHARES[split])) for split in ("valid", "test"))
    splits = ["train"] * (n_profiles - n_valid - n_test) + ["valid"] * n_valid + ["test"] * n_test
    rows = []
    for number, split in enumerate(splits):
        # One generator per profile: a profile sounds the same however many others there are.
        random = np.random.default_rng([seed, number])
        source = _draw_source(random)
        profile = f"source{number:03d}"
        for label, excitation in CLASSES.items():
            for take in range(random.integers(max(2, clips_per_class - 2), clips_per_class + 3)):
                path = f"audio/{profile}/{label}{take:02d}.wav"
                _write_wav(out / path, _clip(excitation, source, random))
                rows.append((path, label, profile, split))
    with atomic_file(out / "SYNTHETIC.txt") as stream:
        stream.write(_NOTE.format(seed=seed, profiles=n_profiles, clips=len(rows)))
    with atomic_file(out / "metadata.csv") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("path", "label", "profile", "split"), *rows])
    return out / "metadata.csv"


def _draw_source(random: np.random.Generator) -> _Source:
    resonances = np.stack([random.uniform(-2.5, 2.5, 3), random.uniform(0.2, 0.6, 3), random.uniform(-16, 16, 3)], 1)
    return _Source(
        pitch=random.uniform(-0.6, 0.6),
        tilt=random.uniform(-8, 8),
        resonances=resonances,
        reverberation=random.uniform(0.1, 0.9),
        wet=random.uniform(0.0, 0.8),
        noise=random.uniform(5, 35),
        noise_tilt=random.uniform(-6, 0),
        gain=random.uniform(-24, 0),
    )


def _clip(excitation: Excitation, source: _Source, random: np.random.Generator) -> np.ndarray:
    """One clip, (samples,) float64 within ±1."""
    length = SAMPLE_RATE // 100 * random.integers(70, 121)  # whole hundredths of a second: quick Fourier transforms
    centre = np.log2(excitation.centre / 1000) + source.pitch + random.normal(0, 0.15)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 30) / 1000)
    colour = -8.7 * 0.5 * ((octaves - centre) / excitation.width) ** 2  # dB of a Gaussian
    response = source.tilt * octaves
    for at, width, gain in source.resonances:
        response = response + gain * np.exp(-0.5 * ((octaves - at) / width) ** 2)
    bursts = _shaped_noise(np.maximum(colour, -40), length, random) * _rhythm(excitation, length, random)
    sound = _room(_shape(bursts, response, length), source, random)
    level = np.sqrt(np.mean(sound**2))
    noise = _shaped_noise(source.noise_tilt * octaves, length, random)
    noise *= level * 10 ** (-(source.noise + random.normal(0, 1)) / 20) / np.sqrt(np.mean(noise**2))
    sound = (sound + noise) * 0.1 / level * 10 ** ((source.gain + random.normal(0, 2)) / 20)
    return np.clip(sound, -1, 1)


def _rhythm(excitation: Excitation, length: int, random: np.random.Generator) -> np.ndarray:
    """The bursts' envelope, (samples,): onsets about 1 / rate apart, each with its own level, decaying."""
    envelope = np.zeros(length)
    times = np.arange(length) / SAMPLE_RATE
    rate = excitation.rate * np.exp(random.normal(0, 0.15))
    decay = excitation.decay * np.exp(random.normal(0, 0.2))
    onset = random.uniform(0, min(1 / rate, 0.2))
    while onset < times[-1]:
        after = times >= onset
        envelope[after] += 10 ** (random.normal(0, 3) / 20) * np.exp(-(times[after] - onset) / decay)
        onset += random.uniform(0.6, 1.4) / rate
    return envelope


def _room(sound: np.ndarray, source: _Source, random: np.random.Generator) -> np.ndarray:
    """Add the room: noise that decays by 60 dB in ``reverberation`` seconds, with the share ``wet`` of the energy."""
    length = len(sound)
    tail = random.normal(size=length) * 10 ** (-3 * np.arange(length) / SAMPLE_RATE / source.reverberation)
    tail /= np.sqrt(np.sum(tail**2))
    size = 2 * length
    wet = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[:length]
    return np.sqrt(1 - source.wet) * sound + np.sqrt(source.wet) * wet


def _shaped_noise(decibels: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    return _shape(random.normal(size=length), decibels, length)


def _shape(sound: np.ndarray, decibels: np.ndarray, length: int) -> np.ndarray:
    return np.fft.irfft(np.fft.rfft(sound) * 10 ** (decibels / 20), length)


def _write_wav(path: Path, sound: np.ndarray) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    with atomic_file(path, "wb") as stream:
        stream.write(buffer.getvalue())
