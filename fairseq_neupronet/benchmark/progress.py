"""What a person sees of a running benchmark: a table that is redrawn on a terminal, plain lines elsewhere."""

import re
import shutil
import sys
import time
from pathlib import Path

from fairseq_neupronet.benchmark.cells import Cell

_EVERY = 0.5  # seconds
_TAIL = 4096
_UPDATE = re.compile(r"epoch (\d+):\s+(\d+) / (\d+)")
_VALIDATED = re.compile(r"epoch (\d+) \| valid on .*?\| accuracy ([\d.]+)")


class Progress:
    """Lines for what happens, and on a terminal a table of the cells at work below them."""

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
            spent, newest = _time(one.seconds()), _newest(one.folder.log)
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


def _newest(log: Path) -> str:
    """The last epoch, update and validation that a training's log tells of."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    found = []
    if updates := _UPDATE.findall(text):
        found.append("epoch {} update {}/{}".format(*updates[-1]))
    if validated := _VALIDATED.findall(text):
        found.append("validation accuracy {1} in epoch {0}".format(*validated[-1]))
    return ", ".join(found)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
