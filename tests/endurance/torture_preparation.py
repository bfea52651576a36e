"""Preparations to be killed, to run out of disk, and to lose files while they run; every byte written is compared."""

import contextlib
import itertools
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Lock

import numpy as np
import soundfile
from running_command import RunningCommand, left_behind, tracebacks

CLIPS, RATE, SECONDS = 300, 16000, 0.5
FORMS = {"loose": [], "packed": ["--packed"]}
EVENTS = ("SIGKILL", "SIGTERM", "full disk", "damage")
DISK = "2m"  # less than the features take
MOST_TRIES = 20  # until an event falls while the preparation runs


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
    """Prepares once without a kill in each form, when it is first asked for.

    Args:
        folder: for everything.
        jobs: preparations beside each other.
    """

    def __init__(self, folder: Path, jobs: int):
        self._folder, self.jobs = folder, jobs
        self._table = write_audio(folder)
        self._unbroken: dict[str, tuple[dict[str, bytes], float]] = {}
        self._locks = {form: Lock() for form in FORMS}
        self._events = EVENTS if _can_mount(folder) else tuple(event for event in EVENTS if event != "full disk")
        if self._events != EVENTS:
            print("a small disk cannot be mounted here: full disks are left out", flush=True)

    def _prepare(self, form: str) -> tuple[dict[str, bytes], float]:
        """All files, and seconds of the writing."""
        with self._locks[form]:
            if form not in self._unbroken:
                folder = self._folder / form
                folder.mkdir()
                before, run = _written(folder / "out"), self._start(form, folder)
                run.wait_until(lambda: _written(folder / "out") != before)
                started = time.monotonic()
                if run.wait():
                    raise SystemExit(f"{form}, unbroken, failed:\n{run.printed}")
                seconds = time.monotonic() - started
                print(f"{form}: unbroken in {seconds:.1f} s", flush=True)
                self._unbroken[form] = files_of(folder / "out"), seconds
            return self._unbroken[form]

    def _start(self, form: str, folder: Path, workers: int = 1, out: Path | None = None) -> RunningCommand:
        program = str(Path(sys.executable).with_name("neupronet"))
        command = [program, "prepare", "table", "--metadata", str(self._table), "--out", str(out or folder / "out")]
        return RunningCommand([*command, *FORMS[form], "--workers", str(workers)], folder / "log.txt")

    def torture(self, job: int, n_kills: int, rng: random.Random) -> tuple[int, int]:
        """Break so many preparations, once or twice each; how many events, and how many did no harm."""
        first = job % 2
        events, kills, identical = itertools.cycle(self._events[first:] + self._events[:first]), 0, 0
        for number in itertools.count(job, self.jobs):
            if kills == n_kills:
                return kills, identical
            # Neighbouring rounds of a job take turns, whatever the number of jobs.
            form = list(FORMS)[(number // self.jobs + job) % len(FORMS)]
            chosen = list(itertools.islice(events, min(rng.choice((1, 2)), n_kills - kills)))
            problems = self._one(form, self._folder / f"{form}-{number}", chosen, rng)
            kills += len(chosen)
            identical += 0 if problems else len(chosen)
            print(f"{form}: {', '.join(chosen)}: {'; '.join(problems) or 'identical'}", flush=True)

    def _one(self, form: str, folder: Path, events: list[str], rng: random.Random) -> list[str]:
        expected, seconds = self._prepare(form)
        folder.mkdir()
        broken, problems = [], []
        for event in events:
            for _ in range(MOST_TRIES):
                if event == "full disk":
                    hit, found = True, self._fill_disk(form, folder)
                else:
                    run, hit, found = self._break(event, form, folder, seconds, rng)
                    broken.append(run)
                problems += found
                if hit:
                    break
                shutil.rmtree(folder / "out")
            else:
                problems.append(f"{event} never fell while it ran")
        run = self._start(form, folder)
        if run.wait():
            problems.append(f"exit code {run.process.returncode} in the end")
        problems += left_behind([*broken, run], folder)
        found = files_of(folder / "out")
        differing = [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
        return problems + ([f"{len(differing)} files differ, {differing[0]} first"] if differing else [])

    def _break(
        self, event: str, form: str, folder: Path, seconds: float, rng: random.Random
    ) -> tuple[RunningCommand, bool, list[str]]:
        """Kill a preparation at work, or damage what it writes: itself, whether it still ran, and what went wrong."""
        out = folder / "out"
        before, run = _written(out), self._start(form, folder, rng.choice((1, 2)))
        run.wait_until(lambda: _written(out) != before)
        if event == "damage":
            hit = False
            while run.runs():
                hit |= _damage(out, rng)
                time.sleep(0.1)
            problems = []
        else:
            number = signal.Signals[event]
            time.sleep(rng.uniform(0, seconds))
            hit = run.kill(number, whole_group=rng.random() < 0.5)
            code = run.process.returncode
            problems = [f"exit code {code} after {event}"] if hit and code != -number else []
        return run, hit, problems + tracebacks(run.printed)

    def _fill_disk(self, form: str, folder: Path) -> list[str]:
        """Prepare onto a disk that is too small, and keep what it holds."""
        disk = folder / "disk"
        disk.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", disk], check=True)
        try:
            run = self._start(form, folder, out=disk / "out")
            code = run.wait()
            said = run.printed.count("neupronet: error: ") == 1 and "No space left on device" in run.printed
            shutil.copytree(disk / "out", folder / "out", dirs_exist_ok=True)
        finally:
            subprocess.run(["umount", disk], check=True)
        problems = tracebacks(run.printed)
        return problems + ["not one sentence of the full disk"] * (code != 1 or not said)


def _can_mount(folder: Path) -> bool:
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", disk], capture_output=True)
    return mounted.returncode == 0 and subprocess.run(["umount", disk], check=True).returncode == 0


def _files(out: Path, pattern: str) -> list[Path]:
    """In order; none where a folder goes while one looks."""
    try:
        return sorted(out.rglob(pattern))
    except FileNotFoundError:
        return []


def _written(out: Path) -> set[tuple[str, int]]:
    """Names and times of all files, those written aside included."""
    found = set()
    for path in _files(out, "*.*"):
        with contextlib.suppress(FileNotFoundError):  # renamed in the meantime
            found.add((path.name, path.stat().st_mtime_ns))
    return found


def _damage(out: Path, rng: random.Random) -> bool:
    """Delete or cut one of the features; whether there were any."""
    features = _files(out, "*.npy")
    if not features:
        return False
    victim = rng.choice(features)
    try:
        size = victim.stat().st_size
        if rng.random() < 0.5:
            victim.unlink()
        else:
            with open(victim, "r+b") as file:
                file.truncate(rng.randrange(size + 1))
    except FileNotFoundError:  # packed in the meantime
        return False
    return True
