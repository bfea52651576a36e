"""Audio files of any length, decoded and resampled block by block: memory does not grow with the length."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import soundfile
import torch
from torch import Tensor

from fairseq_neupronet.audio.decode import as_mono, check_rate, decoding, rate_ratio, refuse_empty, resampling_kernel

_BLOCK = 1 << 17  # samples


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
