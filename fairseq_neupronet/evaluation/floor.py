"""The floor of a prepared folder: what statistics of its clips alone reach, kept with the data in ``probe.json``.

A network that does not reach it has learned less than a logistic regression. ``neupronet probe`` measures it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file

NAME = "probe.json"
_VERSION = 1  # of what is measured; a file of another one counts as stale
_SUFFIXES = (".tsv", ".label", ".recording")


@dataclass(frozen=True)
class Floor:
    """The figures of one protocol on one subset.

    Attributes:
        accuracy: share of the clips that are classified right.
        low, high: 95 % interval of the accuracy, by bootstrap over profiles; NaN with a single profile.
        balanced_accuracy: mean over the classes of the share that is classified right.
    """

    accuracy: float
    low: float
    high: float
    balanced_accuracy: float


def digest(folder: Path, splits: tuple[str, ...]) -> str:
    """SHA-256 of the manifests, labels, recordings and classes that figures were made from, and of the method."""
    names = [f"{split}{suffix}" for split in splits for suffix in _SUFFIXES]
    total = hashlib.sha256(f"probe {_VERSION}".encode())
    for path in [folder / name for name in ("dict.label.txt", *names)]:
        content = path.read_bytes() if path.is_file() else b""
        total.update(f"\n{path.name} {len(content)}\n".encode() + content)
    return total.hexdigest()


def write_probe(folder: Path, subset: str, figures: dict) -> Path:
    """Put a subset's figures beside those of others that the folder has.

    Args:
        folder: the prepared folder.
        subset: its name.
        figures: plain containers, with ``splits`` and ``digest`` as of :func:`digest`.

    Raises:
        InputError: the file cannot be written.
    """
    path = folder / NAME
    try:
        kept = _read(path)
    except InputError:  # damaged: written anew
        kept = {}
    with atomic_file(path) as file:
        json.dump(kept | {subset: figures}, file, indent=2)
        file.write("\n")
    return path


def floor(data_folder: str | Path, protocol: str, subset: str = "test") -> Floor | None:
    """What the folder's probe reached.

    Args:
        data_folder: the prepared folder.
        protocol: by name, such as ``single``, ``enrol-3`` and ``full``.
        subset: by name.

    Returns:
        None where the folder was not probed on this subset, or not under this protocol.

    Raises:
        InputError: a damaged ``probe.json``, or one that was made from other manifests or labels than are there now.
    """
    folder = Path(data_folder)
    figures = _read(folder / NAME).get(subset)
    if figures is None:
        return None
    try:
        stale = figures["digest"] != digest(folder, tuple(figures["splits"]))
        found = figures["protocols"].get(protocol)
        measured = found and Floor(*(_number(found[name]) for name in Floor.__dataclass_fields__))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InputError(f"{folder / NAME}: is damaged; run neupronet probe {folder} again") from None
    if stale:
        raise InputError(
            f"{folder / NAME}: its figures of {subset} are of other manifests or labels than are there now; run "
            f"neupronet probe {folder} again"
        )
    return measured


def _number(value) -> float:
    return float("nan") if value is None else float(value)


def _read(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is damaged; run neupronet probe {path.parent} again")
    return content
