"""Whole commands, as a user starts them: validation, and the memory of a training."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import material, training
from bench.comparison import Comparison, Figure, Options, Side, Wanted
from bench.memory import peak_mib
from fairseq_neupronet.errors import InputError

_PROGRESS = re.compile(r"valid on '\w+' subset:\s+(\d+) / (\d+)")
_BATCH = 128


def comparisons(options: Options) -> list[Comparison]:
    test_clips = 512 if options.quick else 1536
    of = "VocalSound-1s" if options.vocalsound else f"{test_clips:,} synthetic clips"

    def data() -> Path:
        return material.prepared_folder(options, test_clips)

    def checkpoint() -> Path:
        return material.checkpoint(options, data())

    def memory(name: str, profiling: bool, yardstick: Side | None) -> Comparison:
        return Comparison(
            f"memory-{name}",
            (
                Figure(
                    f"resident memory of training the {name} model, batch {_BATCH}",
                    "peak_mib",
                    "MiB",
                    Wanted("ours", most=2560),
                    compared=yardstick is not None,
                ),
            ),
            Side(lambda: partial(our_training, data(), options.scratch / f"memory-{name}", profiling)),
            yardstick,
            setup=data,
            fresh=True,
            runs=1,
            lacks=training.TOO_LONG if options.quick else "",
        )

    return [
        Comparison(
            "validation",
            (
                Figure(
                    f"fairseq-validate, {of}: start-up, against import torch, fairseq",
                    "start",
                    "s",
                    Wanted("excess", most=3),
                ),
                Figure(
                    f"fairseq-validate, {of}: clips a second after it",
                    "speed",
                    "clips/s",
                    Wanted("ours", least=150),
                    compared=False,
                ),
            ),
            Side(lambda: partial(our_validation, data(), checkpoint())),
            Side(lambda: imports),
            setup=checkpoint,
            fresh=True,
        ),
        memory("base", False, Side(lambda: plain_training)),
        memory("profile", True, None),
    ]


def our_validation(data: Path, checkpoint: Path) -> dict[str, float]:
    """One ``fairseq-validate`` on the test split.

    Its progress lines, one a batch, are timed as they arrive. The first comes after the second batch, so the loop
    began two batches before it; a batch takes the mean time from the first line to the last. Start-up is what lies
    before the loop, a slow first batch included; speed is all clips over the time from there to the process's end.
    """
    n_clips = len((data / "test.tsv").read_text(encoding="utf-8").splitlines()) - 1
    arrived = []

    def read(line: str) -> None:
        if found := _PROGRESS.search(line):
            arrived.append((int(found[1]), time.perf_counter()))

    start = time.perf_counter()
    peak = _run(
        [
            material.program("fairseq-validate"),
            "--path",
            str(checkpoint),
            "--user-dir",
            str(material.ROOT / "fairseq_neupronet"),
            "--task",
            "spectrogram_finetuning",
            str(data),
            "--valid-subset",
            "test",
            "--batch-size",
            str(_BATCH),
            "--log-format",
            "simple",
            "--log-interval",
            "1",
        ],
        read,
    )
    end = time.perf_counter()
    (first, first_at), (last, last_at) = arrived[0], arrived[-1]
    began = first_at - first * (last_at - first_at) / (last - first)
    return {"start": began - start, "speed": n_clips / (end - began), "peak_mib": peak}


def imports() -> dict[str, float]:
    """What any fairseq command costs before it does anything."""
    start = time.perf_counter()
    peak = _run([sys.executable, "-c", "import torch, fairseq"])
    return {"start": time.perf_counter() - start, "peak_mib": peak}


def our_training(data: Path, run_folder: Path, profiling: bool) -> dict[str, float]:
    """Peak of ``fairseq-hydra-train``'s main process in a few updates; the loader's workers are not added."""
    shutil.rmtree(run_folder, ignore_errors=True)
    command = material.training_command(
        data,
        run_folder,
        f"task.profiling={profiling}",
        f"dataset.batch_size={_BATCH}",
        "optimization.max_update=6",
        "checkpoint.no_save=true",
    )
    return {"peak_mib": _run(command)}


def plain_training() -> dict[str, float]:
    """Peak of the plain training step in this process."""
    step = training.plain_step(_BATCH)
    for _ in range(2):
        step()
    return {"peak_mib": peak_mib()}


def _run(command: list[str], read: Callable[[str], None] = lambda line: None) -> float:
    """Run a command to its end; its peak resident memory in MiB.

    Raises:
        InputError: it failed.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    last = ""
    for line in process.stdout:
        read(line)
        last = line.strip() or last
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise InputError(f"{Path(command[0]).name} ended with code {process.returncode} ({last})")
    return usage.ru_maxrss / 1024
