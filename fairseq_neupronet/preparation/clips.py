"""What preparation knows about clips, whichever data set they come from; metadata tables with one clip per row."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import read_metadata

SPLITS = ("train", "valid", "test")
COLUMNS = ("path", "label", "profile", "split")
RECORDING = "recording"
SPLIT_NAMES = {
    "train": "train",
    "tr": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
    "te": "test",
}
# fairseq's Dictionary adds these itself, and a line that ends in the flag overwrites an entry.
_RESERVED = {"<s>", "<pad>", "</s>", "<unk>", "#fairseq:overwrite"}


@dataclass(frozen=True)
class Clip:
    """One audio file, or a part of one.

    Args:
        path: the audio file.
        label: its class, without whitespace.
        profile: what groups clips: a source recording, a speaker, a patient.
        split: ``train``, ``valid`` or ``test``.
        key: path of its features below the features folder, without ``.npy``; unique.
        start: seconds from the file's start to the part's; None for the whole file.
        end: seconds from the file's start to the part's end.
        recording: what it was cut from; None where the data set does not tell, ``""`` for one of its own.
    """

    path: Path
    label: str
    profile: str
    split: str
    key: str
    start: float | None = None
    end: float | None = None
    recording: str | None = None


@dataclass(frozen=True)
class Collection:
    """A data set, read and checked, before any audio is touched.

    Args:
        source: the metadata file or folder, as messages name it.
        classes: class names in their fixed order.
        partitions: folder below the output folder (``""`` for the output folder itself) → its clips, split by split.
            Partitions share features: equal keys are one file.
        notes: sentences to print, e.g. what was left out.

    Raises:
        InputError: what no training could use: no clips; a clip listed twice; two audio files with one features file; a
            class name that a fairseq dictionary cannot hold; a class in valid or test that train lacks.
    """

    source: Path
    classes: list[str]
    partitions: dict[str, list[Clip]]
    notes: list[str] = field(default_factory=list)

    def clips(self) -> list[Clip]:
        """Every clip once, whatever the number of partitions it is in."""
        return list({clip.key: clip for clips in self.partitions.values() for clip in clips}.values())

    def __post_init__(self):
        clips = self.clips()
        if not clips:
            raise InputError(f"{self.source}: lists no clips; add rows")
        for name in self.classes:
            if name in _RESERVED or not name or any(character.isspace() for character in name):
                raise InputError(f"{self.source}: {name!r} cannot be a class in a fairseq dictionary; rename it")
        for folder, partition in self.partitions.items():
            paths = {}
            for clip in partition:
                if clip.key in paths and paths[clip.key] == clip.path:
                    raise InputError(f"{self.source}: {clip.path} is listed twice; take one of them out")
                if clip.key in paths:
                    raise InputError(
                        f"{self.source}: {paths[clip.key]} and {clip.path} would share the features file "
                        f"{clip.key}.npy; rename one of them"
                    )
                paths[clip.key] = clip.path
            counts = {split: Counter(clip.label for clip in partition if clip.split == split) for split in SPLITS}
            for split in SPLITS[1:]:
                missing = [name for name in self.classes if counts[split][name] and not counts["train"][name]]
                if missing:
                    where = f"{self.source}, {folder}" if folder else f"{self.source}"
                    raise InputError(
                        f"{where}: class {', '.join(missing)} is in {split} ({counts[split][missing[0]]} "
                        f"clips) but not in train; add training clips of it or take it out of {split}"
                    )


def read_table(metadata, classes: list[str] | None = None, must_exist: bool = True) -> Collection:
    """A data set from a table (CSV, or TSV by suffix) with the columns path, label, profile, split.

    A column ``recording`` may name what each clip was cut from; it may be empty.

    Paths are relative to the table's folder. An empty profile is a group of one: its code is ``clip:<path>``, which no
    other clip can have. A fairseq dictionary holds no whitespace in a label: it becomes ``_``, and a note says so.

    Args:
        metadata: the table.
        classes: the class names in their fixed order; None takes the sorted labels of the table.
        must_exist: refuse rows whose audio file is missing.

    Raises:
        InputError: naming table, line and cure.
    """
    metadata = Path(metadata)
    clips, seen, originals = [], {}, {}
    for line, row in read_metadata(metadata, COLUMNS, optional=[RECORDING]):
        at = f"{metadata}, line {line}"
        if not row["path"]:
            raise InputError(f"{at}: path is empty; give the audio file")
        if not row["label"]:
            raise InputError(f"{at}: label is empty; give the clip's class or take the row out")
        if row["split"].lower() not in SPLIT_NAMES:
            raise InputError(f"{at}: split is {row['split']!r}; give train, valid or test")
        relative = os.path.normpath(row["path"])
        if relative in seen:
            raise InputError(f"{at}: {row['path']} is already in line {seen[relative]}; take one of them out")
        seen[relative] = line
        path = metadata.parent / relative
        if must_exist and not path.is_file():
            raise InputError(f"{at}: no audio file {path}; correct the path (relative to the table's folder)")
        label = "_".join(row["label"].split())
        if originals.setdefault(label, row["label"]) != row["label"]:
            raise InputError(
                f"{at}: label {row['label']!r} and {originals[label]!r} are one class {label!r} to "
                "fairseq, whose labels hold no whitespace; rename one"
            )
        if classes is not None and label not in classes:
            raise InputError(f"{at}: unknown label {label!r}; known ones: {', '.join(classes)}")
        if row["profile"].startswith("clip:"):
            raise InputError(
                f"{at}: profile {row['profile']!r} begins with 'clip:', which stands for an empty profile; rename it"
            )
        # Parts that lead out of the table's folder would lead out of the features folder too.
        parts = [part for part in Path(relative).with_suffix("").parts if part not in ("..", Path(relative).anchor)]
        clips.append(
            Clip(
                path,
                label,
                row["profile"] or f"clip:{relative}",
                SPLIT_NAMES[row["split"].lower()],
                "/".join(parts),
                recording=row.get(RECORDING),
            )
        )
    notes = [f"label {original!r} is written {label!r}" for label, original in originals.items() if label != original]
    return Collection(metadata, classes or sorted(originals), {"": clips}, notes)
