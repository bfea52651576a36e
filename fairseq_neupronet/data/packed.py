"""Features inside an uncompressed zip, written ``file.zip:offset:length`` as fairseq's audio data sets do.

Offset and length, in bytes, are of a stored member's data: reading needs no directory of the zip.
"""

import os
import re
import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

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


class Member(NamedTuple):
    """A file inside a zip: its name, where its data lie, and whether they are compressed."""

    name: str
    place: Place
    compressed: bool


def is_packed(clip: str) -> bool:
    """Whether a manifest's path is a place in a zip, well written or not."""
    return _MARK in clip


def parse_place(clip: str) -> Place:
    """Parse ``file.zip:offset:length``. Raises ValueError where it is not that."""
    match = _FORMAT.fullmatch(clip)
    if match is None:
        raise ValueError("not file.zip:offset:length")
    return Place(match[1], int(match[2]), int(match[3]))


def read_directory(archive) -> list[Member]:
    """The members of a zip.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a whole zip: damaged, a pipe or a device, or with members that reach past its end.
    """
    if os.path.exists(archive) and not os.path.isfile(archive):
        raise ValueError(f"{archive} is a folder, a pipe or a device")
    try:
        with open(archive, "rb") as file, zipfile.ZipFile(file) as contents:
            members = [_member(str(archive), file.fileno(), entry) for entry in contents.infolist()]
            size = os.fstat(file.fileno()).st_size
    except (zipfile.BadZipFile, struct.error, NotImplementedError) as error:
        raise ValueError(f"{archive} is not a whole zip ({error})") from None
    beyond = next((member for member in members if member.place.offset + member.place.length > size), None)
    if beyond is not None:
        raise ValueError(f"{archive} is not a whole zip ({beyond.name} reaches past its {size} bytes)")
    return members


def _member(archive: str, file: int, entry: zipfile.ZipInfo) -> Member:
    # The directory has an extra field of its own, which may be of another length than the one before the data.
    lengths = struct.unpack("<HH", os.pread(file, 4, entry.header_offset + _LOCAL_HEADER - 4))
    offset = entry.header_offset + _LOCAL_HEADER + sum(lengths)
    compressed = entry.compress_type != zipfile.ZIP_STORED
    return Member(entry.filename, Place(archive, offset, entry.compress_size), compressed)


def is_compressed(place: Place) -> bool:
    """Whether a place lies in a compressed member; False where the zip's directory cannot be read."""
    try:
        members = read_directory(place.archive)
    except (OSError, ValueError):
        return False
    return any(
        member.compressed and 0 <= place.offset - member.place.offset < max(member.place.length, 1)
        for member in members
    )


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
                members = read_directory(os.path.join(self._root, place.archive))
            except (OSError, ValueError):
                members = []
            self._names[place.archive] = {member.place.offset: member.name for member in members}
        return self._names[place.archive].get(place.offset, clip)
