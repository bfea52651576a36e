"""Audio files to mono waveforms of one sample rate, whole or block by block: then memory does not grow with length."""

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from torch import Tensor

from fairseq_neupronet.errors import InputError

_BLOCK = 1 << 17  # samples

# torchaudio's polyphase kernel has (new rate / gcd) x (old rate / gcd) taps: gigabytes for two coprime rates.
# A ratio of terms up to this is exact for every usual pair of rates, and within 1e-6 of any other.
_MAX_RATE_TERM = 1000
_RATES = 100, 1_000_000  # Hz, of files
_BLOCK_VALUES = 1 << 24  # decoded at once: what is allocated on a header's word
_MOST_VALUES = 1 << 30  # 4 GiB, six hours of stereo at 22,050 Hz


def load_audio(path, sample_rate: int, start: float | None = None, end: float | None = None) -> torch.Tensor:
    """Decode one audio file (wav, flac, ogg, mp3; any rate, any number of channels), or a part of one.

    Args:
        path: the file.
        sample_rate: the rate wanted, in Hz.
        start: seconds at which the part begins, at the file's nearest sample; None decodes the whole file.
        end: seconds at which it ends; where the file ends earlier, there. Nothing outside of the part is decoded.

    Returns:
        (samples,) float32, full scale ±1: the mean of the channels, resampled as by ``torchaudio.functional.resample``.
        Silent audio is allowed.

    Raises:
        InputError: the file is missing, does not decode, holds no samples, or samples that are no finite numbers.
    """
    with decoding(path), soundfile.SoundFile(str(path)) as file:
        rate, first, last = file.samplerate, 0, file.frames
        if start is not None:
            first, last = min(round(start * rate), last), min(round(end * rate), last)
            file.seek(first)
        samples = _decode(file, max(0, last - first))
    check_rate(rate, path)
    if samples is None:
        raise InputError(f"{path}: holds more than {_MOST_VALUES} samples; cut it into clips")
    waveform = as_mono(samples, path)
    refuse_empty(len(waveform), path)
    old_rate, new_rate = rate_ratio(rate, sample_rate)
    return waveform if old_rate == new_rate else _resample(waveform, old_rate, new_rate)


def _decode(file: soundfile.SoundFile, n_samples: int) -> np.ndarray | None:
    """(samples, channels) from here on, of which a header may claim more than there are; None: too many to hold."""
    block = _BLOCK_VALUES // file.channels
    if n_samples <= block:
        return file.read(n_samples, dtype="float32", always_2d=True)
    blocks, n_read = [], 0
    while n_read < n_samples:
        blocks.append(file.read(min(block, n_samples - n_read), dtype="float32", always_2d=True))
        n_read += len(blocks[-1])
        if n_read * file.channels > _MOST_VALUES:
            return None
        if len(blocks[-1]) < block:
            break
    return np.concatenate(blocks)


@contextlib.contextmanager
def decoding(path) -> Iterator[None]:
    """Tell in a sentence why libsndfile cannot read a file.

    Raises:
        InputError: the file is missing or does not decode.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such audio file; correct the path or restore the file")
    try:
        yield
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(getattr(error, "error_string", error)).split()).rstrip(".")
        raise InputError(
            f"{path}: does not decode as audio ({reason}); replace the file or convert it to wav, flac, ogg or mp3"
        ) from error


def as_mono(samples: np.ndarray, path) -> torch.Tensor:
    """The mean of the channels, (samples, channels) → (samples,). Raises InputError where one is no finite number."""
    waveform = torch.from_numpy(samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1))
    if not np.isfinite(waveform.numpy()).all():
        raise InputError(f"{path}: the audio holds NaN or infinite samples; replace the file")
    return waveform


def refuse_empty(n_samples: int, path) -> None:
    """Raises InputError where a file holds no samples."""
    if n_samples == 0:
        raise InputError(f"{path}: the audio is empty (0 samples); replace the file or take it out of the metadata")


def check_rate(rate: int, path) -> None:
    """Raises InputError where resampling would take hours or gigabytes on a header's word."""
    if not _RATES[0] <= rate <= _RATES[1]:
        raise InputError(f"{path}: claims a sample rate of {rate} Hz; give audio of {_RATES[0]} to {_RATES[1]} Hz")


def rate_ratio(rate: int, sample_rate: int) -> tuple[int, int]:
    """Both rates without their common factor, or two numbers in nearly the same ratio."""
    ratio = Fraction(rate, sample_rate).limit_denominator(_MAX_RATE_TERM)
    return ratio.numerator, ratio.denominator


def _resample(waveform: torch.Tensor, old_rate: int, new_rate: int) -> torch.Tensor:
    """What ``torchaudio.functional.resample`` computes, with the kernel kept and a product of matrices for the
    convolution: a quarter of the time on a clip of one second. The rates have no common factor."""
    kernel, width = resampling_kernel(old_rate, new_rate)
    padded = torch.nn.functional.pad(waveform, (width, width + old_rate))
    return _convolve(padded, kernel, old_rate)[: math.ceil(len(waveform) * new_rate / old_rate)]


@functools.lru_cache(maxsize=4)
def resampling_kernel(old_rate: int, new_rate: int) -> tuple[torch.Tensor, int]:
    """The windowed sinc that turns a stretch of samples into ``new_rate``, (taps, new_rate); how far it looks back."""
    resample = torchaudio.transforms.Resample(old_rate, new_rate)
    return resample.kernel.squeeze(1).T.contiguous(), resample.width


def stream_audio(path, sample_rate: int) -> Iterator[Tensor]:
    """What :func:`~fairseq_neupronet.audio.decode.load_audio` gives of a whole file, in blocks (samples,).

    Args:
        path: the file.
        sample_rate: the rate wanted, in Hz.

    Raises:
        InputError: as ``load_audio``; at the block where the mistake stands.
    """
    with decoding(path):
        file = soundfile.SoundFile(str(path))
    with file:
        check_rate(file.samplerate, path)
        yield from resampled(_blocks(file, path), file.samplerate, sample_rate)


def _blocks(file: soundfile.SoundFile, path) -> Iterator[Tensor]:
    n_samples = 0
    while True:
        try:
            samples = file.read(_BLOCK, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError):
            # Deleted or spoilt while it was being read: the sentence is that of a file which cannot be opened.
            with decoding(path):
                raise
        if not len(samples):
            break
        n_samples += len(samples)
        yield as_mono(samples, path)
    refuse_empty(n_samples, path)


def stream_array(samples: np.ndarray, rate: int, sample_rate: int, name: str) -> Iterator[Tensor]:
    """The same for an array (samples,) or (samples, channels), full scale ±1.

    Raises:
        InputError: no samples, or samples that are no finite numbers.
    """
    waveform = as_mono(np.asarray(samples, np.float32).reshape(len(samples), -1), name)
    refuse_empty(len(waveform), name)
    yield from resampled(waveform.split(_BLOCK), rate, sample_rate)


def resampled(blocks: Iterable[Tensor], rate: int, sample_rate: int) -> Iterator[Tensor]:
    """Resample a waveform that comes in blocks; the blocks' edges leave no trace.

    Args:
        blocks: (samples,) each, at ``rate`` Hz.
        rate, sample_rate: Hz, of what comes and of what is wanted.
    """
    old_rate, new_rate = rate_ratio(rate, sample_rate)
    if old_rate == new_rate:
        yield from blocks
        return
    kernel, width = resampling_kernel(old_rate, new_rate)
    waiting, n_read, n_written = torch.zeros(width), 0, 0
    for block in blocks:
        n_read += len(block)
        waiting = torch.cat([waiting, block])
        n_steps = (len(waiting) - len(kernel)) // old_rate + 1
        if n_steps > 0:
            output = _convolve(waiting[: (n_steps - 1) * old_rate + len(kernel)], kernel, old_rate)
            waiting = waiting[n_steps * old_rate :]
            n_written += len(output)
            yield output
    rest = math.ceil(n_read * new_rate / old_rate) - n_written
    yield _convolve(torch.nn.functional.pad(waiting, (0, width + old_rate)), kernel, old_rate)[:rest]


def _convolve(waveform: Tensor, kernel: Tensor, stride: int) -> Tensor:
    return (waveform.unfold(0, len(kernel), stride) @ kernel).flatten()
