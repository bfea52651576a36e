"""From a manifest's path to a stored spectrogram, read and checked. Letters: M mel bands, F frames."""

import os
import stat
import weakref
from pathlib import Path

import numpy as np
import torch

from fairseq_neupronet.arrays import MAGIC, parse_header
from fairseq_neupronet.data.packed import is_compressed, is_packed, parse_place
from fairseq_neupronet.errors import InputError

_CURE = "run `neupronet prepare` again"
_ZIP_MAGIC = b"PK\x03\x04"
_LARGEST_HEADER = 1 << 14
_LARGEST_NUMBER = 16  # bytes


class ClipFiles:
    """Reads the features of one manifest's clips: loose ``.npy`` files, and members of uncompressed zips.

    A zip is opened when a process first reads of it, and may be forked and pickled at any time. It is read in place, by
    ``pread``: all processes share the system's cache of it, which a memory mapping would add to each one's resident
    memory. A zip that is replaced meanwhile stays readable as it was.

    Args:
        root: the folder that the clips' paths start from.
    """

    def __init__(self, root: Path):
        self._root = root
        self._archives: dict[str, int] = {}

    def __getstate__(self) -> dict:
        return {"_root": self._root, "_archives": {}}

    def read(self, clip: str, n_mels: int, n_frames: int, where: str) -> np.ndarray:
        """Read one clip.

        Args:
            clip: the path as the manifest writes it; ``file.zip:offset:length`` is a member's data.
            n_mels, n_frames: the shape that the manifest gives.
            where: the manifest's file and line, for messages.

        Returns:
            (M, F) float32, of its own memory.

        Raises:
            InputError: missing, truncated, compressed, not an array of numbers, another shape, NaN or infinite values.
        """
        path = os.path.join(self._root, clip)
        refused = f"{where}: feature file {path}"
        most = _LARGEST_HEADER + _LARGEST_NUMBER * n_mels * n_frames
        try:
            data = self._packed(path, most) if is_packed(clip) else _loose(path, most)
            is_zip = bytes(data[: len(_ZIP_MAGIC)]) == _ZIP_MAGIC
            header = None if is_zip else parse_header(data)
        except FileNotFoundError as error:
            raise InputError(f"{where}: feature file {error.filename} is missing; {_CURE}") from None
        except (ValueError, OSError) as error:
            raise InputError(f"{refused} cannot be read as an array ({error}); {_CURE}") from None
        if header is None or len(header.shape) != 2 or header.dtype.kind not in "fiu":
            raise InputError(f"{refused} is not a (mels, frames) array of numbers; {_CURE}")
        if header.shape != (n_mels, n_frames):
            raise InputError(
                f"{refused} has {header.shape[0]} mel bands and {header.shape[1]} frames, "
                f"the manifest says {n_mels} and {n_frames}; {_CURE}"
            )
        if header.size > len(data):
            raise InputError(f"{refused} cannot be read as an array ({len(data)} bytes of its {header.size}); {_CURE}")
        stored = data[header.start : header.size].view(header.dtype)
        spectrogram = _as_float32(stored.reshape(header.shape, order="F" if header.fortran_order else "C"))
        if not np.isfinite(spectrogram).all():
            raise InputError(f"{refused} holds NaN or infinite values; {_CURE}")
        return spectrogram

    def _packed(self, path: str, most: int) -> np.ndarray:
        place = parse_place(path)
        if place.archive not in self._archives:
            self._archives[place.archive] = _open(place.archive)
            weakref.finalize(self, os.close, self._archives[place.archive])
        archive = self._archives[place.archive]
        size = os.fstat(archive).st_size
        if place.offset + place.length > size:
            raise ValueError(f"it reaches past the {size} bytes of the zip")
        data = _read(archive, place.offset, min(place.length, most))
        if bytes(data[: len(MAGIC)]) != MAGIC and is_compressed(place):
            raise ValueError("it is compressed in the zip, where it has to be stored as it is")
        return data


def _open(path: str) -> int:
    """A regular file's descriptor: a pipe would wait for a writer, and a device never ends."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise ValueError("it is a folder, a pipe or a device")
    return file


def _loose(path: str, most: int) -> np.ndarray:
    file = _open(path)
    try:
        return _read(file, 0, min(os.fstat(file).st_size, most))
    finally:
        os.close(file)


def _read(file: int, offset: int, n_bytes: int) -> np.ndarray:
    """(n_bytes,) uint8, or less where the file ends."""
    data = np.empty(n_bytes, np.uint8)
    filled = 0
    while filled < n_bytes and (count := os.preadv(file, [data[filled:]], offset + filled)):
        filled += count
    return data[:filled]


def _as_float32(stored: np.ndarray) -> np.ndarray:
    if stored.dtype == np.float16:
        # numpy's own conversion takes seven times as long.
        return torch.from_numpy(np.ascontiguousarray(stored)).float().numpy()
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        return np.ascontiguousarray(stored, np.float32)
