"""What ``scripts/demo.sh`` does once the environment is there: the steps, a bar for each, and the table.

Two steps run at a time, each on half of the cores. What a step prints goes to a file of its own.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from demo_table import BASE, NORMALIZED, OFFICIAL, PROTOCOLS, report
from tqdm import tqdm

from fairseq_neupronet.files import atomic_file
from fairseq_neupronet.training_progress import read_progress

LOOK = 0.2  # seconds between two looks at what runs
TAIL = 15  # lines of a failed step's output that are shown
AT_ONCE = 2
EXTRACTOR = "profile_extractor"


@dataclass(frozen=True)
class Step:
    """A command.

    Attributes:
        name: for the screen; its log is named after it.
        command: program and arguments.
        checkpoints: of a training, where it writes its progress.
        made: a file that the command writes last; where it is, there is nothing to do. None: the command knows itself.
    """

    name: str
    command: list[str]
    checkpoints: Path | None = None
    made: Path | None = None


class Demo:
    """The steps of a demo.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace):
        self.options, self.out, self.data = options, options.out, options.out / "data"
        self.profiles = 12 if options.smallest else 120
        if options.vocalsound:
            self.described = (
                f"VocalSound from {options.vocalsound}, test split; trained on every third training speaker, 64 mels"
            )
            updates, extractor_updates, batch = 800, 800, 64
            # Masks as large as the recipe's for 128 mels and 512 frames are to 64 mels and 98 frames.
            augmentation = ["task.frequency_mask=24", "task.time_mask=36"]
        else:
            self.described = (
                f"SYNTHETIC sound of neupronet synthesize, seed {options.seed}, test split: "
                "these figures say nothing of real sound"
            )
            updates, extractor_updates, batch = 210, 100, 32
            # So few clips are too few to learn from masked ones in so short a time.
            augmentation = ["task.specaug=false"]
        if options.smallest:
            updates = extractor_updates = 4
        self.pretraining = [
            f"optimization.max_update={extractor_updates}",
            f"lr_scheduler.warmup_updates={extractor_updates // 10}",
            f"dataset.batch_size={batch}",
            # One second is 98 frames, 13 encoder steps: spans of 10 would hide nearly all of a clip.
            "model.mask_length=4",
        ]
        self.finetuning = [f"optimization.max_update={updates}", f"dataset.batch_size={batch}", *augmentation]
        self.finetuning.append("optimization.lr=[0.001]")

    def preparation(self) -> list[Step]:
        """One after the other, and before all else."""
        corpus, vocalsound = self.out / "corpus", self.options.vocalsound
        table = corpus / "metadata.csv"
        if vocalsound:
            source = ["vocalsound", "--root", vocalsound, "--train-speakers-every", 3]
        else:
            source = ["table", "--metadata", table, "--recipe", "kaldi_fbank"]
        sizes = ["--seed", self.options.seed, "--profiles", self.profiles]
        synthesis = [] if vocalsound else [self._neupronet("synthetic sound", "synthesize", corpus, *sizes, made=table)]
        return [*synthesis, self._neupronet("features", "prepare", *source, "--out", self.data, "--n-mels", 64)]

    def trainings(self) -> list[list[Step]]:
        """Lists that may run beside each other."""
        extractor = self._checkpoints(EXTRACTOR) / "checkpoint_best.pt"
        official = [
            f"model.profile_extractor_path={extractor}",
            "task.profile_batches=True",
            f"task.clips_per_profile={6 if self.options.vocalsound else 8}",
        ]
        return [
            [
                self._training(EXTRACTOR, "pretraining", "vocalsound", *self.pretraining),
                *self._model(OFFICIAL, *official),
            ],
            [*self._model(BASE), *self._model(NORMALIZED)],
        ]

    def _model(self, ablation: str, *overrides: str) -> list[Step]:
        evaluation = self.out / ablation / "evaluation"
        return [
            self._training(
                ablation, "finetuning", "vocalsound_cnn", f"ablation={ablation}", *self.finetuning, *overrides
            ),
            self._neupronet(
                f"evaluating {ablation}",
                "evaluate",
                *("--path", self._checkpoints(ablation) / "checkpoint_best.pt", "--data", self.data),
                *("--out", evaluation, "--protocol", ",".join(PROTOCOLS), "--seed", self.options.seed, "--workers", 0),
                made=evaluation / "results.csv",
            ),
        ]

    def _training(self, name: str, stage: str, recipe: str, *overrides: str) -> Step:
        command = [
            *(_program("fairseq-hydra-train"), "--config-dir", f"configs/{stage}", "--config-name", recipe),
            *(f"task.data={self.data}", f"hydra.run.dir={self.out / name}", f"common.seed={self.options.seed}"),
            *("dataset.num_workers=0", *overrides),
        ]
        return Step(f"training {name}", command, checkpoints=self._checkpoints(name))

    def _checkpoints(self, name: str) -> Path:
        return self.out / name / "checkpoints"

    def _neupronet(self, name: str, *arguments, made: Path | None = None) -> Step:
        return Step(name, [_program("neupronet"), *map(str, arguments)], made=made)

    def claim(self) -> None:
        """Write down which demo the folder holds; refuse one that holds another."""
        record, own = self.out / "demo.json", self.pretraining + self.finetuning
        options = {name: str(value) for name, value in vars(self.options).items() if name != "out"}
        options |= {"profiles": self.profiles, "overrides": own}
        earlier = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
        if earlier != options and self.out.is_dir() and any(self.out.iterdir()):
            sys.exit(f"demo: {self.out}: holds another demo, or something else; remove it, or name another with --out")
        with atomic_file(record) as file:
            json.dump(options, file, indent=2)


class Running:
    """A step at work, and its bar.

    Args:
        step: which.
        log: takes what it prints.
        row: of the bar, below the cursor.
    """

    def __init__(self, step: Step, log: Path, row: int):
        self.step, self.log, self._began = step, log, time.monotonic()
        threads = max(1, (os.cpu_count() or 1) // AT_ONCE)
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                step.command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"},
            )
        # Without a terminal there is no bar.
        self._bar = tqdm(desc=step.name, position=row, leave=False, disable=None, bar_format="{desc}  {elapsed}")

    def show(self) -> None:
        """Draw the bar anew."""
        progress = self.step.checkpoints and read_progress(self.step.checkpoints)
        if progress and progress.of:
            self._bar.bar_format = "{desc}  {percentage:3.0f} % |{bar:30}| {n_fmt}/{total_fmt} updates{postfix}"
            self._bar.n, self._bar.total = progress.update, progress.of
            left = "" if progress.seconds_left is None else f"{clock(progress.seconds_left)} left"
            figure = "" if progress.value is None else f"{progress.metric} {progress.value:.3f}"
            self._bar.set_postfix_str(", ".join(filter(None, [left, figure])), refresh=False)
        self._bar.refresh()

    def end(self) -> None:
        """Say that it is done, or how it failed."""
        self._bar.close()
        if self.process.returncode:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
            sys.exit("\n".join([*lines, f"demo: {self.step.name}: failed; all that it printed is in {self.log}"]))
        tqdm.write(f"demo: {self.step.name}: done in {clock(time.monotonic() - self._began)}")

    def stop(self) -> None:
        """End it before its time."""
        self._bar.close()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        self.process.kill()


def run(lanes: list[list[Step]], out: Path) -> None:
    """Run lists of steps beside each other; the first failure ends all."""
    waiting, running = [list(lane) for lane in lanes], {}
    try:
        while running or any(waiting):
            for row, lane in enumerate(waiting):
                while lane and row not in running:
                    step = lane.pop(0)
                    if step.made is None or not step.made.exists():
                        running[row] = Running(step, out / f"{step.name.replace(' ', '-')}.log", row)
            time.sleep(LOOK)
            for row, one in list(running.items()):
                one.show()
                if one.process.poll() is not None:
                    del running[row]
                    one.end()
    finally:
        for one in running.values():
            one.stop()


def clock(seconds: float) -> str:
    """``1:23``."""
    return "{}:{:02d}".format(*divmod(round(seconds), 60))


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the options that ``demo.sh`` has checked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocalsound", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--smallest", action="store_true")
    return parser.parse_args(arguments)


def main() -> None:
    demo = Demo(parse(sys.argv[1:]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    demo.claim()
    print(f"demo: two steps at a time; what they print is in {demo.out}/*.log", flush=True)
    run([demo.preparation()], demo.out)
    run(demo.trainings(), demo.out)
    text = report(demo.out, demo.described)
    with atomic_file(demo.out / "table.md") as file:
        file.write(text)
    print(f"\n{text}\ncheckpoints, predictions and this table: {demo.out}")


if __name__ == "__main__":
    main()
