"""Spectrograms and whole preparation with the official mel recipe against librosa, both on one core.

The yardstick is what the official recipe's authors wrote: librosa's melspectrogram, which computes its filter bank for
every clip, decibels, and a scaling to 0 ... 255.
"""

import functools
import importlib.util
import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import material
from bench.comparison import Comparison, Figure, Options, Run, Side, Wanted
from bench.timing import seconds
from fairseq_neupronet.errors import InputError

_RATE, _N_FFT, _HOP, _N_MELS = 22500, 2048, 512, 128
_ONE_CORE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}
_NO_LIBROSA = "" if importlib.util.find_spec("librosa") else "librosa is missing; pip install it"
# Only the parent of a TemporaryDirectory, whose name nobody can foretell.
_IN_MEMORY = Path("/dev/shm")  # nosec B108
_TOLERANCE = 0.25  # of 0 ... 255, as the tests have it


def comparisons(options: Options) -> list[Comparison]:
    n_clips = 60 if options.quick else 500
    generated = options.scratch / "wav"

    def preparing(name: str, kind: str, folder: Path | None, setup=None, lacks: str = "") -> Comparison:
        return Comparison(
            name,
            (
                Figure(
                    f"preparing {n_clips} {kind}, one core, written to disk, against librosa",
                    "disk",
                    "ms a clip",
                    Wanted("ratio", least=2.5),
                ),
                Figure("the same, written to memory", "memory", "ms a clip"),
            ),
            Side(partial(our_preparing, folder, n_clips, options.scratch), _ONE_CORE),
            Side(partial(librosa_preparing, folder, n_clips, options.scratch), _ONE_CORE),
            setup=setup,
            lacks=lacks or _NO_LIBROSA,
        )

    spectrogram = Comparison(
        "spectrogram",
        (
            Figure("spectrogram of a second, one core, against librosa", "time", "ms", Wanted("ratio", least=5)),
            Figure("the same, librosa's filter bank computed once", "bank_kept", "ms"),
        ),
        Side(our_spectrograms, _ONE_CORE),
        Side(librosa_spectrograms, _ONE_CORE),
        lacks=_NO_LIBROSA,
    )
    return [
        spectrogram,
        preparing(
            "preparation-wav", "generated wav files", generated, setup=lambda: material.write_audio(generated, n_clips)
        ),
        preparing(
            "preparation-audio", "files of --audio", options.audio, lacks="" if options.audio else "give --audio DIR"
        ),
    ]


def _waveforms():
    """Ten seconds of sound, (10, samples) float32."""
    import numpy as np

    rng, times = np.random.default_rng(0), np.arange(_RATE) / _RATE
    pitches = rng.uniform(80, 400, size=10)
    voices = [sum(np.sin(2 * np.pi * pitch * k * times) / k for k in range(1, 12)) for pitch in pitches]
    return (0.1 * np.array(voices) + 0.01 * rng.normal(size=(10, _RATE))).astype(np.float32)


def our_spectrograms() -> Run:
    """Refuses to be measured where it does not equal librosa's."""
    import numpy as np
    import torch

    from fairseq_neupronet.audio.features import extract_features
    from fairseq_neupronet.audio.recipe import FeatureRecipe

    torch.set_num_threads(1)
    recipe = FeatureRecipe.load("official")
    waveforms = _waveforms()
    for waveform in waveforms:
        difference = np.abs(extract_features(torch.from_numpy(waveform), recipe) - librosa_spectrogram(waveform)).max()
        if difference > _TOLERANCE:
            raise InputError(f"our spectrogram differs from librosa's by {difference} of 255")
    waveforms = [torch.from_numpy(waveform) for waveform in waveforms]

    def run() -> dict[str, float]:
        time = _time_each(waveforms, lambda x: extract_features(x, recipe))
        return {"time": time, "bank_kept": time}

    return run


def librosa_spectrograms() -> Run:
    waveforms = list(_waveforms())
    return lambda: {
        "time": _time_each(waveforms, librosa_spectrogram),
        "bank_kept": _time_each(waveforms, librosa_spectrogram_with_bank),
    }


def _time_each(waveforms: list, compute: Callable) -> float:
    """Milliseconds."""

    def all_of_them() -> None:
        for waveform in waveforms:
            compute(waveform)

    return 1000 * seconds(all_of_them, times=5) / len(waveforms)


def librosa_spectrogram(waveform):
    import librosa

    return _scaled(librosa.feature.melspectrogram(y=waveform, sr=_RATE, n_fft=_N_FFT, hop_length=_HOP, n_mels=_N_MELS))


def librosa_spectrogram_with_bank(waveform):
    import librosa
    import numpy as np

    power = np.abs(librosa.stft(waveform, n_fft=_N_FFT, hop_length=_HOP)) ** 2
    # The product that librosa's melspectrogram ends with.
    return _scaled(np.einsum("ft,mf->mt", power, _filter_bank(), optimize=True))


@functools.cache
def _filter_bank():
    import librosa

    return librosa.filters.mel(sr=_RATE, n_fft=_N_FFT, n_mels=_N_MELS)


def _scaled(mel):
    import librosa
    import numpy as np

    decibels = librosa.power_to_db(mel, ref=np.max)
    return (decibels - decibels.min()) / (decibels.max() - decibels.min()) * 255


def _files(folder: Path, n_clips: int) -> list[Path]:
    found = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _SUFFIXES)
    files = list(itertools.islice(found, n_clips))
    if not files:
        raise InputError(f"--audio {folder}: holds no {', '.join(sorted(_SUFFIXES))} file; give a folder of audio")
    return files


def our_preparing(folder: Path, n_clips: int, scratch: Path) -> Run:
    """Features, manifests, labels and dictionary."""
    import torch

    from fairseq_neupronet.audio.recipe import FeatureRecipe
    from fairseq_neupronet.preparation import prepare
    from fairseq_neupronet.preparation.clips import Clip, Collection

    torch.set_num_threads(1)
    clips = [
        Clip(path, "sound", f"profile{number // 6}", "train", f"clip{number}")
        for number, path in enumerate(_files(folder, n_clips))
    ]
    collection = Collection(folder, ["sound"], {"": clips})
    recipe = FeatureRecipe.load("official")

    def work(out: Path) -> None:
        prepare(collection, out, recipe, workers=1, progress=False)

    return _into_empty_folders(scratch, len(clips), work)


def librosa_preparing(folder: Path, n_clips: int, scratch: Path) -> Run:
    import librosa
    import numpy as np

    files = _files(folder, n_clips)

    def work(out: Path) -> None:
        for number, file in enumerate(files):
            waveform, _ = librosa.load(file, sr=_RATE)
            np.save(out / f"clip{number}.npy", librosa_spectrogram(waveform))

    return _into_empty_folders(scratch, len(files), work)


def _into_empty_folders(scratch: Path, n_clips: int, work: Callable[[Path], None]) -> Run:
    """Time the work into an empty folder in memory, and on the disk.

    What is written to the disk stays until the benchmark's end: ext4 looks past every file deleted lately
    for the place of a new one, which would add as much as half of the work to each side.
    """

    def on_disk() -> float:
        return milliseconds(Path(tempfile.mkdtemp(dir=scratch)))

    def in_memory() -> float:
        with tempfile.TemporaryDirectory(dir=_IN_MEMORY) as out:
            return milliseconds(Path(out))

    def milliseconds(out: Path) -> float:
        return 1000 * seconds(lambda: work(out)) / n_clips

    return lambda: {"memory": in_memory(), "disk": on_disk()}
