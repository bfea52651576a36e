"""Runs comparisons: two children take turns, so that whatever else the machine does meets both."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.child import encode_options
from bench.comparison import Comparison, Figure, Options
from fairseq_neupronet.errors import InputError

# An allocator that the user has chosen would decide what is measured; each side says what it wants.
_NOT_INHERITED = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "NEUPRONET_KEEP_MEMORY")


@dataclass
class Measured:
    """The runs of one side: figures by key, and the highest resident memory of its process or of what it started."""

    runs: list[dict[str, float]] = field(default_factory=list)
    peak_mib: float = 0.0

    def add(self, reply: dict) -> None:
        self.runs.append(reply["figures"])
        self.peak_mib = max(self.peak_mib, reply["peak_mib"])


class Child:
    """A side's process. Leaving the context kills it, with whatever it has started."""

    def __init__(self, module: str, comparison: Comparison, side: str, options: Options):
        self.name = f"row {comparison.name}, {'our side' if side == 'ours' else 'the yardstick'}"
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed on leaving)
        path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_INHERITED)}
        environment |= {"PYTHONPATH": os.pathsep.join(path)} | getattr(comparison, side).environment
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.child", module, comparison.name, side, encode_options(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the benchmark, which then ends its children
        )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def reply(self) -> dict:
        """The next message.

        Raises:
            InputError: the child has ended, or refuses.
        """
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            self.errors.seek(0)
            words = self.errors.read().decode(errors="replace").split("\n")
            last = next((f" ({line.strip()})" for line in reversed(words) if line.strip()), "")
            raise InputError(f"{self.name}: its process {end}{last}; nothing was written, and --only measures the rest")
        message = json.loads(line)
        if "refused" in message:
            raise InputError(f"{self.name}: {message['refused']}")
        return message

    def run(self) -> dict:
        """Have it do one run."""
        with contextlib.suppress(BrokenPipeError):  # a dead child is reported by its missing reply
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        return self.reply()


def measure(module: str, comparison: Comparison, options: Options) -> dict[str, Measured]:
    """Runs of each side, in turn.

    Args:
        module: of the catalogue.
        comparison: one that lacks nothing.
        options: the same for both children.

    Raises:
        InputError: a child ended before its time.
    """
    if comparison.setup:
        comparison.setup()
    measured = {side: Measured() for side in ("ours", "yardstick") if getattr(comparison, side)}
    n_runs = comparison.runs or options.runs
    if comparison.fresh:
        for _ in range(n_runs):
            for side, kept in measured.items():
                with Child(module, comparison, side, options) as child:
                    child.reply()
                    kept.add(child.run())
        return measured
    with contextlib.ExitStack() as stack:
        children = {side: stack.enter_context(Child(module, comparison, side, options)) for side in measured}
        for child in children.values():
            child.reply()
        for child in children.values():
            child.run()  # warm-up
        for _ in range(n_runs):
            for side, child in children.items():
                measured[side].add(child.run())
    return measured


def rows_of(comparison: Comparison, measured: dict[str, Measured]) -> list[dict]:
    """The lines of a comparison, as the JSON file has them."""
    return [_row(comparison, figure, measured) for figure in comparison.figures]


def _row(comparison: Comparison, figure: Figure, measured: dict[str, Measured]) -> dict:
    sides = [side for side in measured if side == "ours" or figure.compared]
    values = {
        side: [run[figure.key] for run in measured[side].runs] if side in sides else []
        for side in ("ours", "yardstick")
    }
    ours, yardstick = (median(values[side]) if values[side] else None for side in values)
    ratio = figure.ratio_of(ours, yardstick) if ours is not None else None
    row = {
        "row": comparison.name,
        "name": figure.name,
        "ours": ours,
        "yardstick": yardstick,
        "ratio": ratio,
        "unit": figure.unit,
        "runs": len(values["ours"]),
    }
    if comparison.lacks:
        return row | {"not_measured": comparison.lacks}
    row |= {f"{side}_runs": runs for side, runs in values.items()}
    row |= {f"{side}_peak_mib": measured[side].peak_mib if side in measured else None for side in values}
    if figure.wanted:
        row |= {"wanted": str(figure.wanted), "met": figure.wanted.met(ours, yardstick, ratio)}
    return row


def measure_all(module: str, comparisons: list[Comparison], options: Options, say: Callable[[str], None]) -> list[dict]:
    """Measure the comparisons in order; those that lack something give lines that say so.

    Lines also say how many ``seconds`` their comparison took in all.
    """
    rows = []
    for comparison in comparisons:
        if comparison.lacks:
            say(f"{comparison.name}: not measured: {comparison.lacks}")
            rows += rows_of(comparison, {})
            continue
        say(f"{comparison.name} …")
        start = time.perf_counter()
        measured = measure(module, comparison, options)
        took = time.perf_counter() - start
        rows += [row | {"seconds": round(took, 1)} for row in rows_of(comparison, measured)]
    return rows
