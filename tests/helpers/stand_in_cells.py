"""Cells of a benchmark whose trainings and evaluations take a moment: real processes, real signals, no networks."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import tiny
import yaml

from fairseq_neupronet.benchmark import runner
from fairseq_neupronet.benchmark.benchmark import Benchmark
from fairseq_neupronet.files import start_time

# A training that keeps a count of its starts and takes NAP seconds; an evaluation that scores by the cell's name.
TRAIN = """
import os, pathlib, sys, time
train = pathlib.Path(sys.argv[1])
(train / "checkpoints").mkdir(parents=True, exist_ok=True)
with open(train / "starts", "a") as file:
    file.write("x")
(train / "training.json").write_text("{}")
print("a line of the training", flush=True)
time.sleep(float(os.environ.get("NAP", 0)))
if os.environ.get("SPOIL", "nothing") in str(train):
    sys.exit(3)
for name in ("best", "last"):
    (train / "checkpoints" / f"checkpoint_{name}.pt").write_bytes(b"")
(train / "checkpoints" / "training.csv").write_text("epoch,updates\\n")
"""
EVALUATE = """
import pathlib, sys, zlib
out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True)
value = zlib.crc32(str(out.parent)[-22:].encode()) % 100 / 100
lines = ["subset,protocol,control,metric,value,clips", f"test,full,,accuracy,{value},7",
         f"test,full,majority_vote,accuracy,{value / 2},7"]
(out / "results.csv").write_text("\\n".join(lines) + "\\n")
"""
ROWS_PER_CELL = 2


def commands(train: str = TRAIN, evaluate: str = EVALUATE):
    """What takes the place of ``training_command`` and ``evaluation_command`` in running_cell."""
    return (
        lambda folder, extractor: [sys.executable, "-c", train, str(folder.train)],
        lambda folder, evaluation, embeddings: [
            sys.executable,
            "-c",
            evaluate,
            str(folder.evaluation),
            str(folder.best),
        ],
    )


def install(monkeypatch, *programs: str) -> None:
    """Let cells of this process run the given programs, or :data:`TRAIN` and :data:`EVALUATE`."""
    training, evaluation = commands(*programs)
    monkeypatch.setattr("fairseq_neupronet.benchmark.running_cell.training_command", training)
    monkeypatch.setattr("fairseq_neupronet.benchmark.running_cell.evaluation_command", evaluation)


def rows(path: Path, without: str = "seconds") -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != without} for row in csv.DictReader(file)]


def run(benchmark: Benchmark) -> runner.Progress:
    tally = runner.run_cells(benchmark.cells, benchmark.settings, runner.Progress())
    benchmark.collect()
    return tally


def starts(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out / "cells").parents[1]): len(path.read_text()) for path in out.rglob("starts")}


def pretrained(config: Path) -> Path:
    content = yaml.safe_load(config.read_text())
    content["variants"]["dot"]["pretrained"] = True
    content["datasets"]["tiny"]["pretraining"] = {"recipe": "vocalsound", "overrides": tiny.TINY_PRETRAINING}
    config.write_text(yaml.safe_dump(content))
    return config


RUNNER = f"""
import sys
sys.path.insert(0, {str(tiny.ROOT / "tests" / "helpers")!r})
import stand_in_cells
from fairseq_neupronet.benchmark import running_cell
from fairseq_neupronet.cli import main
running_cell.training_command, running_cell.evaluation_command = stand_in_cells.commands()
sys.exit(main(sys.argv[1:]))
"""


def started(config: Path, out: Path, nap: float) -> tuple[subprocess.Popen, list[int]]:
    """A runner in a process of its own, and its children, once two trainings are at work."""
    command = [sys.executable, "-c", RUNNER, "benchmark", config, "--out", out, "--jobs", "2", "--only", "seed=1"]
    process = subprocess.Popen(
        list(map(str, command)),
        env=tiny.environment() | {"NAP": str(nap)},
        # A shell's background job ignores SIGINT, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until = time.monotonic() + 300
    while len(children := children_of(out)) < 2 or len(starts(out)) < 2:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    assert all(start_time(child) for child in children)
    return process, children


def children_of(out: Path) -> list[int]:
    """The process groups that the locks name; a lock is there before its training starts, and empty at first."""
    children = [json.loads(text)["group"] for path in out.rglob("lock") if (text := path.read_text())]
    return [child for child in children if child]
