"""Metadata tables (CSV, or TSV by suffix) with one clip per row."""

import os
from pathlib import Path

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import read_metadata
from fairseq_neupronet.preparation.clips import Clip, Collection

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


def read_table(metadata, classes: list[str] | None = None, must_exist: bool = True) -> Collection:
    """A data set from a table with the columns path, label, profile, split.

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
