"""Train for hours on synthetic sound, and tell whether memory or file handles grow and each checkpoint can be read.

    python tests/endurance/soak.py                  2 hours
    python tests/endurance/soak.py --minutes 3 --keep DIR

Memory is the training process's resident memory, and what all its processes together hold beside files. Both go up and
down with the loader's processes: slopes are least squares over the highest of each few minutes (of handles, the
lowest), the first quarter of the time left out. Exit code 1 if the process or its handles grow, a checkpoint cannot be
read, or the training does not end as a stop signal asks.
"""

import argparse
import contextlib
import csv
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from running_command import RunningCommand, left_behind, tracebacks  # noqa: E402
from training_comparison import rows_of  # noqa: E402

ROOT = Path(__file__).parents[2]
EXIT_STOPPED = 75
EVERY = 5  # seconds between two samples
WARM_UP = 0.25  # of the samples
WINDOWS = 24  # of the samples after it
# What a window gives: memory is highest while the loader's processes run, and its own handles are left when none does.
STEADY = {"resident_mib": max, "all_processes_mib": max, "handles": min}
# An hour. All processes together are told, not judged: the loader's live for an epoch each.
MOST_GROWTH = {"resident_mib": 10, "handles": 1}
COLUMNS = ("seconds", "resident_mib", "all_processes_mib", "handles", "checkpoints_read")
OPTIONS = [
    "dataset.batch_size=16",
    "dataset.num_workers=2",
    "common.log_interval=50",
    "optimization.max_epoch=0",
    "optimization.max_update=1000000",
    "checkpoint.save_interval_updates=50",
    "checkpoint.keep_interval_updates=2",
    "task.profiling=true",
    "task.profile_batches=true",
    "task.clips_per_profile=4",
    "task.mixup=0.3",
    "model.profile_extractor.encoder_layers=2",
]


def prepare(folder: Path) -> Path:
    """The folder of manifests of a synthetic corpus, made with the user's own commands."""
    neupronet = Path(sys.executable).with_name("neupronet")
    corpus, data = folder / "corpus", folder / "data"
    subprocess.run([neupronet, "synthesize", corpus], check=True)
    subprocess.run(
        [
            neupronet,
            "prepare",
            "table",
            "--metadata",
            corpus / "metadata.csv",
            "--out",
            data,
            "--recipe",
            "kaldi_fbank",
            "--n-mels",
            "64",
        ],
        check=True,
    )
    return data


def start(folder: Path, data: Path) -> RunningCommand:
    return RunningCommand(
        [
            str(Path(sys.executable).with_name("fairseq-hydra-train")),
            f"task.data={data}",
            *OPTIONS,
            f"common.user_dir={ROOT / 'fairseq_neupronet'}",
            f"hydra.run.dir={folder / 'run'}",
            "--config-dir",
            str(ROOT / "examples" / "NeuProNet" / "config" / "finetuning"),
            "--config-name",
            "vocalsound_cnn",
        ],
        folder / "training.log",
    )


def soak(training: RunningCommand, folder: Path, seconds: float) -> tuple[list[tuple], list[str]]:
    """Samples, a row of ``samples.csv`` each, and what went wrong."""
    checkpoints = Checkpoints(folder)
    training.wait_for("begin training epoch 2")
    begin, samples = time.monotonic(), []
    with open(folder / "samples.csv", "w", newline="", buffering=1) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        while training.runs() and (passed := time.monotonic() - begin) < seconds:
            checkpoints.read_new()
            with contextlib.suppress(OSError):  # a process that ended while it was looked at
                samples.append((round(passed, 1), *measure(training.process.pid), checkpoints.n_read))
                writer.writerow(samples[-1])
            time.sleep(EVERY)
    stopped = training.kill(signal.SIGTERM)
    checkpoints.read_new()
    problems = [*checkpoints.problems, *tracebacks(training.printed), *left_behind([training], folder)]
    if not stopped or training.process.returncode != EXIT_STOPPED:
        problems.append(f"exit code {training.process.returncode} instead of {EXIT_STOPPED}")
    return samples, problems


class Checkpoints:
    """Reads each checkpoint of a training once, as whoever predicts with it does."""

    def __init__(self, folder: Path):
        self._folder, self._link = folder / "run" / "checkpoints", folder / "checkpoint_read.pt"
        self._seen: set[tuple[int, int]] = set()
        self.n_read, self.problems = 0, []

    def read_new(self) -> None:
        from fairseq_neupronet.inference.model import load

        for path in sorted(self._folder.glob("*.pt")):
            with contextlib.suppress(FileNotFoundError):  # replaced by a newer one
                os.link(path, self._link)  # stays when fairseq removes the other name
                try:
                    stat = self._link.stat()
                    if (stat.st_ino, stat.st_mtime_ns) not in self._seen:
                        self._seen.add((stat.st_ino, stat.st_mtime_ns))
                        load(self._link)
                        self.n_read += 1
                except Exception as error:  # whatever it is, it is a finding
                    self.problems.append(f"{path.name}: {error!r}")
                finally:
                    self._link.unlink()


def measure(process: int) -> tuple[float, float, int]:
    """Resident MiB of a process, MiB that all processes of its session hold beside files, its open file handles."""
    shares = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(path.name)) == process:
                # Proportional shares of files would change with strangers that have the same libraries open.
                shares += [_kib(path / "smaps_rollup", name) for name in ("Pss_Anon:", "Pss_Shmem:")]
    handles = len(os.listdir(f"/proc/{process}/fd"))
    return round(_kib(Path(f"/proc/{process}/status"), "VmRSS:") / 1024, 2), round(sum(shares) / 1024, 2), handles


def _kib(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ProcessLookupError(f"{file} has no {name}")  # of a process that has ended


def growth(samples: list[tuple]) -> dict[str, float]:
    """Slope of each measured column an hour."""
    steady = samples[int(len(samples) * WARM_UP) :]
    size = max(1, len(steady) // WINDOWS)
    windows = [steady[begin : begin + size] for begin in range(0, len(steady) - size + 1, size)]
    hours = [window[0][0] / 3600 for window in windows]
    return {
        name: statistics.linear_regression(hours, [of(row[column] for row in window) for window in windows]).slope
        for column, (name, of) in enumerate(STEADY.items(), 1)
    }


def main(argv=None) -> int:
    """Soak, and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120, help="of training (default: 120)")
    parser.add_argument("--keep", metavar="DIR", help="keep all files in this folder, which must be empty")
    options = parser.parse_args(argv)
    if options.minutes * 60 < 8 * EVERY:
        parser.error(f"--minutes is {8 * EVERY / 60:.2f} or more: fewer samples have no slope")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.keep or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        training = start(folder, prepare(folder))
        samples, problems = soak(training, folder, options.minutes * 60)
        if len(samples) < 8:
            print(f"{training.printed}\nthe training ended before it could be measured")
            return 1
        last = rows_of(folder / "run" / "checkpoints" / "training.csv")[-1]
    slopes = growth(samples)
    steady = samples[int(len(samples) * WARM_UP) :]
    print(
        f"{samples[-1][0] / 60:.0f} minutes, {last['updates']} updates, {last['epoch']} epochs, "
        f"{len(samples)} samples, {samples[-1][4]} checkpoints read"
    )
    for column, name in enumerate(COLUMNS[1:4], 1):
        values = [sample[column] for sample in steady]
        print(
            f"{name}: {values[0]:g} after the warm-up, {min(values):g} to {max(values):g}, {values[-1]:g} in the "
            f"end, slope {slopes[name]:+.2f} an hour"
        )
    problems += [f"{name} grows" for name, most in MOST_GROWTH.items() if slopes[name] > most]
    print("\n".join(problems) or "no growth, every checkpoint can be read")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
