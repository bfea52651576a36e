"""Who works in a cell's folder: a file with the processes' numbers, by which a killed runner's orphan is known.

A runner that is killed with SIGKILL cannot end the training that it started. The file names both, each with its start
time, because numbers are given again.
"""

import contextlib
import json
import os
import signal
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file
from fairseq_neupronet.living_processes import lives, start_time

_PATIENCE = 30.0  # seconds for a training to save


@dataclass
class Owner:
    """What a lock says.

    Attributes:
        host: of the runner.
        runner, runner_started: its process and start time.
        child, child_started: the leader of the process group at work; 0 before there is one.
        since: Unix time of the lock, for the seconds that a killed attempt took.
        earlier: seconds of attempts before it.
    """

    host: str
    runner: int
    runner_started: str
    child: int = 0
    child_started: str = ""
    since: float = 0.0
    earlier: float = 0.0


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


class CellLock:
    """The lock of one cell's folder, for one runner.

    Args:
        path: the lock file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.owner: Owner | None = None

    def take(self) -> str | None:
        """Take the lock, ending what a killed runner left at work.

        Returns:
            A sentence where such an orphan was ended, else None.

        Raises:
            InputError: a living runner, or one of another machine, holds it.
        """
        said, earlier = None, 0.0
        for _ in range(3):
            mine = Owner(socket.gethostname(), os.getpid(), start_time(os.getpid()), since=time.time(), earlier=earlier)
            if self._create(mine):
                self.owner = mine
                return said
            holder = self._read()
            if holder is None:
                continue
            self._refuse_living(holder)
            if lives(holder.child, holder.child_started):
                end_group(holder.child)
                said = f"ended process {holder.child}, which a killed run had left at work"
            earlier = holder.earlier + self._seconds_of(holder)
            self.path.unlink(missing_ok=True)
        raise InputError(f"{self.path}: is taken and freed again by others; start one benchmark at a time")

    def set_child(self, process: int) -> None:
        """Write down the leader of the process group at work."""
        self.owner.child, self.owner.child_started = process, start_time(process)
        with atomic_file(self.path) as file:
            json.dump(asdict(self.owner), file)

    def seconds(self) -> float:
        """Wall time of this and the killed attempts."""
        return self.owner.earlier + time.time() - self.owner.since

    def release(self) -> None:
        self.path.unlink(missing_ok=True)
        self.owner = None

    def _create(self, owner: Owner) -> bool:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Linked into place whole: a reader never sees half a lock, and only one of two runners succeeds.
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        draft.write_text(json.dumps(asdict(owner)), encoding="utf-8")
        try:
            os.link(draft, self.path)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _read(self) -> Owner | None:
        try:
            return Owner(**json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise InputError(f"{self.path}: is no lock of a benchmark; remove it if none runs") from error

    def _refuse_living(self, holder: Owner) -> None:
        if holder.host != socket.gethostname():
            raise InputError(
                f"{self.path}: process {holder.runner} on {holder.host} works in this cell; wait for it, "
                "or remove this file if it was killed"
            )
        if lives(holder.runner, holder.runner_started):
            raise InputError(
                f"{self.path}: another benchmark, process {holder.runner}, works in this cell; wait for "
                "it, or give another --out"
            )

    def _seconds_of(self, holder: Owner) -> float:
        log = self.path.with_name("log.txt")
        return max(0.0, log.stat().st_mtime - holder.since) if log.is_file() else 0.0
