"""Checkpoints that survive kills, power cuts and full disks: written whole, and checked before they are read.

A checkpoint is a zip with a check sum for each of its tensors.
"""

import contextlib
import logging
import os
import shutil
from pathlib import Path

import torch

from fairseq_neupronet.checkpoints.plain import read_plain_checkpoint
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file

logger = logging.getLogger(__name__)

_COPY_BYTES = 1 << 24


def write(state: dict, path) -> None:
    """Save a checkpoint: written aside, synced, renamed.

    Raises:
        InputError: the disk is full, or the folder cannot be written to; the earlier file is as it was.
    """
    with _kept_where_it_fails(path), atomic_file(path, "wb", synced=True) as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:
            # What torch says of a full disk has the system's own error behind it.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def copy(source, target) -> None:
    """Copy a checkpoint in the same way.

    Raises:
        InputError: as :func:`write`.
    """
    with _kept_where_it_fails(target), open(source, "rb") as stream, atomic_file(target, "wb", synced=True) as copied:
        shutil.copyfileobj(stream, copied, _COPY_BYTES)


@contextlib.contextmanager
def _kept_where_it_fails(path):
    try:
        yield
    except InputError as error:
        raise InputError(
            f"{error}; the training stops, earlier checkpoints are kept, and the same command goes on from the newest"
        ) from error.__cause__


def keep_previous(path) -> None:
    """Before the only checkpoint of a folder is replaced, keep it as ``checkpoint_previous.pt``.

    Args:
        path: the file about to be replaced.
    """
    path = Path(path)
    previous = _previous(path)
    others = set(path.parent.glob("checkpoint*.pt")) - {path, previous}
    if others:
        previous.unlink(missing_ok=True)
    elif path.exists():
        temporary = previous.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:  # not every file system has links
            copy(path, previous)
        else:
            os.replace(temporary, previous)


def _previous(last: Path) -> Path:
    return last.with_name(last.name.replace("checkpoint_last", "checkpoint_previous"))


def updates_of(path) -> int | None:
    """Number of updates of a checkpoint that a training can be resumed from; None if it is damaged, or not one."""
    try:
        state = read_plain_checkpoint(path)
        return int(state["optimizer_history"][-1]["num_updates"]) if "train_iterator" in state["extra_state"] else None
    except Exception:  # what a damaged file raises depends on its bytes
        return None


def repair(last) -> None:
    """Make the checkpoint that a training resumes from whole again, from the newest other one; says so in one line.

    Args:
        last: path of ``checkpoint_last.pt``. A damaged one is put aside with the ending ``.damaged``.
    """
    last = Path(last)
    for left in last.parent.glob(".checkpoint*.tmp"):
        left.unlink()
    others = set(last.parent.glob("checkpoint*.pt")) - {last}
    if updates_of(last) is not None or not (others or last.exists()):
        return
    usable = {path: updates for path in others if (updates := updates_of(path)) is not None}
    what = f"{last} is {'damaged' if last.exists() else 'missing'}"
    if last.exists():
        os.replace(last, f"{last}.damaged")
    if usable:
        newest = max(usable, key=usable.get)
        copy(newest, last)
        logger.warning(f"{what}: the training resumes from {newest.name}, of update {usable[newest]}")
    else:
        logger.warning(f"{what}, and there is no other checkpoint: the training starts from the beginning")
