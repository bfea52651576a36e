"""Metadata tables (CSV, or TSV by suffix) with one clip per row."""

import csv
import os
from pathlib import Path

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import require_regular
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


def read_rows(path, columns, optional=()) -> list[tuple[int, dict[str, str]]]:
    """Read the named columns of a table, cells stripped; other columns are ignored.

    Args:
        path: a CSV file, or a TSV file if it ends in ``.tsv``; UTF-8, first line the column names.
        columns: the names that must be there.
        optional: names that are read where they are there.

    Returns:
        (line number, column → cell) per row; empty lines are skipped.

    Raises:
        InputError: a missing or unreadable file, a missing column or one named twice, a row of another length
            than the header.
    """
    path = Path(path)
    require_regular(path, "the metadata table")
    try:
        # utf-8-sig: spreadsheet programs write a byte-order mark, which would become part of the first column's name.
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
            lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of the metadata table") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a UTF-8 CSV table ({error}); save it as one") from error
    if not lines:
        raise InputError(
            f"{path}: is empty; write a header line with the columns {','.join(columns)} and a row per clip"
        )
    header = [name.strip() for name in lines[0][1]]
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(
            f"{path}, line {lines[0][0]}: no column {', '.join(missing)} in the header ({', '.join(header)}); add it"
        )
    twice = [name for name in (*columns, *optional) if header.count(name) > 1]
    if twice:
        raise InputError(
            f"{path}, line {lines[0][0]}: column {', '.join(twice)} is more than once in the header "
            f"({', '.join(header)}); rename one"
        )
    rows = []
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise InputError(
                f"{path}, line {line}: {len(cells)} cells where the header has {len(header)}; correct "
                "the row (quote cells that hold the separator)"
            )
        row = {
            name: cell.strip() for name, cell in zip(header, cells, strict=True) if name in columns or name in optional
        }
        for name, cell in row.items():
            if any(character in cell for character in "\t\r\n"):
                raise InputError(f"{path}, line {line}: {name} holds a tab or a line break; take it out")
        rows.append((line, row))
    return rows


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
    for line, row in read_rows(metadata, COLUMNS, optional=[RECORDING]):
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
