"""Preparations to be killed, to run out of disk, and to lose files while they run."""

import itertools
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
from torture_training import Training

CLIPS, RATE, SECONDS = 300, 16000, 0.5
FORMS = {"loose": [], "packed": ["--packed"]}
EVENTS = ("SIGKILL", "SIGTERM", "full disk", "damage")
DISK = "2m"  # less than the features take
PATIENCE = 0.01  # seconds between looks at what is written


def write_audio(folder: Path) -> Path:
    """Noise, and its table."""
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir(parents=True)
    rows = ["path,label,profile,split"]
    for number in range(CLIPS):
        name = f"{number}.wav"
        soundfile.write(folder / "audio" / name, rng.normal(size=int(RATE * SECONDS)) / 10, RATE)
        rows.append(f"audio/{name},{'abc'[number % 3]},p{number % 7},{('train', 'train', 'valid', 'test')[number % 4]}")
    table = folder / "clips.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def files_of(out: Path) -> dict[str, bytes]:
    """Everything that a preparation wrote, hidden files included."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


class Subject:
    """Prepares once without a kill in each form.

    Args:
        folder: for everything.
        jobs: preparations beside each other.
    """

    def __init__(self, folder: Path, jobs: int):
        self._folder = folder
        self._table = write_audio(folder)
        with ThreadPoolExecutor(jobs) as pool:
            self._unbroken = dict(zip(FORMS, pool.map(self._prepare, FORMS), strict=True))

    def _prepare(self, form: str) -> tuple[dict[str, bytes], float]:
        out = self._folder / form
        run = self._start(form, out)
        _wait_for_features(run, out)
        started = time.monotonic()
        run.process.wait()
        if run.process.returncode:
            raise SystemExit(f"{form}, unbroken, failed:\n{run.printed}")
        seconds = time.monotonic() - started
        print(f"{form}: unbroken in {seconds:.1f} s", flush=True)
        return files_of(out), seconds

    def _start(self, form: str, out: Path, workers: int = 1) -> Training:
        program = str(Path(sys.executable).with_name("neupronet"))
        command = [program, "prepare", "table", "--metadata", str(self._table), "--out", str(out), *FORMS[form]]
        log = self._folder / f"log-{out.name if out.name != 'out' else out.parent.name}"
        return Training([*command, "--workers", str(workers)], log)

    def torture(self, job: int, n_kills: int, rng: random.Random) -> tuple[int, int]:
        """Break so many preparations, once or twice each; how many events, and how many did no harm."""
        events, kills, identical = itertools.cycle(EVENTS[job % 2 :] + EVENTS[: job % 2]), 0, 0
        for number in itertools.count():
            if kills == n_kills:
                return kills, identical
            form = list(FORMS)[(number + job) % len(FORMS)]
            chosen = list(itertools.islice(events, min(rng.choice((1, 2)), n_kills - kills)))
            problem = self._one(form, self._folder / f"{form}-{job}-{number}", chosen, rng)
            kills += len(chosen)
            identical += 0 if problem else len(chosen)
            print(f"{form}: {', '.join(chosen)}: {problem or 'identical'}", flush=True)

    def _one(self, form: str, folder: Path, events: list[str], rng: random.Random) -> str:
        expected, seconds = self._unbroken[form]
        out = folder / "out"
        folder.mkdir()
        problems = []
        for event in events:
            if event == "full disk":
                problems += self._fill_disk(form, folder)
                continue
            run = self._start(form, out, rng.choice((1, 2)))
            _wait_for_features(run, out)
            if event == "damage":
                while run.process.poll() is None:
                    _damage(out, rng)
                    time.sleep(0.1)
            else:
                time.sleep(rng.uniform(0, seconds))
                run.kill(signal.Signals[event], whole_group=rng.random() < 0.5)
            problems += ["a traceback"] * ("Traceback" in run.printed)
        run = self._start(form, out)
        run.process.wait()
        if run.process.returncode:
            problems.append(f"exit code {run.process.returncode} in the end")
        found = files_of(out)
        differing = [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
        problems += [f"{len(differing)} files differ, {differing[0]} first"] if differing else []
        return "; ".join(problems)

    def _fill_disk(self, form: str, folder: Path) -> list[str]:
        """Prepare onto a disk that is too small, and keep what it holds."""
        disk = folder / "disk"
        disk.mkdir(exist_ok=True)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", disk], capture_output=True)
        if mounted.returncode:
            raise SystemExit("a small disk cannot be mounted: run as root")
        try:
            run = self._start(form, disk / "out")
            run.process.wait()
            said = run.printed.count("neupronet: error: ") == 1 and "No space left on device" in run.printed
            shutil.copytree(disk / "out", folder / "out", dirs_exist_ok=True)
        finally:
            subprocess.run(["umount", disk], check=True)
        problems = ["a traceback"] * ("Traceback" in run.printed)
        return problems + ["not one sentence of the full disk"] * (run.process.returncode != 1 or not said)


def _wait_for_features(run: Training, out: Path) -> None:
    while run.runs() and not any(out.rglob("*.npy")):
        time.sleep(PATIENCE)


def _damage(out: Path, rng: random.Random) -> None:
    written = sorted(out.rglob("*.npy"))
    if not written:
        return
    victim = rng.choice(written)
    try:
        data = victim.read_bytes()
        if rng.random() < 0.5:
            victim.unlink()
        else:
            victim.write_bytes(data[: rng.randrange(len(data))])
    except FileNotFoundError:  # packed in the meantime
        return
