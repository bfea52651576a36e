"""Runs cells, several at a time: each is a training and an evaluation in processes of their own."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_neupronet.benchmark.cell_folder import CellFolder
from fairseq_neupronet.benchmark.cells import Cell
from fairseq_neupronet.benchmark.commands import evaluation_command, printed, training_command
from fairseq_neupronet.benchmark.locks import CellLock, ask_to_end, end_group
from fairseq_neupronet.benchmark.recipes import config_hash, training_hash
from fairseq_neupronet.benchmark.results import write_cell_rows
from fairseq_neupronet.benchmark.versions import version
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import sweep_temporaries

_PAUSE = 0.2  # seconds between two looks at the children


@dataclass
class Settings:
    """What all cells of a benchmark share.

    Attributes:
        out: the benchmark's folder.
        evaluation: subsets, protocols and options of ``neupronet evaluate``.
        keep_checkpoints: whether a finished cell keeps its checkpoints.
        embeddings: the cells whose embeddings are kept.
        jobs: cells at a time.
    """

    out: Path
    evaluation: dict
    keep_checkpoints: bool = False
    embeddings: frozenset[Cell] = frozenset()
    jobs: int = 1

    def folder(self, cell: Cell) -> CellFolder:
        return CellFolder(self.out, cell)

    def digest(self, cell: Cell) -> str:
        return config_hash(cell, self.evaluation | {"embeddings": cell in self.embeddings})


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        finished: cells that were run to their end.
        kept: cells that had been finished before, or by another runner meanwhile.
        failed: cell → why.
    """

    finished: list[Cell] = field(default_factory=list)
    kept: list[Cell] = field(default_factory=list)
    failed: dict[Cell, str] = field(default_factory=dict)


class RunningCell:
    """One cell at work; :meth:`poll` moves it on.

    Raises:
        InputError: another benchmark works in its folder.
    """

    def __init__(self, cell: Cell, settings: Settings, slot: int, say):
        self.cell, self.slot = cell, slot
        self.folder = settings.folder(cell)
        self._settings, self._digest, self._training = settings, settings.digest(cell), training_hash(cell)
        self._lock = CellLock(self.folder.lock)
        self._process: subprocess.Popen | None = None
        self.step, self.took, self._earlier = "", 0.0, 0.0
        if orphan := self._lock.take():
            say(f"{cell.name}: {orphan}")
        try:
            # By another runner, since the cells were looked at.
            self.was_finished = self.folder.is_finished(self._digest)
            if self.was_finished:
                self._lock.release()
                return
            self._prepare(say)
            self._steps = self._commands()
            self._start_next()
        except BaseException:
            if self._process is not None:
                end_group(self._process.pid)
            self._lock.release()
            raise

    def _prepare(self, say) -> None:
        folder, name = self.folder, self.cell.name
        sweep_temporaries(folder.path)
        stale = folder.is_stale(self._digest)
        if folder.has_training(self._digest, self._training):
            say(
                f"{name}: "
                + ("its evaluation has changed; the training is kept" if stale else "goes on where it was interrupted")
            )
            self._earlier = folder.seconds()
            folder.clear_evaluation()
        else:
            if stale:
                say(f"{name}: stale, its config or data have changed; it is run again")
            elif folder.train.exists():
                say(f"{name}: its training lacks its record or its checkpoint; it is run again")
            folder.clear()
        self._note_down()

    def _note_down(self) -> None:
        self.folder.begin(self._digest, self._training, version(), self._earlier)

    def _commands(self) -> list[tuple[str, list[str]]]:
        cell, settings = self.cell, self._settings
        extractor = None if cell.extractor is None else settings.folder(cell.extractor)
        steps = [("training", training_command(self.folder, extractor))]
        if cell.stage == "finetuning":
            embeddings = cell in settings.embeddings
            steps.append(("evaluating", evaluation_command(self.folder, settings.evaluation, embeddings)))
        return steps

    def _start_next(self) -> None:
        self.step, command = self._steps.pop(0)
        if self.step == "evaluating":
            shutil.rmtree(self.folder.evaluation, ignore_errors=True)
        with open(self.folder.log, "a", encoding="utf-8") as log:
            log.write(f"$ {printed(command)}\n")
            log.flush()
            # A session of its own: a Ctrl-C reaches the runner alone, which then ends its children in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=_environment(self.slot, self._settings.jobs),
            )
        self._lock.set_child(self._process.pid)

    def seconds(self) -> float:
        """Wall time so far, killed attempts included."""
        return self._earlier + self._lock.seconds()

    def poll(self) -> str | None:
        """None while at work, then ``""`` for success or the reason of the failure."""
        code = self._process.poll()
        if code is None:
            return None
        failure = "" if code == 0 else f"{self.step} ended with exit code {code}; its output is in {self.folder.log}"
        try:
            if not failure and self._steps:
                self._start_next()
                return None
            if not failure:
                failure = self._finish()
        except InputError as error:
            failure = str(error)
        self._leave(finished=not failure)
        return failure

    def _finish(self) -> str:
        if not self.folder.best.is_file():
            return f"training left no {self.folder.best.name}; its output is in {self.folder.log}"
        self.took = self.seconds()
        if self.cell.stage == "finetuning":
            write_cell_rows(self.folder, self._digest, version(), self.took)
        self.folder.finish(self._digest, self._training, version(), self.took)
        if not self._settings.keep_checkpoints:
            self.folder.drop_checkpoints()
        return ""

    def ask_to_stop(self) -> None:
        """Let it save; :meth:`stop` waits for it."""
        ask_to_end(self._process.pid)

    def stop(self) -> None:
        """End it; the folder stays as one that goes on later."""
        end_group(self._process.pid)
        self._process.wait()
        self._leave(finished=False)

    def _leave(self, finished: bool) -> None:
        if not finished:
            self._earlier = self.seconds()
            self._note_down()
        self._lock.release()


def run_cells(cells: list[Cell], settings: Settings, progress) -> Outcome:
    """Run what is not finished, ``settings.jobs`` at a time, and leave no child behind.

    Args:
        cells: in order; an extractor before the cells that need it.
        settings: see :class:`Settings`.
        progress: a :class:`~fairseq_neupronet.benchmark.progress.Progress`.

    Raises:
        KeyboardInterrupt, SystemExit: on SIGINT and SIGTERM, once the children are ended.
        InputError: what a user's mistake does before any cell starts.
    """
    outcome, waiting, running = Outcome(), [], []
    for cell in cells:
        folder = settings.folder(cell)
        if folder.is_finished(settings.digest(cell)):
            outcome.kept.append(cell)
            _tidy(folder, settings)
        else:
            waiting.append(cell)
    progress.begin(waiting, outcome.kept)
    before = signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        while waiting or running:
            _start(waiting, running, outcome, settings, progress)
            for cell in list(running):
                failure = cell.poll()
                if failure is not None:
                    running.remove(cell)
                    _end(cell, failure, outcome, progress)
            progress.show(running)
            if running:
                time.sleep(_PAUSE)
    finally:
        _stop(running)
        progress.close()
        signal.signal(signal.SIGTERM, before)
    return outcome


def _stop(running: list[RunningCell]) -> None:
    """End all at once; a second signal, of somebody impatient, must not leave any of them behind."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for cell in running:
            cell.ask_to_stop()
        for cell in running:
            cell.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


def _start(waiting: list[Cell], running: list[RunningCell], outcome: Outcome, settings: Settings, progress) -> None:
    done = {*outcome.finished, *outcome.kept}
    for cell in list(waiting):
        if len(running) >= settings.jobs:
            return
        if cell.extractor in outcome.failed:
            waiting.remove(cell)
            outcome.failed[cell] = f"its extractor {cell.extractor.name} failed"
            progress.failed(cell, outcome.failed[cell])
        elif cell.extractor is None or cell.extractor in done:
            waiting.remove(cell)
            slot = min(set(range(settings.jobs)) - {other.slot for other in running})
            try:
                begun = RunningCell(cell, settings, slot, progress.say)
                if begun.was_finished:
                    outcome.kept.append(cell)
                    done.add(cell)
                    progress.kept(cell)
                else:
                    running.append(begun)
            except (InputError, OSError) as error:
                outcome.failed[cell] = str(error)
                progress.failed(cell, outcome.failed[cell])


def _end(running: RunningCell, failure: str, outcome: Outcome, progress) -> None:
    if failure:
        outcome.failed[running.cell] = failure
        progress.failed(running.cell, failure)
    else:
        outcome.finished.append(running.cell)
        progress.finished(running)


def _exit_on_signal(number: int, frame) -> None:
    raise SystemExit(128 + number)


def _environment(slot: int, jobs: int) -> dict[str, str]:
    """The child's variables: cells at a time share the cores and, where several GPUs are named, take turns on them."""
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        gpus = [gpu for gpu in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        if len(gpus) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return environment
