"""A prepared folder's texts, in the official layout but for the last: what is read is checked, with file and line.

``{split}.tsv``, the manifest: line 1 is the folder of the features, absolute or relative to the manifest; then there is
one row a clip, ``path <tab> n_mels <tab> n_frames [<tab> profile]``. A path is that of an ``.npy`` file, or
``file.zip:offset:length``. ``{split}.label``: one class name a line, in the order of the manifest's rows.
``dict.label.txt``: one class a line, ``name count``; the line number is the class index. ``{split}.recording``: one id
of a source recording a line, in the order of the rows.

All rows are checked at once, as columns of bytes. Only if something is wrong are they read one by one, to say where.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.data.clip_files import ClipNames
from fairseq_neupronet.data.string_column import (
    LARGEST_NUMBER,
    StringColumn,
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
    if columns is None:  # the sentence for the first row that is not as it should be
        rows = (lines[number].split("\t") for number in range(1, len(lines)))
        mistakes = ((number, _mistake(row, lines[1].split("\t"), profiling)) for number, row in enumerate(rows, 2))
        raise InputError(next(f"{path}:{number}: {mistake}" for number, mistake in mistakes if mistake))
    clips, n_mels, frames, names = columns
    root = Path(lines[0])
    profiles, profile_names = _encode_profiles(names, clips) if names else (None, [])
    return Manifest(
        path, root if root.is_absolute() else path.parent / root, clips, n_mels, frames, profiles, profile_names
    )


def _columns(lines: StringColumn, profiling: bool) -> tuple[StringColumn, int, np.ndarray, StringColumn | None] | None:
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
    mels, mels_sound = whole_numbers(StringColumn(buffer, tabs[:, 0] + 1, tabs[:, 1]))
    frames, frames_sound = whole_numbers(StringColumn(buffer, tabs[:, 1] + 1, tabs[:, 2] if n_tabs == 3 else ends))
    if not (mels_sound & frames_sound & (mels > 0) & (mels == mels[0]) & (frames > 0)).all():
        return None
    clips = StringColumn(buffer, starts, tabs[:, 0].copy())
    fourth = StringColumn(buffer, tabs[:, 2] + 1, ends) if n_tabs == 3 else None
    names = _official_profiles(clips) if profiling and fourth is None else fourth
    if profiling and names is None:
        return None
    return clips, int(mels[0]), frames, names


def _official_profiles(clips: StringColumn) -> StringColumn | None:
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
    return StringColumn(clips.buffer, np.maximum(clips.starts, last_slash + 1), ends)


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

    def __init__(self, names: StringColumn, clips: StringColumn):
        self._names, self._clips = names, clips

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, code: int) -> str:
        return self._names[code] or f"clip:{self._clips[code]}"


def _encode_profiles(names: StringColumn, clips: StringColumn) -> tuple[np.ndarray, Sequence[str]]:
    """Codes in order of first appearance; an empty name is a group of one."""
    rows = np.arange(len(names))
    first = np.where(names.starts == names.ends, rows, first_equal(names))
    is_first = first == rows
    return (np.cumsum(is_first) - 1)[first], _ProfileNames(names.take(is_first), clips.take(is_first))


def clip_keys(manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    """:func:`path_keys` (R,) of the clips of some rows (R,)."""
    name_of = ClipNames(manifest.root)
    return path_keys(name_of(manifest.clips[row]) for row in rows.tolist())


def read_classes(path: str | Path) -> list[str]:
    """Class names in index order, from a ``dict.label.txt``.

    Raises:
        InputError: missing or empty file, a line that is not ``name count``, a class given twice.
    """
    path = Path(path)
    classes: dict[str, int] = {}
    for number, line in enumerate(read_lines(path, "class dictionary"), start=1):
        name, _, count = line.rpartition(" ")
        if not name or not (count.isascii() and count.isdigit()):
            raise InputError(f"{path}:{number}: {line!r} is not 'class count', for example 'cough 100'")
        if name in classes:
            raise InputError(f"{path}:{number}: class {name!r} is on line {classes[name]} already; keep one of them")
        classes[name] = number
    return list(classes)


def read_labels(manifest: Manifest, known: list[str], classes: list[str]) -> np.ndarray:
    """Class indices of a manifest's clips.

    Args:
        manifest: of N clips; their labels are in the ``.label`` file beside it.
        known: the class names of the data's own dictionary.
        classes: the model's class names; the index returned is the position in here.

    Returns:
        (N,) int64.

    Raises:
        InputError: missing or empty file, another number of lines than clips, an unknown label.
    """
    path, labels = _lines_beside(manifest, "label", "label file")
    first = first_equal(labels)
    index = {name: number for number, name in enumerate(classes)}
    class_of_first = np.empty(len(labels), np.int64)
    for row in np.flatnonzero(first == np.arange(len(labels))):
        label = labels[row].strip()
        if label not in known:
            raise InputError(
                f"{path}:{row + 1}: label {label!r} is not in {path.with_name('dict.label.txt')} ({', '.join(known)})"
            )
        class_of_first[row] = index[label]
    return class_of_first[first]


def read_recordings(manifest: Manifest) -> np.ndarray | None:
    """Codes of a manifest's recordings, from the ``.recording`` file beside it.

    Args:
        manifest: of N clips.

    Returns:
        (N,) int64, equal where two clips are cut from one recording; an empty line is a recording of its own. None
        where there is no such file.

    Raises:
        InputError: an empty or unreadable file, or another number of lines than clips.
    """
    if not manifest.path.with_suffix(".recording").exists():
        return None
    _, names = _lines_beside(manifest, "recording", "file of recordings")
    return np.where(names.starts == names.ends, np.arange(len(names)), first_equal(names))


def _lines_beside(manifest: Manifest, entry: str, what: str) -> tuple[Path, StringColumn]:
    """The file ``{split}.{entry}`` and its lines, one a clip."""
    path = manifest.path.with_suffix(f".{entry}")
    lines = read_lines(path, what)
    if len(lines) != len(manifest):
        raise InputError(
            f"{path}: {len(lines)} {entry}s for the {len(manifest)} clips of {manifest.path}; give one {entry} a clip"
        )
    return path, lines


def describe_training_data(manifest: Manifest, max_sample_size: int | None, classes: list[str] | None = None) -> dict:
    """What a checkpoint has to know of the split that it was trained on, in plain containers.

    Args:
        manifest: the training split's.
        max_sample_size: frames that longer clips are cut to; None where they are not.
        classes: K names of the data's dictionary; None where the clips have no labels.

    Returns:
        ``n_mels``; ``fixed_frames``, of the longest clip; ``recipe``, how the features were computed, None where their
        folder does not say; with classes also ``classes`` and ``train_clips``, how many each class has.

    Raises:
        InputError: see :func:`read_labels`.
    """
    recipe, longest = FeatureRecipe.read(manifest.root), int(manifest.frames.max())
    data = {
        "n_mels": manifest.n_mels,
        "fixed_frames": min(longest, max_sample_size) if max_sample_size else longest,
        "recipe": recipe.to_dict() if recipe else None,
    }
    if classes is not None:
        targets = read_labels(manifest, classes, classes)
        data |= {"classes": classes, "train_clips": np.bincount(targets, minlength=len(classes)).tolist()}
    return data
