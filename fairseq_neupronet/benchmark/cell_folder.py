"""A cell's folder: what stands where, whether it is finished, and what a killed attempt left.

``log.txt`` (all output), ``config.yaml`` (the composed recipe), ``cell.json`` (digest, state, seconds), ``train/``
(of fairseq-hydra-train), ``evaluation/`` (of neupronet evaluate), ``results.csv`` (the cell's rows), ``lock`` at work.
"""

import json
import shutil
from pathlib import Path

import yaml

from fairseq_neupronet.benchmark.cells import Cell
from fairseq_neupronet.benchmark.recipes import composed
from fairseq_neupronet.files import atomic_file

_STATE, _TRAINING = "cell.json", "training.json"


class CellFolder:
    """The folder of ``cell`` below the benchmark's ``out``."""

    def __init__(self, out: Path, cell: Cell):
        self.cell = cell
        self.path = out / "cells" / cell.name
        self.log = self.path / "log.txt"
        self.train = self.path / "train"
        self.checkpoints = self.train / "checkpoints"
        self.best = self.checkpoints / "checkpoint_best.pt"
        self.evaluation = self.path / "evaluation"
        self.results = self.path / "results.csv"
        self.lock = self.path / "lock"

    def state(self) -> dict:
        """What ``cell.json`` says; empty where there is none."""
        try:
            return json.loads((self.path / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def is_finished(self, digest: str) -> bool:
        state = self.state()
        made = self.results if self.cell.stage == "finetuning" else self.best
        return state.get("finished", False) and state["config_hash"] == digest and made.is_file()

    def is_stale(self, digest: str) -> bool:
        """Whether it holds work on another config, or on other data."""
        state = self.state()
        return bool(state) and state["config_hash"] != digest

    def has_training(self, digest: str, training: str) -> bool:
        """Whether it holds that very training, begun, and all that it left where it has ended."""
        try:
            ended = json.loads((self.train / _TRAINING).read_text(encoding="utf-8")).get("finished", False)
        except (OSError, ValueError, AttributeError):
            return False
        state = self.state()
        # An older version did not write down which training it is; where nothing is written, the training itself knows.
        is_that = not state or (
            state["training_hash"] == training if "training_hash" in state else state["config_hash"] == digest
        )
        return is_that and (self.best.is_file() or not ended)

    def seconds(self) -> float:
        """What attempts took that were stopped in an orderly way."""
        state = self.state()
        return 0.0 if state.get("finished") else state.get("seconds", 0.0)

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

    def begin(self, digest: str, training: str, version: str, seconds: float = 0.0) -> None:
        """Write down what the folder is for, and what was spent on it."""
        with atomic_file(self.path / "config.yaml") as file:
            yaml.safe_dump(composed(self.cell), file, sort_keys=False)
        self._write(digest, training, version, seconds, finished=False)

    def finish(self, digest: str, training: str, version: str, seconds: float) -> None:
        self._write(digest, training, version, seconds, finished=True)

    def drop_checkpoints(self) -> None:
        """Remove what the table no longer needs; an extractor keeps its best, and every training its log."""
        for path in self.checkpoints.glob("*checkpoint*"):
            if self.cell.stage == "finetuning" or path != self.best:
                path.unlink()

    def _write(self, digest: str, training: str, version: str, seconds: float, finished: bool) -> None:
        cell = self.cell
        state = {
            "config_hash": digest,
            "training_hash": training,
            "version": version,
            "finished": finished,
            "seconds": round(seconds, 1),
            "cell": cell.name,
            "recipe": cell.recipe,
            "overrides": cell.overrides,
            "data": cell.data,
        }
        with atomic_file(self.path / _STATE) as file:
            json.dump(state, file, indent=2)
            file.write("\n")
