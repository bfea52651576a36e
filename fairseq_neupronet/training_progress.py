"""``progress.json`` beside the checkpoints: how far a training is, for whoever draws a bar of it.

Nothing here needs fairseq. The training writes the file once a second at most, and once more at its end; the file is
whole at any moment, and does not say whether the training's process still lives.
"""

import json
import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file

logger = logging.getLogger(__name__)

NAME = "progress.json"
_EVERY = 1.0  # seconds between two writes, at least


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Attributes:
        update: updates made so far, those before a resumption included.
        of: updates in all; None where neither ``max_update`` nor ``max_epoch`` is set.
        epoch: from 1; 0 before the first update.
        seconds: since this start of the training had its checkpoint loaded.
        seconds_left: at the pace of this start so far, its validations included; None where it cannot be told.
        metric: ``checkpoint.best_checkpoint_metric``.
        value: the last validation's figure of that name, on the first validation subset; None before the first
            validation, and where it is not defined.
        state: ``training``, ``validating`` or ``done``.
    """

    update: int
    of: int | None
    epoch: int
    seconds: float
    seconds_left: float | None
    metric: str
    value: float | None
    state: str


def read_progress(folder: str | Path) -> Progress | None:
    """Read the progress of the training whose checkpoints are in ``folder``; None where it has written none."""
    try:
        return Progress(**json.loads((Path(folder) / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # not there yet, or of another version
        return None


def finish_progress(folder: str | Path) -> None:
    """Note that the training is done: all updates that it wanted, whether or not they are all that it might have."""
    progress = read_progress(folder)
    if progress is not None:
        _write(folder, replace(progress, seconds_left=0.0, state="done"))


class ProgressWriter:
    """Writes the file of one start of a training.

    Args:
        folder: of the checkpoints.
        metric: see :class:`Progress`.
        value: of the validation that the training is resumed from, if any.
        update: the update that it is resumed from, or 0.
        clock: gives seconds.
    """

    def __init__(
        self, folder: str | Path, metric: str, value: float | None = None, update: int = 0, clock=time.monotonic
    ):
        self._folder, self._metric, self._clock = folder, metric, clock
        self._began, self._first, self._next = clock(), update, -math.inf
        self._place, self._value = (update, None, 0), value

    def move(self, update: int, of: int | None, epoch: int) -> None:
        """An update was made."""
        self._place = update, of, epoch

    def validated(self, value: float) -> None:
        """A validation has ended with this figure."""
        self._value = value

    def write(self, state: str, at_once: bool = False) -> None:
        """Write the file, unless it was written within the last second and this need not be told at once."""
        now = self._clock()
        if now < self._next and not at_once:
            return
        self._next = now + _EVERY
        (update, of, epoch), seconds, left = self._place, now - self._began, None
        if of is not None and update > self._first:
            left = round(seconds / (update - self._first) * max(0, of - update), 1)
        value = self._value if self._value is not None and math.isfinite(self._value) else None
        try:
            _write(self._folder, Progress(update, of, epoch, round(seconds, 1), left, self._metric, value, state))
        except InputError as error:
            self._next = math.inf
            logger.warning(f"{error}; the training goes on and tells its progress no more")


def updates_in_all(options, epoch_itr, updates: int) -> int | None:
    """How many updates a training has at its end.

    Args:
        options: section ``optimization`` of fairseq's configuration.
        epoch_itr: its iterator of the running epoch's batches.
        updates: made so far.

    Returns:
        The fewer of what ``max_update`` and ``max_epoch`` allow; None if neither is set.
    """
    ends = [options.max_update] if options.max_update > 0 else []
    if options.max_epoch > 0:
        rounded = math.floor if options.skip_remainder_batch else math.ceil
        batches, together = len(epoch_itr), options.update_freq[min(epoch_itr.epoch, len(options.update_freq)) - 1]
        left = rounded((batches - epoch_itr.iterations_in_epoch) / together)
        ends.append(updates + left + (options.max_epoch - epoch_itr.epoch) * rounded(batches / together))
    return min(ends, default=None)


def _write(folder: str | Path, progress: Progress) -> None:
    with atomic_file(Path(folder) / NAME) as file:
        json.dump(asdict(progress), file)
        file.write("\n")
