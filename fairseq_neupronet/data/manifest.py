"""Manifests in the official layout, ``{split}.tsv``: what is read is checked, with file and line.

Line 1 is the folder of the features, absolute or relative to the manifest; then there is one row a clip,
``path <tab> n_mels <tab> n_frames [<tab> profile]``. A path is that of an ``.npy`` file, or ``file.zip:offset:length``.

All rows are checked at once, as columns of bytes. Only if something is wrong are they read one by one, to say where.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairseq_neupronet.data.packed import ClipNames, is_packed, parse_place
from fairseq_neupronet.data.text_spans import (
    LARGEST_NUMBER,
    TextSpans,
    first_equal,
    positions,
    read_lines,
    whole_numbers,
)
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.enrolment import path_keys

# The official rule for manifests of three columns: the profile is the base name without these 17 characters.
_OFFICIAL_SUFFIX = re.compile(r"_mel_\d+_\d+\.npy", re.ASCII)
_OFFICIAL_SUFFIX_BYTES = b"_mel_########.npy"  # two numbers, joined by an underscore, where # stands
_OFFICIAL_SUFFIX_LENGTH = len(_OFFICIAL_SUFFIX_BYTES)
_ROW_FORMAT = "path <tab> n_mels <tab> n_frames [<tab> profile]"


@dataclass
class Manifest:
    """One split's clips. Strings are decoded when they are asked for.

    Attributes:
        path: the manifest file.
        root: folder that the clips' paths start from.
        clips: N feature paths, as written.
        n_mels: mel bands of every clip.
        frames: (N,) int64 frame counts.
        profiles: (N,) int64 codes, equal where two clips share a profile; None without a profile column.
        profile_names: the name of each code.
        own_profiles: (N,) codes of the clips' own profiles, where ``profiles`` are shuffled ones; otherwise None.
    """

    path: Path
    root: Path
    clips: Sequence[str]
    n_mels: int
    frames: np.ndarray
    profiles: np.ndarray | None
    profile_names: Sequence[str]
    own_profiles: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def own_profile(self, row: int) -> str:
        """The name of a clip's own profile, whatever group it was given; empty without profiles."""
        codes = self.profiles if self.own_profiles is None else self.own_profiles
        return "" if codes is None else self.profile_names[codes[row]]

    def line_of(self, row: int) -> str:
        """Where row ``row`` stands, for messages."""
        return f"{self.path}:{row + 2}"


def read_manifest(path: str | Path, profiling: bool = False) -> Manifest:
    """Read and check a manifest.

    Args:
        path: the ``.tsv`` file.
        profiling: profiles are needed; a manifest of three columns then gives them by the official name rule.

    Raises:
        InputError: missing or empty file, malformed row, differing mel counts, no profiles although needed.
    """
    path = Path(path)
    lines = read_lines(path, "manifest")
    if len(lines) == 1:
        raise InputError(f"{path}: the manifest has a folder line and no clip; every row is {_ROW_FORMAT}")
    columns = _columns(lines, profiling)
    if columns is None:
        raise InputError(_first_mistake(path, lines, profiling))
    clips, n_mels, frames, names = columns
    root = Path(lines[0])
    profiles, profile_names = _encode_profiles(names, clips) if names else (None, [])
    return Manifest(
        path, root if root.is_absolute() else path.parent / root, clips, n_mels, frames, profiles, profile_names
    )


def _columns(lines: TextSpans, profiling: bool) -> tuple[TextSpans, int, np.ndarray, TextSpans | None] | None:
    """Paths, mel count, frames (N,) and profile names; None if any row is not as it should be."""
    buffer, starts, ends = lines.buffer, lines.starts[1:], lines.ends[1:]
    tabs = positions(buffer[: ends[-1]], b"\t")
    tabs = tabs[np.searchsorted(tabs, starts[0]) :]
    n_tabs = int(np.searchsorted(tabs, ends[0]))
    if n_tabs not in (2, 3) or len(tabs) != n_tabs * len(starts):
        return None
    tabs = tabs.reshape(-1, n_tabs)
    # Where columns differ in number some tabs are not their row's; a tab at a row's start is an empty path.
    if (tabs[:, 0] <= starts).any() or (tabs[:, -1] >= ends).any():
        return None
    mels, mels_sound = whole_numbers(TextSpans(buffer, tabs[:, 0] + 1, tabs[:, 1]))
    frames, frames_sound = whole_numbers(TextSpans(buffer, tabs[:, 1] + 1, tabs[:, 2] if n_tabs == 3 else ends))
    if not (mels_sound & frames_sound & (mels > 0) & (mels == mels[0]) & (frames > 0)).all():
        return None
    clips = TextSpans(buffer, starts, tabs[:, 0].copy())
    names = None
    if n_tabs == 3:
        names = TextSpans(buffer, tabs[:, 2] + 1, ends)
    elif profiling:
        names = _official_profiles(clips)
        if names is None:
            return None
    return clips, int(mels[0]), frames, names


def _official_profiles(clips: TextSpans) -> TextSpans | None:
    """Base names without their last 17 characters; None if any ends in something else than the official ones."""
    ends = clips.ends - _OFFICIAL_SUFFIX_LENGTH
    sound = np.ones(len(clips), bool)  # a shorter path has a line end among these characters, which none of them is
    underscores = np.zeros(len(clips), np.int64)
    for place, wanted in enumerate(_OFFICIAL_SUFFIX_BYTES):
        character = clips.buffer[ends + place]
        if wanted == ord("#"):
            is_underscore = character == ord("_")
            underscores += is_underscore
            sound &= is_underscore | (character >= ord("0")) & (character <= ord("9"))
        else:
            sound &= character == wanted
    # Of the eight characters one is an underscore, neither the first nor the last.
    sound &= (underscores == 1) & (clips.buffer[ends + 5] != ord("_")) & (clips.buffer[ends + 12] != ord("_"))
    if not sound.all():
        return None
    slashes = np.concatenate([[-1], positions(clips.buffer[: clips.ends[-1]], b"/")])
    last_slash = slashes[np.searchsorted(slashes, ends) - 1]
    return TextSpans(clips.buffer, np.maximum(clips.starts, last_slash + 1), ends)


def _first_mistake(path: Path, lines: TextSpans, profiling: bool) -> str:
    """The sentence for the first row that is not as it should be."""
    rows = (lines[number].split("\t") for number in range(1, len(lines)))
    first = lines[1].split("\t")
    mistakes = ((number, _mistake(row, first, profiling)) for number, row in enumerate(rows, start=2))
    return next(f"{path}:{number}: {mistake}" for number, mistake in mistakes if mistake)


def _mistake(row: list[str], first: list[str], profiling: bool) -> str | None:
    if len(row) not in (3, 4) or not row[0]:
        return f"{len(row)} column(s), 3 or 4 are wanted: {_ROW_FORMAT}"
    if len(row) != len(first):
        return f"{len(row)} columns where line 2 has {len(first)}; give every row the same columns"
    for column, text in (("n_mels", row[1]), ("n_frames", row[2])):
        digits = text.lstrip("0")
        if not digits or not (text.isascii() and text.isdigit()):
            return f"{column} is {text!r}, a positive whole number is wanted; a row is {_ROW_FORMAT}"
        if len(digits) > len(str(LARGEST_NUMBER)) or int(digits) > LARGEST_NUMBER:
            return f"{column} is above {LARGEST_NUMBER}; a row is {_ROW_FORMAT}"
        if column == "n_mels" and int(digits) != int(first[1]):
            return f"{int(digits)} mel bands where line 2 has {int(first[1])}; prepare all clips with one recipe"
    name = row[0].rpartition("/")[2]
    if len(row) == 3 and profiling and not _OFFICIAL_SUFFIX.fullmatch(name[-_OFFICIAL_SUFFIX_LENGTH:]):
        return (
            f"no profile column, and the name {name!r} does not end like '_mel_2048_128.npy' for the official "
            "rule; add the profile as fourth column, or do without profiles (task.profiling=false and "
            "task.profile_normalize=false)"
        )
    return None


class _ProfileNames(Sequence):
    """The name of each code: as written, or made from the path of its only clip."""

    def __init__(self, names: TextSpans, clips: TextSpans):
        self._names, self._clips = names, clips

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, code: int) -> str:
        return self._names[code] or f"clip:{self._clips[code]}"


def _encode_profiles(names: TextSpans, clips: TextSpans) -> tuple[np.ndarray, Sequence[str]]:
    """Codes in order of first appearance; an empty name is a group of one."""
    rows = np.arange(len(names))
    first = np.where(names.starts == names.ends, rows, first_equal(names))
    is_first = first == rows
    return (np.cumsum(is_first) - 1)[first], _ProfileNames(names.take(is_first), clips.take(is_first))


def check_files(manifest: Manifest) -> None:
    """Look for missing and truncated feature files without opening them.

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


def clip_keys(manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    """:func:`path_keys` (R,) of the clips of some rows (R,)."""
    name_of = ClipNames(manifest.root)
    return path_keys(name_of(manifest.clips[row]) for row in rows.tolist())
