"""A command to be killed: started in a session of its own, its output in a file."""

import itertools
import os
import re
import signal
import subprocess
import time
from pathlib import Path

MOST_SECONDS = 1800  # that a command may take to end
_LOOK = 0.02  # seconds between two looks


class RunningCommand:
    """One start of a command.

    Args:
        command: program and arguments.
        log: file that its output is added to; those of other starts are left out of :attr:`printed`.
    """

    def __init__(self, command: list[str], log: Path):
        self._log = log
        self._begins_at = log.stat().st_size if log.exists() else 0
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                command, cwd=log.parent, env=environment, stdout=file, stderr=file, start_new_session=True
            )

    @property
    def printed(self) -> str:
        with open(self._log, "rb") as file:
            file.seek(self._begins_at)
            return file.read().decode(errors="replace")

    def runs(self) -> bool:
        return self.process.poll() is None

    def wait_until(self, condition) -> None:
        """Until ``condition()`` holds, or the command has ended."""
        while self.runs() and not condition():
            time.sleep(_LOOK)

    def wait_for(self, text: str) -> None:
        """Until it has printed ``text``, or has ended."""
        self.wait_until(lambda: text in self.printed)

    def kill(self, number: int, whole_group: bool = False) -> bool:
        """Send a signal and wait for the end; whether the command was still running and ended by it."""
        if not self.runs():
            return False
        (os.killpg if whole_group else os.kill)(self.process.pid, number)
        return self.wait() != 0

    def wait(self) -> int:
        """The exit code; of a command that does not end, that of SIGKILL."""
        try:
            return self.process.wait(MOST_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            return self.process.wait()


def tracebacks(printed: str) -> list[str]:
    """A sentence of the first traceback in an output, with what it ends in; none where there is none.

    Those of a worker are left out whose parent was killed while starting it, or while fetching a batch from it:
    Python's own code says so where none of ours runs.
    """
    for text in printed.split("Traceback (most recent call last)")[1:]:
        frames = list(itertools.takewhile(lambda line: line[:1].isspace(), text.splitlines()[1:]))
        orphaned = any("in spawn_main" in line or re.search(r"resource_sharer.*in _serve", line) for line in frames)
        if not orphaned or any("fairseq_neupronet/" in line for line in frames):
            return ["a traceback: " + (text.splitlines()[1 + len(frames) :] or ["cut off"])[0]]
    return []


def left_behind(commands: list[RunningCommand], folder: Path, seconds: float = 60) -> list[str]:
    """Wait for all that commands have started to end; what has not is ended, and counted in a sentence.

    Args:
        commands: each was waited for itself.
        folder: stands in the commands of processes that have sessions of their own.
        seconds: patience.
    """
    sessions, until = {command.process.pid for command in commands}, time.monotonic() + seconds
    while (left := _processes(sessions, folder)) and time.monotonic() < until:
        time.sleep(0.2)
    commands_left = [_command(process) for process in left]
    for process in left:
        os.kill(process, signal.SIGKILL)
    return [f"processes left behind: {len(left)} ({commands_left[0]})"] if left else []


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:  # ended in the meantime
        return "ended"


def _processes(sessions: set[int], folder: Path) -> list[int]:
    named = re.compile(re.escape(os.fsencode(folder)) + rb"(?![\w.-])")
    found, callers = [], _callers()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session, *_ = (path / "stat").read_text().rpartition(")")[2].split()
            of_them = int(session) in sessions or named.search((path / "cmdline").read_bytes())
        except OSError:  # ended in the meantime
            continue
        if of_them and state != "Z" and int(path.name) not in callers:
            found.append(int(path.name))
    return found


def _callers() -> set[int]:
    """This process and those that started it, whose commands may name the folder too."""
    process, callers = os.getpid(), set()
    while process:
        callers.add(process)
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return callers
