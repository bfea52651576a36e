"""Runs cells, several at a time, and shows how far they are."""

import shutil
import signal
import sys
import time

from fairseq_neupronet.benchmark.cell_folder import CellFolder, Settings
from fairseq_neupronet.benchmark.cells import Cell
from fairseq_neupronet.benchmark.running_cell import CellLock, RunningCell, signals_ignored
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.training_progress import read_progress

_PAUSE = 0.2  # seconds between two looks at the children
_EVERY = 0.5  # seconds between two drawings


class Progress:
    """What becomes of the cells of a run: a line for each, and on a terminal a table of those at work below them.

    Attributes:
        finished: cells that were run to their end.
        kept: cells that had been finished before, or by another runner meanwhile.
        failed: cell → why.

    Args:
        stream: where to; unset: standard output.
    """

    def __init__(self, stream=None):
        self._stream = sys.stdout if stream is None else stream
        self.finished: list[Cell] = []
        self.kept: list[Cell] = []
        self.failed: dict[Cell, str] = {}
        self._drawn, self._last = 0, 0.0
        self._total = self._ended = 0

    def begin(self, waiting: list[Cell], kept: list[Cell]) -> None:
        """The cells to run, and those that have been finished before."""
        self._total, self.kept = len(waiting), kept
        self.say(f"{len(waiting)} cells to run" + (f", {len(kept)} finished before" if kept else ""))

    def say(self, line: str) -> None:
        self.close()
        print(f"benchmark: {line}", file=self._stream, flush=True)

    def end(self, cell: Cell, seconds: float | None = None, failure: str = "") -> None:
        """A cell is done after so many seconds, has failed, or, if neither is given, is another runner's."""
        self._ended += 1
        if failure:
            self.failed[cell], told = failure, f"FAILED, {failure}"
        elif seconds is None:
            self.kept.append(cell)
            told = "finished meanwhile by another benchmark"
        else:
            self.finished.append(cell)
            told = f"done in {_time(seconds)}"
        self.say(f"[{self._ended}/{self._total}] {cell.name}: {told}")

    def show(self, running: list) -> None:
        """Redraw the table of the cells at work."""
        if not self._stream.isatty() or time.monotonic() - self._last < _EVERY:
            return
        self._last = time.monotonic()
        done, left = self._ended - len(self.failed), self._total - self._ended - len(running)
        lines = [f"{done} done · {len(running)} at work · {len(self.failed)} failed · {left} to go"]
        width = max((len(one.cell.name) for one in running), default=0)
        for one in running:
            lines.append(f"  {one.cell.name:<{width}}  {one.step:<10}  {_time(one.seconds()):>8}  {_newest(one)}")
        columns = shutil.get_terminal_size().columns
        self.close()
        self._stream.write("".join(f"{line[: columns - 1]}\n" for line in lines))
        self._stream.flush()
        self._drawn = len(lines)

    def close(self) -> None:
        """Take the table away."""
        if self._drawn:
            print(f"\x1b[{self._drawn}F\x1b[J", end="", file=self._stream, flush=True)
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


def run_cells(cells: list[Cell], settings: Settings, progress: Progress) -> Progress:
    """Run what is not finished, ``settings.jobs`` at a time, and leave no child behind.

    Args:
        cells: in order; an extractor before the cells that need it.
        settings: see :class:`Settings`.
        progress: is told what happens.

    Returns:
        ``progress``.

    Raises:
        KeyboardInterrupt, SystemExit: on SIGINT and SIGTERM, once the children are ended.
        InputError: what a user's mistake does before any cell starts.
    """
    finished = [cell for cell in cells if settings.folder(cell).is_finished()]
    for cell in finished:
        _tidy(settings.folder(cell), settings)
    done = set(finished)
    waiting, running = [cell for cell in cells if cell not in done], []
    progress.begin(waiting, finished)
    before = signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        while waiting or running:
            _start(waiting, running, settings, progress)
            for one in list(running):
                failure = one.poll()
                if failure is not None:
                    running.remove(one)
                    progress.end(one.cell, one.took, failure)
            progress.show(running)
            if running:
                time.sleep(_PAUSE)
    finally:
        with signals_ignored():
            for one in running:
                one.ask_to_stop()
            for one in running:
                one.stop()
        progress.close()
        signal.signal(signal.SIGTERM, before)
    return progress


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


def _start(waiting: list[Cell], running: list[RunningCell], settings: Settings, progress: Progress) -> None:
    done = {*progress.finished, *progress.kept}
    for cell in list(waiting):
        if len(running) >= settings.jobs:
            return
        if cell.extractor in progress.failed:
            waiting.remove(cell)
            progress.end(cell, failure=f"its extractor {cell.extractor.name} failed")
        elif cell.extractor is None or cell.extractor in done:
            waiting.remove(cell)
            slot = min(set(range(settings.jobs)) - {other.slot for other in running})
            try:
                begun = RunningCell(cell, settings, slot, progress.say)
            except (InputError, OSError) as error:
                progress.end(cell, failure=str(error))
                continue
            if begun.was_finished:
                progress.end(cell)
            else:
                running.append(begun)


def _exit_on_signal(number: int, frame) -> None:
    raise SystemExit(128 + number)
