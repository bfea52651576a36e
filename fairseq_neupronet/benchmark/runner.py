"""Runs cells, several at a time, and shows how far they are."""

import shutil
import signal
import sys
import time
from dataclasses import dataclass, field

from fairseq_neupronet.benchmark.cell_folder import CellFolder, Settings
from fairseq_neupronet.benchmark.cells import Cell
from fairseq_neupronet.benchmark.running_cell import CellLock, RunningCell, signals_ignored
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.training_progress import read_progress

_PAUSE = 0.2  # seconds between two looks at the children
_EVERY = 0.5  # seconds between two drawings


class Progress:
    """Lines for what happens, and on a terminal a table of the cells at work below them.

    Args:
        stream: where to; unset: standard output.
    """

    def __init__(self, stream=None):
        self._stream = sys.stdout if stream is None else stream
        self._live = self._stream.isatty()
        self._drawn, self._last = 0, 0.0
        self._total = self._ended = self._failed = 0

    def begin(self, waiting: list[Cell], kept: list[Cell]) -> None:
        self._total = len(waiting)
        self.say(f"{len(waiting)} cells to run" + (f", {len(kept)} finished before" if kept else ""))

    def say(self, line: str) -> None:
        self._erase()
        print(f"benchmark: {line}", file=self._stream, flush=True)

    def finished(self, running) -> None:
        self._ended += 1
        self.say(f"[{self._ended + self._failed}/{self._total}] {running.cell.name}: done in {_time(running.took)}")

    def kept(self, cell: Cell) -> None:
        self._ended += 1
        self.say(f"[{self._ended + self._failed}/{self._total}] {cell.name}: finished meanwhile by another benchmark")

    def failed(self, cell: Cell, reason: str) -> None:
        self._failed += 1
        self.say(f"[{self._ended + self._failed}/{self._total}] {cell.name}: FAILED, {reason}")

    def show(self, running: list) -> None:
        """Redraw the table of the cells at work."""
        if not self._live or time.monotonic() - self._last < _EVERY:
            return
        self._last = time.monotonic()
        left = self._total - self._ended - self._failed - len(running)
        lines = [f"{self._ended} done · {len(running)} at work · {self._failed} failed · {left} to go"]
        width = max((len(one.cell.name) for one in running), default=0)
        for one in running:
            spent, newest = _time(one.seconds()), _newest(one)
            lines.append(f"  {one.cell.name:<{width}}  {one.step:<10}  {spent:>8}  {newest}")
        columns = shutil.get_terminal_size().columns
        self._erase()
        self._stream.write("".join(f"{line[: columns - 1]}\n" for line in lines))
        self._stream.flush()
        self._drawn = len(lines)

    def close(self) -> None:
        self._erase()
        self._stream.flush()

    def _erase(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0


def _newest(cell: RunningCell) -> str:
    """Epoch, update, time left and last validation, as the training's ``progress.json`` tells them."""
    progress = read_progress(cell.folder.checkpoints)
    if cell.step != "training" or progress is None or not progress.update:
        return ""
    of = "" if progress.of is None else f"/{progress.of}"
    found = [f"epoch {progress.epoch} update {progress.update}{of}"]
    if progress.seconds_left is not None:
        found.append(f"{_time(progress.seconds_left)} left")
    if progress.value is not None:
        found.append(f"validation {progress.metric} {progress.value:.4g}")
    return ", ".join(found)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@dataclass
class Tally:
    """Which cells a run has done, and which not.

    Attributes:
        finished: cells that were run to their end.
        kept: cells that had been finished before, or by another runner meanwhile.
        failed: cell → why.
    """

    finished: list[Cell] = field(default_factory=list)
    kept: list[Cell] = field(default_factory=list)
    failed: dict[Cell, str] = field(default_factory=dict)


def run_cells(cells: list[Cell], settings: Settings, progress: Progress) -> Tally:
    """Run what is not finished, ``settings.jobs`` at a time, and leave no child behind.

    Args:
        cells: in order; an extractor before the cells that need it.
        settings: see :class:`Settings`.
        progress: is told what happens.

    Raises:
        KeyboardInterrupt, SystemExit: on SIGINT and SIGTERM, once the children are ended.
        InputError: what a user's mistake does before any cell starts.
    """
    tally, waiting, running = Tally(), [], []
    for cell in cells:
        folder = settings.folder(cell)
        if folder.is_finished(settings.digest(cell)):
            tally.kept.append(cell)
            _tidy(folder, settings)
        else:
            waiting.append(cell)
    progress.begin(waiting, tally.kept)
    before = signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        while waiting or running:
            _start(waiting, running, tally, settings, progress)
            for cell in list(running):
                failure = cell.poll()
                if failure is not None:
                    running.remove(cell)
                    _end(cell, failure, tally, progress)
            progress.show(running)
            if running:
                time.sleep(_PAUSE)
    finally:
        _stop(running)
        progress.close()
        signal.signal(signal.SIGTERM, before)
    return tally


def _stop(running: list[RunningCell]) -> None:
    """End all at once."""
    with signals_ignored():
        for cell in running:
            cell.ask_to_stop()
        for cell in running:
            cell.stop()


def _tidy(folder: CellFolder, settings: Settings) -> None:
    """What a runner leaves behind that is killed between a cell's end and its cleaning."""
    if folder.lock.exists():
        lock = CellLock(folder.lock)
        try:
            lock.take()
        except InputError:  # its runner lives, and cleans up itself
            return
        lock.release()
    if not settings.keep_checkpoints:
        folder.drop_checkpoints()


def _start(
    waiting: list[Cell], running: list[RunningCell], tally: Tally, settings: Settings, progress: Progress
) -> None:
    done = {*tally.finished, *tally.kept}
    for cell in list(waiting):
        if len(running) >= settings.jobs:
            return
        if cell.extractor in tally.failed:
            waiting.remove(cell)
            tally.failed[cell] = f"its extractor {cell.extractor.name} failed"
            progress.failed(cell, tally.failed[cell])
        elif cell.extractor is None or cell.extractor in done:
            waiting.remove(cell)
            slot = min(set(range(settings.jobs)) - {other.slot for other in running})
            try:
                begun = RunningCell(cell, settings, slot, progress.say)
                if begun.was_finished:
                    tally.kept.append(cell)
                    done.add(cell)
                    progress.kept(cell)
                else:
                    running.append(begun)
            except (InputError, OSError) as error:
                tally.failed[cell] = str(error)
                progress.failed(cell, tally.failed[cell])


def _end(running: RunningCell, failure: str, tally: Tally, progress) -> None:
    if failure:
        tally.failed[running.cell] = failure
        progress.failed(running.cell, failure)
    else:
        tally.finished.append(running.cell)
        progress.finished(running)


def _exit_on_signal(number: int, frame) -> None:
    raise SystemExit(128 + number)
