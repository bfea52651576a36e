"""Stored spectrograms: where a manifest's path leads, loose or in a zip; read, checked and cut. M mel bands, F frames.

A clip is an ``.npy`` file, or stands inside an uncompressed zip and is written ``file.zip:offset:length`` as fairseq's
audio data sets do. Offset and length, in bytes, are of a stored member's data: reading needs no directory of the zip.
"""

import os
import re
import stat
import struct
import weakref
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairseq_neupronet.arrays import MAGIC, parse_header
from fairseq_neupronet.errors import InputError

_CURE = "run `neupronet prepare` again"
_ZIP_MAGIC = b"PK\x03\x04"
_LARGEST_HEADER = 1 << 14
_LARGEST_NUMBER = 16  # bytes
_MARK = ".zip:"
_FORMAT = re.compile(r"(.+\.zip):([0-9]{1,18}):([0-9]{1,18})", re.DOTALL)
_LOCAL_HEADER = 30  # bytes, before the name and the extra field, whose lengths are its last four bytes


class Place(NamedTuple):
    """Bytes of a file."""

    archive: str
    offset: int
    length: int

    def __str__(self) -> str:
        return f"{self.archive}:{self.offset}:{self.length}"


def is_packed(clip: str) -> bool:
    """Whether a manifest's path is a place in a zip, well written or not."""
    return _MARK in clip


def parse_place(clip: str) -> Place:
    """Parse ``file.zip:offset:length``. Raises ValueError where it is not that."""
    match = _FORMAT.fullmatch(clip)
    if match is None:
        raise ValueError("not file.zip:offset:length")
    return Place(match[1], int(match[2]), int(match[3]))


def read_directory(archive) -> dict[str, Place]:
    """Where the members of a zip lie, by name; compressed ones are left out.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a whole zip: damaged, a pipe or a device, or with members that reach past its end.
    """
    if os.path.exists(archive) and not os.path.isfile(archive):
        raise ValueError(f"{archive} is a folder, a pipe or a device")
    places = {}
    try:
        with open(archive, "rb") as file, zipfile.ZipFile(file) as contents:
            size = os.fstat(file.fileno()).st_size
            for entry in contents.infolist():
                # The directory has an extra field of its own, perhaps of another length than the one before the data.
                lengths = struct.unpack("<HH", os.pread(file.fileno(), 4, entry.header_offset + _LOCAL_HEADER - 4))
                place = Place(str(archive), entry.header_offset + _LOCAL_HEADER + sum(lengths), entry.compress_size)
                if place.offset + place.length > size:
                    raise zipfile.BadZipFile(f"{entry.filename} reaches past its {size} bytes")
                if entry.compress_type == zipfile.ZIP_STORED:
                    places[entry.filename] = place
    except (zipfile.BadZipFile, struct.error, NotImplementedError) as error:
        raise ValueError(f"{archive} is not a whole zip ({error})") from None
    return places


class ClipNames:
    """What to call clips in results: a loose file's path as written, a packed one's name in its zip.

    Args:
        root: the folder that the clips' paths start from.
    """

    def __init__(self, root: Path):
        self._root = root
        self._names: dict[str, dict[int, str]] = {}

    def __call__(self, clip: str) -> str:
        """The name; a place stays as written if the zip has gone, or its directory does not know it."""
        if not is_packed(clip):
            return clip
        place = parse_place(clip)
        if place.archive not in self._names:
            try:
                places = read_directory(os.path.join(self._root, place.archive))
            except (OSError, ValueError):
                places = {}
            self._names[place.archive] = {member.offset: name for name, member in places.items()}
        return self._names[place.archive].get(place.offset, clip)


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
        if bytes(data[: len(MAGIC)]) != MAGIC:
            raise ValueError("no .npy header; if it is compressed in the zip, store it there as it is")
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
        import torch  # numpy's own conversion takes seven times as long

        return torch.from_numpy(np.ascontiguousarray(stored)).float().numpy()
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        return np.ascontiguousarray(stored, np.float32)


def check_files(manifest) -> None:
    """Look for missing and truncated feature files of a :class:`~fairseq_neupronet.data.manifest.Manifest`, unopened.

    Raises:
        InputError: naming the first such clip and how many there are.
    """
    least_bytes = 2 * manifest.n_mels * manifest.frames  # numbers at half precision
    archive_bytes: dict[str, int] = {}
    broken = [
        row
        for row, (clip, least) in enumerate(zip(manifest.clips, least_bytes.tolist(), strict=True))
        if _stored_bytes(os.path.join(manifest.root, clip), archive_bytes) < least
    ]
    if broken:
        raise InputError(
            f"{manifest.line_of(broken[0])}: feature file {manifest.root / manifest.clips[broken[0]]} is missing or "
            f"truncated ({len(broken)} such clips); run `neupronet prepare` again"
        )


def _stored_bytes(path: str, archive_bytes: dict[str, int]) -> int:
    """The size of a feature file, loose or packed; 0 where there is none."""
    try:
        if not is_packed(path):
            return os.stat(path).st_size
        place = parse_place(path)
        if place.archive not in archive_bytes:
            archive_bytes[place.archive] = os.stat(place.archive).st_size
        return place.length if place.offset + place.length <= archive_bytes[place.archive] else 0
    except (OSError, ValueError):
        return 0


def crop(spectrogram: np.ndarray, n_frames: int, uniform: float = 0.0) -> np.ndarray:
    """At most ``n_frames`` frames, from the place that a uniform draw in [0, 1) picks. (M, F) → (M, F')."""
    excess = spectrogram.shape[1] - n_frames
    if excess <= 0:
        return spectrogram
    start = int(uniform * (excess + 1))
    return spectrogram[:, start : start + n_frames]


def normalize(spectrogram: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance over the whole clip; a constant clip becomes zeros. (M, F) → (M, F)."""
    centred = spectrogram - spectrogram.mean()
    return centred / np.sqrt(np.square(centred).mean() + 1e-5)
