"""Labels, classes and source recordings, in files beside a manifest: what is read is checked, with file and line.

``{split}.label``: one class name a line, in the order of the manifest's rows. ``dict.label.txt``: one class a line,
``name count``; the line number is the class index. Both are of the official layout. ``{split}.recording``: one id of a
source recording a line, in the order of the rows.
"""

from pathlib import Path

import numpy as np

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.data.manifest import Manifest
from fairseq_neupronet.data.text_spans import first_equal, read_lines
from fairseq_neupronet.errors import InputError


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


def read_labels(path: str | Path, manifest: Manifest, known: list[str], classes: list[str]) -> np.ndarray:
    """Class indices of a manifest's clips.

    Args:
        path: the ``.label`` file.
        manifest: the manifest that it belongs to (N clips).
        known: the class names of the data's own dictionary.
        classes: the model's class names; the index returned is the position in here.

    Returns:
        (N,) int64.

    Raises:
        InputError: missing or empty file, another number of lines than clips, an unknown label.
    """
    path = Path(path)
    labels = read_lines(path, "label file")
    if len(labels) != len(manifest):
        raise InputError(
            f"{path}: {len(labels)} labels for the {len(manifest)} clips of {manifest.path}; one label a clip is wanted"
        )
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


def read_recordings(path: str | Path, manifest: Manifest) -> np.ndarray | None:
    """Codes of a manifest's recordings.

    Args:
        path: the ``.recording`` file.
        manifest: the manifest that it belongs to (N clips).

    Returns:
        (N,) int64, equal where two clips are cut from one recording; an empty line is a recording of its own. None
        where there is no such file.

    Raises:
        InputError: an empty or unreadable file, or another number of lines than clips.
    """
    path = Path(path)
    if not path.exists():
        return None
    names = read_lines(path, "file of recordings")
    if len(names) != len(manifest):
        raise InputError(
            f"{path}: {len(names)} recordings for the {len(manifest)} clips of {manifest.path}; one recording a clip "
            "is wanted, or no such file"
        )
    return np.where(names.starts == names.ends, np.arange(len(names)), first_equal(names))


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
        targets = read_labels(manifest.path.with_suffix(".label"), manifest, classes, classes)
        data |= {"classes": classes, "train_clips": np.bincount(targets, minlength=len(classes)).tolist()}
    return data
