"""Trainings to be killed: tiny models on noise, with everything that draws random numbers.

SIGKILL and the stop signals take turns, now and then for the loader's processes too; after some kills the newest
checkpoint is torn. Weights, optimiser, every figure that was logged and ``training.csv`` are compared.
"""

import itertools
import random
import signal
import sys
import time
from pathlib import Path
from threading import Lock

from noise_corpus import write_corpus
from running_command import RunningCommand, left_behind, tracebacks
from training_comparison import difference, figures, rows_of

ROOT = Path(__file__).parents[2]
EXIT_STOPPED = 75
CLIPS = {"train": 48, "valid": 18}
UPDATES = 60
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1)
MOST_KILLS = 3  # of one training, so that few kills meet many kinds of it
MOST_STARTS = 50
CHECKPOINTS = ("checkpoint_last.pt", "checkpoint_best.pt")

NETWORK = {
    "conv_feature_layers": "'[(16,3,1,2),(16,3,1,2)]'",
    "encoder_layers": 2,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32,
    "encoder_layerdrop": 0.3,
    "conv_pos": 8,
    "conv_pos_groups": 2,
    "final_dim": 8,
    "mask_prob": 0.3,
    "mask_length": 2,
    "mask_channel_prob": 0.25,
    "mask_channel_length": 2,
    "dropout": 0.2,
    "num_negatives": 2,
    "cross_sample_negatives": 4,
    "latent_vars": 4,
}
COMMON = [
    "dataset.batch_size=8",
    "common.log_interval=7",
    "optimization.max_epoch=0",
    "optimization.lr=[0.003]",
    "checkpoint.save_interval_updates=5",
    "checkpoint.keep_interval_updates=1",
]
NEUPRONET = [
    *(
        f"model.{part}.{name}={value}"
        for part in ("transformer", "profile_extractor")
        for name, value in NETWORK.items()
    ),
    "model.decoder_embed_dim=16",
    "task.time_mask=10",
    "task.frequency_mask=3",
    "criterion.loss_weights=[0.7,0.3]",
]
PRETRAINING = [
    *(f"model.{name}={value}" for name, value in NETWORK.items()),
    "task.profiling=true",
    "lr_scheduler.warmup_updates=20",
]
TRAININGS = {
    "plain": ("finetuning", [*NEUPRONET, "dataset.num_workers=0", "task.max_sample_size=40"]),
    "profile_batches": (
        "finetuning",
        [
            *NEUPRONET,
            "dataset.num_workers=2",
            "task.profiling=true",
            "task.profile_batches=true",
            "task.clips_per_profile=2",
        ],
    ),
    "bank": ("finetuning", [*NEUPRONET, "ablation=whole_split", "dataset.num_workers=0"]),
    "pretraining": ("pretraining", [*PRETRAINING, "dataset.num_workers=2"]),
}


class Subject:
    """Trains each kind once without a kill, when it is first asked for.

    Args:
        folder: for everything.
        jobs: trainings beside each other.
    """

    def __init__(self, folder: Path, jobs: int):
        self._folder, self.jobs = folder, jobs
        self._data = write_corpus(folder / "data", CLIPS)
        self._unbroken: dict[str, tuple[set[str], float]] = {}
        self._locks = {kind: Lock() for kind in TRAININGS}

    def _train(self, kind: str) -> tuple[set[str], float]:
        """Lines with figures, and seconds of the training loop."""
        with self._locks[kind]:
            if kind not in self._unbroken:
                training = self._start(kind, self._folder / kind)
                training.wait_for("begin training epoch 1")
                started = time.monotonic()
                if training.wait():
                    raise SystemExit(f"{kind}, unbroken, failed:\n{training.printed}")
                seconds = time.monotonic() - started
                print(f"{kind}: unbroken in {seconds:.1f} s", flush=True)
                self._unbroken[kind] = figures(training.printed), seconds
            return self._unbroken[kind]

    def _start(self, kind: str, folder: Path) -> RunningCommand:
        stage, options = TRAININGS[kind]
        command = [
            str(Path(sys.executable).with_name("fairseq-hydra-train")),
            f"task.data={self._data}",
            *COMMON,
            *options,
            f"optimization.max_update={UPDATES}",
            f"common.user_dir={ROOT / 'fairseq_neupronet'}",
            f"hydra.run.dir={folder}",
            "--config-dir",
            str(ROOT / "configs" / stage),
            "--config-name",
            "vocalsound",
        ]
        return RunningCommand(command, folder.with_suffix(".log"))

    def torture(self, job: int, n_kills: int, rng: random.Random) -> tuple[int, int]:
        """Kill so many times, over as many trainings as it takes; how many kills, and how many did no harm."""
        kinds = list(TRAININGS)
        kills = identical = 0
        signals = itertools.cycle(SIGNALS[job % 2 :] + SIGNALS[: job % 2])
        for number in itertools.count(job, self.jobs):
            if kills == n_kills:
                return kills, identical
            kind = kinds[number % len(kinds)]
            most = min(MOST_KILLS, n_kills - kills)
            sent, problems = self._one(kind, self._folder / f"{kind}-{number}", most, signals, rng)
            kills += len(sent)
            identical += 0 if problems else len(sent)
            print(
                f"{kind}: {', '.join(sent) or 'ended before its kill'}: {'; '.join(problems) or 'identical'}",
                flush=True,
            )

    def _one(self, kind: str, folder: Path, most: int, signals, rng) -> tuple[list[str], list[str]]:
        unbroken, seconds = self._train(kind)
        starts, sent, printed, problems = [], [], "", []
        for _ in range(MOST_STARTS):
            training = self._start(kind, folder)
            starts.append(training)
            killed = len(sent) < most and _wait(training, bool(sent), seconds, rng)
            if killed:
                number = next(signals)
                killed = training.kill(number, whole_group=rng.random() < 0.3)
            code = training.wait()
            printed += training.printed
            problems += tracebacks(training.printed)
            if not killed:
                break
            if "neupronet: finished: " not in training.printed:
                sent.append(number.name)
                problems += _problems_of(training, number)
                if number == signal.SIGKILL and rng.random() < 0.4:
                    _tear(folder / "checkpoints" / "checkpoint_last.pt", rng)
        problems += left_behind(starts, folder)
        if code:
            return sent, [*problems, f"exit code {code} in the end"]
        return sent, problems + self._differences(folder, self._folder / kind, figures(printed), unbroken)

    def _differences(self, folder: Path, whole: Path, lines: set[str], unbroken: set[str]) -> list[str]:
        found, expected = folder / "checkpoints", whole / "checkpoints"
        problems = [difference(found / name, expected / name) for name in CHECKPOINTS if (expected / name).exists()]
        problems += [f"another line: {line}" for line in sorted(lines - unbroken)[:1]]
        # The mean of an epoch is printed after its checkpoint is written; a kill between the two leaves it out.
        missing = sorted(line for line in unbroken - lines if not line.startswith("train: "))
        problems += [f"a line is missing: {line}" for line in missing[:1]]
        if rows_of(found / "training.csv") != rows_of(expected / "training.csv"):
            problems.append(f"{found / 'training.csv'} differs")
        return [problem for problem in problems if problem]


def _wait(training: RunningCommand, resumes: bool, seconds: float, rng: random.Random) -> bool:
    """For a random moment of its start or of its loop; whether the training still runs then."""
    training.wait_for("neupronet: resuming" if resumes and rng.random() < 0.2 else "begin training epoch")
    time.sleep(rng.uniform(0, 0.2 + seconds / 3))
    return training.runs()


def _problems_of(training: RunningCommand, number: int) -> list[str]:
    code = training.process.returncode
    # Before there is anything to save, a stop signal ends the process as it does by default.
    listens = "Preparing to load checkpoint" in training.printed
    expected = EXIT_STOPPED if number != signal.SIGKILL and listens else -number
    return [] if code == expected else [f"exit code {code} after {number.name}"]


def _tear(checkpoint: Path, rng: random.Random) -> None:
    if not checkpoint.exists():
        return
    data = bytearray(checkpoint.read_bytes())
    how = rng.choice(("cut", "empty", "garbage"))
    if how == "garbage":
        place = rng.randrange(len(data) // 2)
        data[place : place + 4096] = rng.randbytes(4096)
    checkpoint.write_bytes(data[: rng.randrange(len(data))] if how == "cut" else b"" if how == "empty" else data)
