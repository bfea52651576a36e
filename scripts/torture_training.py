"""Trainings to be killed: tiny models on noise, with everything that draws random numbers."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from training_comparison import difference, figures

ROOT = Path(__file__).parents[1]
EXIT_STOPPED = 75
N_MELS, CLASSES, N_PROFILES, CLIPS = 8, ("a", "b", "c"), 6, {"train": 48, "valid": 18}
MARGIN = 0.25  # seconds before the training loop in which a kill may fall too
MOST_STARTS = 50

NETWORK = {
    "conv_feature_layers": "'[(16,3,1,2),(16,3,1,2)]'", "encoder_layers": 2, "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32, "encoder_layerdrop": 0.3, "conv_pos": 8, "conv_pos_groups": 2, "final_dim": 8,
    "mask_prob": 0.3, "mask_length": 2, "mask_channel_prob": 0.25, "mask_channel_length": 2, "dropout": 0.2,
    "num_negatives": 2, "cross_sample_negatives": 4, "latent_vars": 4,
}  # fmt: skip
COMMON = [
    "dataset.batch_size=8", "common.log_interval=7", "optimization.max_epoch=0", "optimization.lr=[0.003]",
    "checkpoint.save_interval_updates=5", "checkpoint.keep_interval_updates=1",
]  # fmt: skip
NEUPRONET = [
    *(f"model.{part}.{name}={value}" for part in ("transformer", "profile_extractor")
      for name, value in NETWORK.items()),
    "model.decoder_embed_dim=16", "task.time_mask=10", "task.frequency_mask=3", "criterion.loss_weights=[0.7,0.3]",
]  # fmt: skip
TRAININGS = {
    "plain": ("finetuning", [*NEUPRONET, "dataset.num_workers=0", "task.max_sample_size=40"]),
    "profile_batches": (
        "finetuning",
        [*NEUPRONET, "dataset.num_workers=2", "task.profiling=true", "task.profile_batches=true",
         "task.clips_per_profile=2"],
    ),
    "bank": (
        "finetuning", [*NEUPRONET, "ablation=whole_split", "dataset.num_workers=0"],
    ),
    "pretraining": (
        "pretraining",
        [*(f"model.{name}={value}" for name, value in NETWORK.items()), "dataset.num_workers=2",
         "task.profiling=true", "lr_scheduler.warmup_updates=20"],
    ),
}  # fmt: skip


def write_corpus(folder: Path) -> None:
    """Noise in the official layout."""
    rng = np.random.default_rng(0)
    (folder / "features").mkdir(parents=True)
    for split, n_clips in CLIPS.items():
        rows = ["features"]
        for number in range(n_clips):
            n_frames = int(rng.integers(20, 61))
            np.save(folder / "features" / f"{split}{number}.npy", rng.normal(size=(N_MELS, n_frames)).astype("f4"))
            rows.append(f"{split}{number}.npy\t{N_MELS}\t{n_frames}\tp{rng.integers(N_PROFILES)}")
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
        labels = (CLASSES[number % len(CLASSES)] for number in range(n_clips))
        (folder / f"{split}.label").write_text("".join(f"{label}\n" for label in labels))
    (folder / "dict.label.txt").write_text("".join(f"{name} 1\n" for name in CLASSES))


class Training:
    """One start of a training's command, in a session of its own."""

    def __init__(self, command: list[str], folder: Path):
        self.log = folder.with_suffix(".log")
        self._begins_at = self.log.stat().st_size if self.log.exists() else 0
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
        with open(self.log, "ab") as file:
            self.process = subprocess.Popen(
                command, cwd=folder.parent, env=environment, stdout=file, stderr=file, start_new_session=True
            )

    @property
    def printed(self) -> str:
        with open(self.log, "rb") as file:
            file.seek(self._begins_at)
            return file.read().decode(errors="replace")

    def runs(self) -> bool:
        return self.process.poll() is None

    def wait_for(self, text: str) -> None:
        while self.runs() and text not in self.printed:
            time.sleep(0.02)

    def kill(self, number: int, whole_group: bool) -> None:
        if self.runs():
            (os.killpg if whole_group else os.kill)(self.process.pid, number)
        self.process.wait()


class Subject:
    """Trains each kind once without a kill.

    Args:
        folder: for everything.
        jobs: trainings beside each other.
    """

    def __init__(self, folder: Path, jobs: int):
        self._folder = folder
        write_corpus(folder / "data")
        with ThreadPoolExecutor(jobs) as pool:
            self._unbroken = dict(zip(TRAININGS, pool.map(self._train, TRAININGS), strict=True))

    def _train(self, kind: str) -> tuple[Path, set[str], float]:
        folder = self._folder / kind
        training = Training(self._command(kind, folder), folder)
        training.wait_for("begin training epoch 1")
        started = time.monotonic()
        training.process.wait()
        if training.process.returncode:
            raise SystemExit(f"{kind}, unbroken, failed:\n{training.printed}")
        seconds = time.monotonic() - started
        print(f"{kind}: unbroken in {seconds:.1f} s", flush=True)
        return folder, figures(training.printed), seconds

    def _command(self, kind: str, folder: Path) -> list[str]:
        stage, options = TRAININGS[kind]
        return [
            str(Path(sys.executable).with_name("fairseq-hydra-train")), f"task.data={self._folder / 'data'}", *COMMON,
            *options, "optimization.max_update=60", f"common.user_dir={ROOT / 'fairseq_neupronet'}",
            f"hydra.run.dir={folder}", "--config-dir", str(ROOT / "configs" / stage), "--config-name", "vocalsound",
        ]  # fmt: skip

    def torture(self, job: int, n_kills: int, rng: random.Random) -> tuple[int, int]:
        """Kill so many times, over as many trainings as it takes; how many kills, and how many did no harm."""
        kinds = list(TRAININGS)
        kills = identical = 0
        signals = itertools.cycle((signal.SIGKILL, signal.SIGTERM))
        for number in itertools.count(job):
            if kills == n_kills:
                return kills, identical
            kind = kinds[number % len(kinds)]
            done, problem = self._one(kind, self._folder / f"{kind}-{job}-{number}", n_kills - kills, signals, rng)
            kills += done
            identical += 0 if problem else done
            print(f"{kind}: {done} kills, {problem or 'identical'}", flush=True)

    def _one(self, kind: str, folder: Path, most: int, signals, rng) -> tuple[int, str]:
        reference, unbroken, seconds = self._unbroken[kind]
        kills, printed, problems = 0, "", []
        for _ in range(MOST_STARTS):
            training = Training(self._command(kind, folder), folder)
            if kills < most:
                training.wait_for("neupronet: resuming" if kills and rng.random() < 0.2 else "begin training epoch")
                time.sleep(rng.uniform(0, MARGIN + seconds / 3))
                if training.runs():
                    number = next(signals)
                    training.kill(number, whole_group=rng.random() < 0.3)
                    kills += 1
                    problems += _problems_of(training, number)
                    if number == signal.SIGKILL and rng.random() < 0.4:
                        _tear(folder / "checkpoints" / "checkpoint_last.pt", rng)
            code = training.process.wait()
            printed += training.printed
            if code == 0:
                break
        last = Path("checkpoints") / "checkpoint_last.pt"
        if code:
            problems.append(f"not finished after {MOST_STARTS} starts")
        else:
            problems.append(difference(folder / last, reference / last))
            problems += [f"another line: {line}" for line in sorted(figures(printed) - unbroken)[:1]]
        return kills, "; ".join(filter(None, problems))


def _problems_of(training: Training, number: int) -> list[str]:
    code = training.process.returncode
    expected = {-signal.SIGKILL} if number == signal.SIGKILL else {EXIT_STOPPED}
    # Before there is anything to save, and while the interpreter ends.
    listens = "Preparing to load checkpoint" in training.printed and "neupronet: finished: " not in training.printed
    if number == signal.SIGTERM and not listens:
        expected = {-signal.SIGTERM}
    problems = [] if code in expected | {0} else [f"exit code {code} after signal {number}"]
    return problems + ["a traceback"] * ("Traceback" in training.printed)


def _tear(checkpoint: Path, rng: random.Random) -> None:
    if not checkpoint.exists():
        return
    data = bytearray(checkpoint.read_bytes())
    how = rng.choice(("cut", "empty", "garbage"))
    if how == "garbage":
        place = rng.randrange(len(data) // 2)
        data[place : place + 4096] = rng.randbytes(4096)
    checkpoint.write_bytes(data[: rng.randrange(len(data))] if how == "cut" else b"" if how == "empty" else data)
