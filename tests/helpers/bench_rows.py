"""Comparisons that take no time, for tests of the benchmark's runner; its children import this module."""

import os
import signal
from functools import partial

import numpy as np
from bench.comparison import Comparison, Figure, Options, Side, Wanted
from bench.memory import RETURNS_MEMORY, growth_mib

from fairseq_neupronet.errors import InputError

# The first value is the warm-up run's.
OURS, YARDSTICK = [100.0, 3.0, 1.0, 8.0], [100.0, 4.0, 20.0, 9.0]


def _from_list(options: Options, side: str, values: list[float]):
    left = list(values)

    def run() -> dict:
        print("what a library prints is no reply")
        with open(options.scratch / "turns", "a") as stream:
            stream.write(f"{side} {os.getpid()}\n")
        value = left.pop(0)
        return {"time": value, "speed": 1 / value}

    return run


def _allocating(megabytes: int):
    def run() -> dict:
        return {"time": 1.0 + np.ones(megabytes * 2**17).sum()}

    return run


def _growing():
    np.ones(100 * 2**17).sum()
    kept = np.ones(30 * 2**17)
    return lambda: {"time": growth_mib(lambda: np.ones(50 * 2**17).sum() + kept.sum())}


def _refusing():
    raise InputError("clip.wav: is no audio; give another")


def _dying(options: Options, how: str):
    (options.scratch / "dying").write_text(str(os.getpid()))
    if how == "at once":
        raise RuntimeError("no such luck")

    def run() -> dict:
        os.kill(os.getpid(), signal.SIGSEGV)

    return run


def _waiting(options: Options):
    def run() -> dict:
        (options.scratch / "waiting").write_text(str(os.getpid()))
        signal.pause()

    return run


def catalogue(options: Options) -> list[Comparison]:
    time, speed = Figure("a time", "time", "ms", Wanted("ratio", least=2)), Figure("a speed", "speed", "1/ms")
    ours = Side(partial(_from_list, options, "ours", OURS))
    yardstick = Side(partial(_from_list, options, "yardstick", YARDSTICK))
    one = Side(lambda: lambda: {"time": 1.0})
    return [
        Comparison("pair", (time, speed), ours, yardstick),
        Comparison("alone", (Figure("a time alone", "time", "ms", Wanted("ours", most=1)),), ours),
        Comparison("fresh", (time,), ours, yardstick, fresh=True, runs=2),
        Comparison("skipped", (time,), ours, yardstick, lacks="give --audio DIR"),
        Comparison("memory", (time,), Side(partial(_allocating, 200)), Side(partial(_allocating, 1))),
        Comparison(
            "environment",
            (Figure("a variable", "time", ""),),
            Side(lambda: lambda: {"time": float(os.environ.get("MALLOC_ARENA_MAX", 0))}, {"MALLOC_ARENA_MAX": "3"}),
            Side(lambda: lambda: {"time": float(os.environ.get("MALLOC_ARENA_MAX", 0))}),
        ),
        Comparison("growth", (Figure("MiB", "time", "MiB"),), Side(_growing, RETURNS_MEMORY)),
        Comparison("refusing", (time,), Side(_refusing), one),
        Comparison("broken", (time,), one, Side(partial(_dying, options, "at once"))),
        Comparison("killed", (time,), one, Side(partial(_dying, options, "in a run"))),
        Comparison("waiting", (time,), Side(partial(_waiting, options)), one),
    ]
