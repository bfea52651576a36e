"""neupronet benchmark with real, tiny trainings: killed and started again, and a fold a job."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_benchmark
import tiny

pytestmark = pytest.mark.slow


def command(config: Path, out: Path, *options) -> list[str]:
    program = [sys.executable, "-m", "fairseq_neupronet", "benchmark", config, "--out", out, "--jobs", "2", *options]
    return list(map(str, program))


def rows(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def in_training(checkpoint: Path) -> bool:
    """Whether a runner holds the checkpoint's cell, and its training has not ended."""
    train = checkpoint.parents[1]
    return (train.parent / "lock").exists() and '"finished": false' in (train / "training.json").read_text()


def test_killed_in_the_middle_and_started_again_the_table_is_that_of_an_unbroken_run(tmp_path):
    data = small_benchmark.write_folds(tmp_path / "folds")
    longer = [*tiny.TINY_FINETUNING, "optimization.max_update=30", "common.cpu=true"]
    config = small_benchmark.write_config(tmp_path / "small.yaml", data, overrides=longer)
    environment = tiny.environment()
    unbroken = subprocess.run(command(config, tmp_path / "unbroken"), env=environment, capture_output=True, text=True)
    assert unbroken.returncode == 0, unbroken.stderr
    expected = rows(tmp_path / "unbroken" / "results.csv")
    assert len({(row["variant"], row["fold"], row["seed"]) for row in expected if "+" not in row["variant"]}) == 12
    assert "accuracy − base" in unbroken.stdout

    out = tmp_path / "broken"
    killed = subprocess.Popen(command(config, out), env=environment, stdout=subprocess.DEVNULL)
    # In the middle: some cells are done, and one in training has a checkpoint to go on from.
    until = time.monotonic() + 1800
    while len(list(out.rglob("seed-*/results.csv"))) < 3 or not any(map(in_training, out.rglob("checkpoint_last.pt"))):
        assert time.monotonic() < until and killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    # The trainings too, at once: left alone, they may reach their end before the second runner is there to end them.
    locks = list(out.rglob("lock"))
    assert locks
    for lock in locks:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(json.loads(lock.read_text())["group"], signal.SIGKILL)
    again = subprocess.run(command(config, out), env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "goes on where it was interrupted" in again.stdout
    assert "finished before" in again.stdout
    assert any("Loaded checkpoint" in path.read_text() for path in out.rglob("log.txt"))
    assert rows(out / "results.csv") == expected
    assert not list(out.rglob("*.pt")) and not list(out.rglob("lock"))


def test_two_jobs_of_a_fold_each_fill_one_table(tmp_path):
    """As a batch system starts them: at the same time, in one folder."""
    data = small_benchmark.write_folds(tmp_path / "folds", 2)
    folds = {"tiny": {"data": f"{data}/fold{{fold:02d}}", "recipe": "vocalsound", "folds": [1, 2]}}
    config = small_benchmark.write_config(tmp_path / "small.yaml", data, seeds=[1], datasets=folds)
    whole = command(config, tmp_path / "out")
    jobs = [subprocess.Popen([*whole, "--only", f"fold={fold}"], env=tiny.environment()) for fold in (1, 2)]
    assert [job.wait() for job in jobs] == [0, 0]
    collected = subprocess.run(whole, env=tiny.environment(), capture_output=True, text=True)
    assert collected.returncode == 0, collected.stderr
    assert "0 cells to run, 4 finished before" in collected.stdout
    found = rows(tmp_path / "out" / "results.csv")
    assert {(row["variant"].split("+")[0], row["fold"]) for row in found} == {
        (variant, fold) for variant in ("base", "dot") for fold in "12"
    }
