"""What a user names to be heard: files, folders and patterns."""

import glob
from collections.abc import Iterable
from pathlib import Path

import soundfile

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import read_metadata

# libsndfile's own formats, and the usual other endings of them; raw samples say nothing of themselves.
_SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"} | {
    ".aif",
    ".aifc",
    ".oga",
    ".opus",
    ".snd",
}


def find_audio(names: Iterable[str | Path]) -> list[str]:
    """The files that names stand for, in order: a file by its name, a folder for the audio in it and below, a pattern
    (``*``, ``?``, ``[…]``, ``**``) for what it matches.

    A name that stands for nothing stays as it is, so that whoever reads it says that it is missing.
    """
    found = []
    for name in map(str, names):
        if Path(name).is_dir():
            found += sorted(_audio_below(Path(name))) or [name]
        elif not Path(name).exists() and glob.has_magic(name):
            matches = sorted(glob.glob(name, recursive=True))
            found += find_audio(matches) if matches else [name]
        else:
            found.append(name)
    return found


def _audio_below(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()]


def read_profiles(table: str | Path) -> dict[str, str | None]:
    """The profile of each file of a table with the columns ``path`` (relative to the table's folder) and ``profile``.

    Raises:
        InputError: naming table and line: unreadable, without these columns, an empty or repeated path.
    """
    table = Path(table)
    profiles: dict[str, str | None] = {}
    for line, row in read_metadata(table, ("path", "profile")):
        path = str(table.parent / row["path"])
        if not row["path"] or path in profiles:
            problem = f"{row['path']} is there twice" if row["path"] else "path is empty"
            raise InputError(f"{table}, line {line}: {problem}; give every file one row")
        profiles[path] = row["profile"] or None
    return profiles
