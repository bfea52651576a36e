"""Train and validate every combination of backbone, pooling, grouping, fusion and loss on a tiny corpus of noise.

    python tests/endurance/option_matrix.py [--device cuda]

Each cell of the tables is three training steps and one validation, done twice from one seed. It shows the loss of the
validation; ``refused`` where the model says that the combination makes no sense (its sentences stand below), and
``FAILED`` where a loss is not finite or the second time differs (on a GPU, whose sums are of no fixed order, by more
than a hundredth). Exit code 1 where any cell failed.
"""

import argparse
import logging
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from fairseq import criterions, tasks, utils
from fairseq.logging import metrics
from omegaconf import OmegaConf, open_dict

import fairseq_neupronet.tasks  # noqa: F401 (registers the plugin)
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.neupronet import NeuProNetConfig
from fairseq_neupronet.networks.pooling import POOLINGS
from fairseq_neupronet.trainer.fused_adam import FusedAdam

BACKBONES = ("spectrogram_wav2vec2", "efficientnet-b0", "resnet18")
NO_PROFILES = ("no profiles", "")
PROFILES = (NO_PROFILES, *((pooling, grouping) for grouping in ("in_batch", "whole_split") for pooling in POOLINGS))
FUSIONS = ("concat", "gate", "tensor")
LOSSES = ("classification", "sup_contrast", "auto_encoder")
CLASSES, GROUPS = ("a", "b", "c"), ("x", "y", "z")
N_MELS, FRAMES, CLIPS, BATCH_SIZE, STEPS = 32, (24, 32), {"train": 12, "valid": 4}, 4, 3
NETWORK = {
    "conv_feature_layers": "[(16,3,1,2),(16,3,1,2)]",
    "encoder_layers": 1,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32,
    "conv_pos": 8,
    "conv_pos_groups": 2,
    "final_dim": 8,
    "mask_prob": 0.3,
    "mask_length": 2,
    "num_negatives": 2,
    "cross_sample_negatives": 4,
}


@dataclass(frozen=True)
class Cell:
    """One combination."""

    backbone: str
    pooling: str
    grouping: str
    fusion: str
    loss: str

    @property
    def profiling(self) -> bool:
        return (self.pooling, self.grouping) != NO_PROFILES


@dataclass
class Outcome:
    """What became of a cell: training losses and the validation's, or why there are none."""

    losses: list[float] = field(default_factory=list)
    refusal: str = ""
    repeats: bool = True

    @property
    def sound(self) -> bool:
        return bool(self.refusal) or (self.repeats and all(map(math.isfinite, self.losses)))

    def __str__(self) -> str:
        if self.refusal:
            return "refused"
        if not all(map(math.isfinite, self.losses)):
            return "FAILED: not finite"
        return f"{self.losses[-1]:.3f}" if self.repeats else "FAILED: differs"


def all_cells() -> Iterator[Cell]:
    """Every combination, row by row."""
    for backbone in BACKBONES:
        for pooling, grouping in PROFILES:
            for fusion in FUSIONS:
                for loss in LOSSES:
                    yield Cell(backbone, pooling, grouping, fusion, loss)


class Matrix:
    """Runs cells on one corpus.

    Args:
        folder: where the corpus is written.
        device: ``cpu`` or ``cuda``, where models are trained.
    """

    def __init__(self, folder: Path, device: str = "cpu"):
        self.folder, self._device = folder, device
        _write_corpus(folder)

    @cached_property
    def _with_profiles(self):
        return self._data(True)

    @cached_property
    def _without_profiles(self):
        return self._data(False)

    def _data(self, profiling: bool):
        config = {"_name": "spectrogram_finetuning", "data": str(self.folder), "seed": 1, "profiling": profiling}
        task = tasks.setup_task(OmegaConf.create(config))
        batches = {}
        for split in CLIPS:
            task.load_dataset(split)
            iterator = task.get_batch_iterator(task.dataset(split), max_sentences=BATCH_SIZE, seed=1)
            batches[split] = [self._placed(batch) for batch in iterator.next_epoch_itr(shuffle=False)]
        return task, batches

    def _placed(self, batch: dict) -> dict:
        return batch if self._device == "cpu" else utils.move_to_cuda(batch, torch.device(self._device))

    def run(self, cell: Cell) -> Outcome:
        """Train and validate twice."""
        task, batches = self._with_profiles if cell.profiling else self._without_profiles
        torch.manual_seed(1)
        try:
            model = task.build_model(_model_config(cell)).to(self._device)
        except InputError as error:
            return Outcome(refusal=str(error))
        criterion = criterions.build_criterion(
            OmegaConf.create(
                {
                    "_name": "NeuProNet",
                    "loss_weights": [0.9, 0.1],
                    "sup_contrast": cell.loss == "sup_contrast",
                }
            ),
            task,
        )
        start = {name: value.clone() for name, value in model.state_dict().items()}
        losses = _losses(task, batches, model, criterion)
        model.load_state_dict(start)
        again = _losses(task, batches, model, criterion)
        return Outcome(losses, repeats=self._equal(losses, again))

    def _equal(self, losses: list[float], again: list[float]) -> bool:
        if self._device == "cpu":
            return losses == again
        return all(math.isclose(*pair, rel_tol=1e-2) for pair in zip(losses, again, strict=True))


def _model_config(cell: Cell):
    config = OmegaConf.structured(NeuProNetConfig())
    choices = {"backbone": cell.backbone, "fusion": cell.fusion, "auto_encoder": cell.loss == "auto_encoder"}
    if cell.profiling:
        choices |= {"pooling": cell.pooling, "grouping": cell.grouping}
    networks = {"transformer": NETWORK, "profile_extractor": NETWORK}
    with open_dict(config):
        return OmegaConf.merge(config, {"_name": "NeuProNet", "decoder_embed_dim": 16}, networks, choices)


def _losses(task, batches: dict, model, criterion) -> list[float]:
    """Of three training steps and a validation."""
    torch.manual_seed(2)
    np.random.seed(2)
    optimizer = FusedAdam(model.parameters(), lr=1e-3)
    losses = []
    task.begin_epoch(1, model)
    criterion.train()
    for update, batch in enumerate(batches["train"][:STEPS]):
        optimizer.zero_grad()
        loss, *_ = task.train_step(batch, model, criterion, _Backward(), update)
        optimizer.step()
        losses.append(float(loss.detach()))
    criterion.eval()
    with metrics.aggregate(new_root=True) as aggregator:
        task.begin_valid_epoch(1, model)
        logs = [task.valid_step(batch, model, criterion)[2] for batch in batches["valid"]]
        task.reduce_metrics(logs, criterion)
        return [*losses, aggregator.get_smoothed_values()["loss"]]


class _Backward:
    """What ``train_step`` wants of fairseq's optimiser."""

    @staticmethod
    def backward(loss: torch.Tensor) -> None:
        loss.backward()


def _write_corpus(folder: Path) -> None:
    rng = np.random.default_rng(1)
    for split, n_clips in CLIPS.items():
        rows, labels = [str(folder)], []
        for number in range(n_clips):
            n_frames = int(rng.integers(*FRAMES, endpoint=True))
            name = f"{split}{number}.npy"
            np.save(folder / name, rng.normal(size=(N_MELS, n_frames)).astype(np.float32))
            rows.append(f"{name}\t{N_MELS}\t{n_frames}\t{GROUPS[number % len(GROUPS)]}")
            labels.append(CLASSES[int(rng.integers(len(CLASSES)))])
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (folder / f"{split}.label").write_text("\n".join(labels) + "\n", encoding="utf-8")
    (folder / "dict.label.txt").write_text("".join(f"{name} 1\n" for name in CLASSES), encoding="utf-8")


def _print_table(backbone: str, outcomes: dict[Cell, Outcome]) -> None:
    columns = [(fusion, loss) for fusion in FUSIONS for loss in LOSSES]
    print(f"\n{backbone}\n")
    print(f"| grouping | pooling | {' | '.join(f'{fusion}, {loss}' for fusion, loss in columns)} |")
    print("|---" * (len(columns) + 2) + "|")
    for pooling, grouping in PROFILES:
        cells = [outcomes[Cell(backbone, pooling, grouping, *column)] for column in columns]
        print(f"| {grouping} | {pooling} | {' | '.join(map(str, cells))} |", flush=True)


def main(argv=None) -> int:
    """Run the matrix and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", action="append", choices=BACKBONES, help="only this one; may be repeated")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where models are trained")
    arguments = parser.parse_args(argv)
    wanted = arguments.backbone or BACKBONES
    started = time.perf_counter()
    outcomes: dict[Cell, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        matrix = Matrix(Path(folder), arguments.device)
        for backbone in wanted:
            outcomes |= {cell: matrix.run(cell) for cell in all_cells() if cell.backbone == backbone}
            _print_table(backbone, outcomes)
    refusals = sorted({outcome.refusal for outcome in outcomes.values() if outcome.refusal})
    print("\nrefused, and why:", *refusals, sep="\n  ")
    n_refused = sum(bool(outcome.refusal) for outcome in outcomes.values())
    n_failed = sum(not outcome.sound for outcome in outcomes.values())
    print(
        f"\n{len(outcomes)} cells: {len(outcomes) - n_refused - n_failed} finite and repeatable, {n_refused} refused, "
        f"{n_failed} failed; {time.perf_counter() - started:.0f} s"
    )
    return 1 if n_failed else 0


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # such small tensors gain nothing by more, and lose much where others want the cores
    sys.exit(main())
