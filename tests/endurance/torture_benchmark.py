"""Benchmarks to be killed: the runner, one of its trainings and evaluations, or all at once as in a power cut.

Three cells: a plain backbone, a profile extractor and the NeuProNet that waits for it. The table of results is compared
but for the column ``seconds``.
"""

import contextlib
import csv
import itertools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import yaml
from noise_corpus import write_corpus
from running_command import RunningCommand, left_behind, tracebacks
from torture_training import COMMON, NEUPRONET, PRETRAINING

CLIPS = {"train": 48, "valid": 18, "test": 24}
UPDATES = 40
MOST_KILLS = 3  # of one benchmark
MOST_STARTS = 20
EXIT_FAILED = 1
VICTIMS = ("runner", "cell", "all")
KILLS = tuple(itertools.product((signal.SIGKILL, signal.SIGTERM), VICTIMS))


def write_config(path: Path, data: Path) -> Path:
    """The benchmark's yaml."""
    common = [*COMMON, "dataset.num_workers=0", f"optimization.max_update={UPDATES}", "common.cpu=true"]
    config = {
        "protocols": ["single", "full"],
        "evaluation": ["--workers", 0, "--device", "cpu"],
        "datasets": {
            "noise": {
                "data": str(data),
                "recipe": "vocalsound",
                "pretraining": {"recipe": "vocalsound", "overrides": [*PRETRAINING, *common]},
            }
        },
        "variants": {
            "base": {"overrides": [*NEUPRONET, *common, "ablation=base"]},
            "neupronet": {"overrides": [*NEUPRONET, *common, "ablation=in_batch"], "pretrained": True},
        },
    }
    path.write_text(yaml.safe_dump(config))
    return path


def results_of(out: Path) -> list[dict[str, str]]:
    """The table's rows without ``seconds``; none where there is no table."""
    path = out / "results.csv"
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


class Subject:
    """Runs the benchmark once without a kill.

    Args:
        folder: for everything.
        jobs: cells beside each other.
    """

    jobs = 1  # benchmark at a time

    def __init__(self, folder: Path, jobs: int):
        self._folder, self._cells_at_a_time = folder, jobs
        self._config = write_config(folder / "benchmark.yaml", write_corpus(folder / "data", CLIPS))
        run = self._start(folder / "unbroken")
        run.wait_for("cells to run")
        started = time.monotonic()
        if run.wait():
            raise SystemExit(f"unbroken, failed:\n{run.printed}")
        self._seconds = time.monotonic() - started
        self._unbroken = results_of(folder / "unbroken")
        print(f"unbroken in {self._seconds:.1f} s, {len(self._unbroken)} rows", flush=True)

    def _start(self, out: Path) -> RunningCommand:
        command = [
            sys.executable,
            "-m",
            "fairseq_neupronet",
            "benchmark",
            str(self._config),
            "--out",
            str(out),
            "--jobs",
            str(self._cells_at_a_time),
        ]
        return RunningCommand(command, out.with_suffix(".log"))

    def torture(self, job: int, n_kills: int, rng: random.Random) -> tuple[int, int]:
        """Kill so many times, over as many benchmarks as it takes; how many kills, and how many did no harm."""
        kills = identical = 0
        planned = itertools.cycle(rng.sample(KILLS, len(KILLS)))
        for number in itertools.count():
            if kills == n_kills:
                return kills, identical
            most = min(MOST_KILLS, n_kills - kills)
            done, problems = self._one(self._folder / f"broken-{number}", most, planned, rng)
            kills += len(done)
            identical += 0 if problems else len(done)
            print(f"{', '.join(done) or 'ended before its kill'}: {'; '.join(problems) or 'identical'}", flush=True)

    def _one(self, out: Path, most: int, planned, rng: random.Random) -> tuple[list[str], list[str]]:
        starts, done, problems = [], [], []
        for _ in range(MOST_STARTS):
            run = self._start(out)
            starts.append(run)
            killed = False
            if len(done) < most:
                number, victim = next(planned)
                killed = self._kill(run, out, number, victim, rng)
            code = run.wait()
            logs = [run.printed, *(log.read_text() for log in out.rglob("log.txt"))]
            problems += [problem for log in logs for problem in tracebacks(log)][:1]
            if not killed:
                break
            done.append(f"{number.name} to {victim}")
            expected = (EXIT_FAILED,) if victim == "cell" else (-number, 128 + number)
            problems += [] if code in expected else [f"exit code {code} after {done[-1]}"]
        problems += left_behind(starts, out)
        if code:
            problems.append(f"exit code {code} in the end")
        if results_of(out) != self._unbroken:
            problems.append("another results.csv")
        left = [str(path) for pattern in ("lock", "*.tmp") for path in out.rglob(pattern)]
        return done, problems + [f"{path} is left" for path in left[:1]]

    def _kill(self, run: RunningCommand, out: Path, number: signal.Signals, victim: str, rng: random.Random) -> bool:
        """At a random moment; whether the benchmark, or the cell, was at work and ended by it."""
        run.wait_for("cells to run")
        time.sleep(rng.uniform(0, self._seconds / 3))
        if victim == "runner":
            return run.kill(number)
        run.wait_until(lambda: _children(run, out))
        children = _children(run, out)
        if not children or not run.runs():
            return False
        if victim == "cell":
            children = [rng.choice(children)]
        else:  # the runner first: it would start the next cell
            os.kill(run.process.pid, number)
        for child in children:
            with contextlib.suppress(ProcessLookupError):  # ended in the meantime
                os.killpg(child, number)
        return run.wait() != 0


def _children(run: RunningCommand, out: Path) -> list[int]:
    """The leaders of the process groups that a runner has at work, by the cells' locks."""
    found = []
    for lock in out.rglob("lock"):
        with contextlib.suppress(FileNotFoundError, ValueError):  # freed in the meantime, or just taken
            holder = json.loads(lock.read_text())
            if holder["runner"] == run.process.pid and holder["group"]:
                found.append(holder["group"])
    return found
