"""A cell's folder: what stands where, whether it is finished, what a killed attempt left, and the cell's commands.

``log.txt`` (all output), ``config.yaml`` (the composed recipe), ``cell.json`` (digest, state, seconds), ``train/``
(of fairseq-hydra-train), ``evaluation/`` (of neupronet evaluate), ``results.csv`` (the cell's rows), ``lock`` at work.
"""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from fairseq_neupronet import __version__
from fairseq_neupronet.benchmark.cells import Cell, composed, config_hash, training_hash
from fairseq_neupronet.files import atomic_file, package_folder

_STATE, _TRAINING = "cell.json", "training.json"


class CellFolder:
    """One cell's folder.

    Args:
        out: the benchmark's folder.
        cell: whose folder it is.
        evaluation: subsets, protocols and options of ``neupronet evaluate``, and whether embeddings are kept.
    """

    def __init__(self, out: Path, cell: Cell, evaluation: dict):
        self.cell, self._evaluation = cell, evaluation
        self.path = out / "cells" / cell.name
        self.log = self.path / "log.txt"
        self.train = self.path / "train"
        self.checkpoints = self.train / "checkpoints"
        self.best = self.checkpoints / "checkpoint_best.pt"
        self.evaluation = self.path / "evaluation"
        self.results = self.path / "results.csv"
        self.lock = self.path / "lock"

    @property
    def digest(self) -> str:
        """Of all that decides the cell's result."""
        return config_hash(self.cell, self._evaluation)

    def state(self) -> dict:
        """What ``cell.json`` says; empty where there is none."""
        return _read(self.path / _STATE) or {}

    def is_finished(self) -> bool:
        """Whether it holds the cell's result."""
        made = self.results if self.cell.stage == "finetuning" else self.best
        state = self.state()
        return state.get("finished", False) and state["config_hash"] == self.digest and made.is_file()

    def is_stale(self) -> bool:
        """Whether it holds work on another config, or on other data."""
        state = self.state()
        return bool(state) and state["config_hash"] != self.digest

    def has_training(self) -> bool:
        """Whether it holds the cell's training, begun, and all that it left where it has ended."""
        training, state = _read(self.train / _TRAINING), self.state()
        # Where nothing is written of the cell, the training itself knows whether it is the same.
        is_that = training is not None and (not state or state.get("training_hash") == training_hash(self.cell))
        return is_that and (self.best.is_file() or not training.get("finished", False))

    def seconds(self) -> float:
        """What earlier attempts took; one that was killed, as long as it wrote its log."""
        state = self.state()
        if not state or state["finished"]:
            return 0.0
        killed = self.log.stat().st_mtime - state["since"] if state.get("since") and self.log.is_file() else 0.0
        return state["seconds"] + max(0.0, killed)

    def clear(self) -> None:
        """Remove all work; the lock stays."""
        self.clear_evaluation()
        for path in (self.path / _STATE, self.log):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.train, ignore_errors=True)

    def clear_evaluation(self) -> None:
        """Remove what was made of the training."""
        self.results.unlink(missing_ok=True)
        shutil.rmtree(self.evaluation, ignore_errors=True)

    def note(self, seconds: float, since: float | None = None, finished: bool = False) -> None:
        """Write down what the folder is for, and how far it is.

        Args:
            seconds: spent on it before.
            since: Unix time at which an attempt began; None as it is stopped, its time being among the seconds.
            finished: whether it holds the cell's result.
        """
        cell = self.cell
        state = {
            "config_hash": self.digest,
            "training_hash": training_hash(cell),
            "version": version(),
            "finished": finished,
            "seconds": round(seconds, 1),
            "since": since,
            "cell": cell.name,
            "recipe": cell.recipe,
            "overrides": cell.overrides,
            "data": cell.data,
        }
        with atomic_file(self.path / "config.yaml") as file:
            yaml.safe_dump(composed(cell), file, sort_keys=False)
        with atomic_file(self.path / _STATE) as file:
            json.dump(state, file, indent=2)
            file.write("\n")

    def drop_checkpoints(self) -> None:
        """Remove what the table no longer needs; an extractor keeps its best, and every training its log."""
        for path in self.checkpoints.glob("*checkpoint*"):
            if self.cell.stage == "finetuning" or path != self.best:
                path.unlink()


def _read(path: Path) -> dict | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


@dataclass
class Settings:
    """What all cells of a benchmark share.

    Attributes:
        out: the benchmark's folder.
        evaluation: subsets, protocols and options of ``neupronet evaluate``.
        keep_checkpoints: whether a finished cell keeps its checkpoints.
        embeddings: the cells whose embeddings are kept.
        jobs: cells at a time.
    """

    out: Path
    evaluation: dict
    keep_checkpoints: bool = False
    embeddings: frozenset[Cell] = frozenset()
    jobs: int = 1

    def folder(self, cell: Cell) -> CellFolder:
        return CellFolder(self.out, cell, self.evaluation | {"embeddings": cell in self.embeddings})


def training_command(folder: CellFolder, extractor: CellFolder | None) -> list[str]:
    """``fairseq-hydra-train`` with the cell's recipe, data, seed and folder."""
    cell = folder.cell
    command = [_program("fairseq-hydra-train"), "--config-dir", str(cell.recipe_folder), "--config-name", cell.recipe]
    command += [*cell.overrides, f"task.data={_quoted(Path(cell.data).resolve())}", f"common.seed={cell.seed}"]
    command.append(f"hydra.run.dir={_quoted(folder.train.resolve())}")
    if extractor is not None:
        command.append(f"model.profile_extractor_path={_quoted(extractor.best.resolve())}")
    return command


def evaluation_command(folder: CellFolder, evaluation: dict, embeddings: bool) -> list[str]:
    """``neupronet evaluate`` of the cell's best checkpoint."""
    options = {
        "--path": str(folder.best),
        "--data": folder.cell.data,
        "--subset": ",".join(evaluation["subsets"]),
        "--protocol": ",".join(evaluation["protocols"]),
        "--out": str(folder.evaluation),
    }
    command = [
        sys.executable,
        "-m",
        "fairseq_neupronet",
        "evaluate",
        *(text for pair in options.items() for text in pair),
    ]
    return [*command, *map(str, evaluation["options"]), *(["--embeddings"] if embeddings else [])]


def printed(command: list[str]) -> str:
    """As a shell would take it."""
    return shlex.join([Path(command[0]).name if command[0] != sys.executable else "python", *command[1:]])


def _program(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else name


def _quoted(path: Path) -> str:
    """In Hydra's grammar, where a path may hold signs that mean something."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


@lru_cache(maxsize=1)
def version() -> str:
    """The package's version, and in a checkout its commit, as ``0.1.0+1a2b3c4``."""
    root = package_folder().parent
    if not (root / ".git").exists():
        return __version__
    command = ["git", "-C", str(root), "rev-parse", "--short=7", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{commit}"
