"""One cell at work: its lock, and the processes of its training and its evaluation."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from fairseq_neupronet.benchmark.cell_folder import Settings, evaluation_command, printed, training_command
from fairseq_neupronet.benchmark.cells import Cell
from fairseq_neupronet.benchmark.results import write_cell_rows
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import lives, start_time, sweep_temporaries

_PATIENCE = 30.0  # seconds for a training to save
_MOST_WAIT = 10.0  # seconds for the kernel to free the lock of a process that was ended


def ask_to_end(leader: int) -> None:
    """Tell the leader of a process group to save and end."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(leader, signal.SIGTERM)


def end_group(leader: int, patience: float = _PATIENCE) -> None:
    """End a process group: its leader by SIGTERM, upon which a training saves, and then what is left by SIGKILL."""
    ask_to_end(leader)
    until = time.monotonic() + patience
    while start_time(leader) and time.monotonic() < until:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


@contextlib.contextmanager
def signals_ignored():
    """While children are ended: a second Ctrl-C or SIGTERM must not leave any of them behind."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class CellLock:
    """The lock of one cell's folder, which the kernel keeps as long as the runner or a process of the cell lives.

    A runner that is killed with SIGKILL cannot end the training that it started. The training has inherited the lock's
    file handle, so that the cell stays locked while it lives, and is free as soon as it does not. The file says who
    holds it: the runner, and the leader of the process group at work.

    Args:
        path: the lock file.
    """

    def __init__(self, path: Path):
        self._path, self._handles = path, []
        self._lock = FileLock(path, on_acquired=self._handles.append)

    @property
    def handles(self) -> list[int]:
        """The file handle that a process of the cell inherits."""
        return self._handles[-1:]

    def take(self) -> str | None:
        """Take the lock, ending what a killed runner left at work.

        Returns:
            A sentence where such a process was ended, else None.

        Raises:
            InputError: a living runner, or one of another machine, holds it.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        said = None
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            group = self._left_at_work()
            end_group(group)
            said = f"ended process {group}, which a killed run had left at work"
            try:
                self._lock.acquire(timeout=_MOST_WAIT)
            except Timeout:
                raise InputError(
                    f"{self._path}: is taken by another at the same moment; start one benchmark at a time"
                ) from None
        self.set_group(0)
        return said

    def set_group(self, leader: int) -> None:
        """Write down the leader of the process group at work; 0 for none."""
        holder = {
            "host": socket.gethostname(),
            "runner": os.getpid(),
            "started": start_time(os.getpid()),
            "group": leader,
        }
        handle = self.handles[0]
        written = os.pwrite(handle, json.dumps(holder).encode(), 0)
        os.ftruncate(handle, written)

    def release(self) -> None:
        """Free the cell. Only where no process of it lives, because that would lose the lock too."""
        # Removed while it is still held: who has opened it meanwhile sees that it is gone, and makes another.
        self._path.unlink(missing_ok=True)
        self._lock.release()

    def _left_at_work(self) -> int:
        """The process group of a runner of this machine that is dead, which alone holds the lock."""
        try:
            holder = json.loads(self._path.read_text(encoding="utf-8"))
            host, runner, started, group = (holder[name] for name in ("host", "runner", "started", "group"))
        except (OSError, ValueError, KeyError, TypeError):  # just taken, or just freed
            raise InputError(f"{self._path}: another benchmark works in this cell; wait for it") from None
        where = "" if host == socket.gethostname() else f" on {host}"
        if not where and not group and not lives(runner, started):
            raise InputError(
                f"{self._path}: what a killed benchmark, process {runner}, had just started works in this cell; wait "
                "for its end"
            )
        if where or lives(runner, started):
            raise InputError(
                f"{self._path}: another benchmark, process {runner}{where}, works in this cell; wait for it, or give "
                "another --out"
            )
        return group


class RunningCell:
    """One cell at work; :meth:`poll` moves it on.

    Args:
        cell, settings: what to run.
        slot: its number among the cells at work.
        say: is given a sentence for the user.

    Raises:
        InputError: another benchmark works in its folder.
    """

    def __init__(self, cell: Cell, settings: Settings, slot: int, say: Callable[[str], None]):
        self.cell, self.slot = cell, slot
        self.folder = settings.folder(cell)
        self._settings, self._lock = settings, CellLock(self.folder.lock)
        self._process: subprocess.Popen | None = None
        self.step, self.took, self._earlier, self._since = "", 0.0, 0.0, time.time()
        if ended := self._lock.take():
            say(f"{cell.name}: {ended}")
        try:
            # By another runner, since the cells were looked at.
            self.was_finished = self.folder.is_finished()
            if self.was_finished:
                self._lock.release()
                return
            self._prepare(say)
            self._steps = self._commands()
            self._start_next()
        except BaseException:
            with signals_ignored():
                if self._process is not None:
                    end_group(self._process.pid)
                self._lock.release()
            raise

    def _prepare(self, say: Callable[[str], None]) -> None:
        folder, name = self.folder, self.cell.name
        sweep_temporaries(folder.path)
        stale = folder.is_stale()
        if folder.has_training():
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
        folder.note(self._earlier, self._since)

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
                pass_fds=self._lock.handles,
            )
        self._lock.set_group(self._process.pid)

    def seconds(self) -> float:
        """Wall time so far, killed attempts included."""
        return self._earlier + time.time() - self._since

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
            write_cell_rows(self.folder, self.took)
        self.folder.note(self.took, finished=True)
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
            self.folder.note(self.seconds())
        self._lock.release()


def _environment(slot: int, jobs: int) -> dict[str, str]:
    """The child's variables: cells at a time share the cores and, where several GPUs are named, take turns on them."""
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        gpus = [gpu for gpu in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        if len(gpus) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return environment
