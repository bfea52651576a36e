"""Arrays of an ``.npz`` file whose sizes are checked before anything is allocated, and without pickles."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fairseq_neupronet.data.npy import parse_header

_LONGEST_HEADER = 1 << 14


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
    header = parse_header(data[:_LONGEST_HEADER])
    if header.size != len(data):
        raise ValueError(f"{name} claims {header.size} bytes and has {len(data)}")
    flat = np.frombuffer(data, header.dtype, offset=header.start)
    return flat.reshape(header.shape, order="F" if header.fortran_order else "C").copy()
