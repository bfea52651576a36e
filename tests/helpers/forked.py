"""fairseq-hydra-train in a fork of this process, which spares it the seconds that its imports take."""

import contextlib
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from fairseq_cli import hydra_train

from fairseq_neupronet.trainer.processes import wait_for_loader_threads


@dataclass
class Ended:
    """Exit code (negative: the signal that killed it) and all that was printed."""

    code: int
    printed: str


class Training:
    """A training that runs beside the test.

    Args:
        arguments: of fairseq-hydra-train.
        cwd: its working directory.
        log: file for output and errors.
        prepare: called in the new process before anything else.
    """

    def __init__(self, arguments: list[str], cwd: Path, log: Path, prepare=lambda: None):
        self._log = log
        log.write_text("")
        self.pid = os.fork()
        if not self.pid:
            _become_training(arguments, cwd, log, prepare)

    @property
    def printed(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str, seconds: float = 300) -> None:
        """Until it has printed ``text``."""
        deadline = time.monotonic() + seconds
        while text not in self.printed:
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.005)

    def kill(self, number: int = signal.SIGKILL, whole_group: bool = False) -> None:
        (os.killpg if whole_group else os.kill)(self.pid, number)

    def end(self, seconds: float = 300) -> Ended:
        """Wait for its end."""
        deadline = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return Ended(os.waitstatus_to_exitcode(status), self.printed)
            if time.monotonic() > deadline:
                self.kill()
                os.waitpid(self.pid, 0)
                raise AssertionError(f"still running after {seconds} s: {self.printed}")
            time.sleep(0.005)


def train(arguments: list[str], cwd: Path, log: Path | None = None, prepare=lambda: None) -> Ended:
    """A whole training."""
    return Training(arguments, cwd, log or cwd / "log.txt", prepare).end()


def _become_training(arguments: list[str], cwd: Path, log: Path, prepare) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        with open(log, "wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        # pytest captures by replacing these.
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
        os.chdir(cwd)
        sys.argv = ["fairseq-hydra-train", *arguments]
        prepare()
        try:
            hydra_train.cli_main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        wait_for_loader_threads()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
