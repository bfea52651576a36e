"""Arrays in ``.npy`` and ``.npz`` files, read without pickles, their sizes checked before anything is allocated.

The header of an ``.npy`` array is parsed without numpy's detours: most clips of a data set share a few headers.
"""

import functools
import io
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4}  # of the header's length, by format version
_LONGEST_HEADER = 10_000  # numpy's own limit: evaluating a longer literal may exhaust the stack
_LONGEST_BEGINNING = 1 << 14  # bytes of a member of an .npz, in which its header lies
_READERS = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}


class NpyHeader(NamedTuple):
    """What is stored, and where its data lie.

    Attributes:
        shape, dtype, fortran_order: of the array.
        start: bytes before the data.
        size: bytes with the data.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    start: int
    size: int


def parse_header(data) -> NpyHeader:
    """The header of an array stored as ``.npy``.

    Args:
        data: the stored bytes or their beginning: ``bytes``, or an array of uint8.

    Raises:
        ValueError: no ``.npy`` data, a damaged header, or an array of Python objects, which only unpickling could read.
    """
    beginning = bytes(data[:10])
    version = beginning[6] if len(beginning) == 10 else 0
    if not beginning.startswith(MAGIC) or version not in _LENGTH_BYTES:
        raise ValueError("no .npy header")
    length_bytes = _LENGTH_BYTES[version]
    length = int.from_bytes(bytes(data[8 : 8 + length_bytes]), "little")
    start = 8 + length_bytes + length
    if length > _LONGEST_HEADER or start > len(data):
        raise ValueError("the .npy header is cut off")
    return _parse(version, bytes(data[8:start]))


@functools.lru_cache(maxsize=4096)
def _parse(version: int, header: bytes) -> NpyHeader:
    try:
        shape, fortran_order, dtype = _READERS[version](io.BytesIO(header))
    except Exception:  # of many types: the header is evaluated, and on failure put through Python's tokenizer
        raise ValueError("the .npy header is damaged") from None
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    start = 8 + len(header)
    return NpyHeader(shape, dtype, fortran_order, start, start + dtype.itemsize * math.prod(shape))


def read_npz(path: str | Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Read what ``numpy.savez`` wrote, uncompressed.

    Args:
        path: the file.
        names: of the arrays; None for all.

    Raises:
        ValueError: no such file or array, compressed, damaged, holding Python objects, or claiming more numbers than
            there are.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError("no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()] if names is None else list(names)
            return {name: _array(archive, f"{name}.npy", path.stat().st_size) for name in names}
    except (OSError, KeyError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _array(archive: zipfile.ZipFile, name: str, file_bytes: int) -> np.ndarray:
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > file_bytes:
        raise ValueError(f"{name} is compressed, or claims more bytes than the file has")
    data = archive.read(entry)
    header = parse_header(data[:_LONGEST_BEGINNING])
    if header.size != len(data):
        raise ValueError(f"{name} claims {header.size} bytes and has {len(data)}")
    flat = np.frombuffer(data, header.dtype, offset=header.start)
    return flat.reshape(header.shape, order="F" if header.fortran_order else "C").copy()
