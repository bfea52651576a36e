"""What a cell will train, resolved before it starts: its configuration, its digest, its updates."""

import contextlib
import hashlib
import json
import logging
import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_neupronet.benchmark.cells import Cell
from fairseq_neupronet.errors import InputError, sentence_of

_SPLITS = ("train", "valid", "test")


@lru_cache(maxsize=256)
def _composed(folder: Path, recipe: str, overrides: tuple[str, ...]) -> dict:
    if not (folder / f"{recipe}.yaml").is_file():
        known = sorted(path.stem for path in folder.glob("*.yaml") if path.stem != "options")
        raise InputError(f"{folder}: has no recipe {recipe!r}; known are {', '.join(known) or 'none'}")
    try:
        with _as_fairseq(recipe), initialize_config_dir(str(folder), version_base="1.1"):
            return OmegaConf.to_container(compose(recipe, list(overrides)), enum_to_str=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"recipe {recipe} of {folder} cannot be composed: {sentence_of(error)}") from error


@contextlib.contextmanager
def _as_fairseq(recipe: str):
    """With all options of fairseq, as fairseq-hydra-train has them, and without Hydra's remarks on how they come in."""
    loggers = [logging.getLogger(name) for name in ("fairseq", "hydra")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from fairseq.dataclass.initialize import hydra_init

            hydra_init(recipe)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def composed(cell: Cell) -> dict:
    """The recipe with the cell's overrides, as fairseq-hydra-train will see it but for data, seed and folders.

    Raises:
        InputError: no such recipe, or an override that does not fit it.
    """
    return _composed(cell.recipe_folder, cell.recipe, cell.overrides)


def has_data(folder: str) -> bool:
    """Whether there is something to train on."""
    return (Path(folder) / "train.tsv").is_file()


@lru_cache(maxsize=256)
def data_digest(folder: str, subsets: tuple[str, ...] = ()) -> str:
    """Digest of a data folder's manifests, labels and dictionary; features are known by their names and lengths.

    Args:
        folder: the data.
        subsets: those that must be there, beside train.

    Raises:
        InputError: no such folder, or one without these manifests.
    """
    digest = hashlib.sha256()
    root = Path(folder)
    kinds = ("tsv", "label", "recording")
    splits = [*_SPLITS, *(subset for subset in subsets if subset not in _SPLITS)]
    names = [*(f"{split}.{kind}" for split in splits for kind in kinds), "dict.label.txt"]
    present = [name for name in names if (root / name).is_file()]
    if "train.tsv" not in present:
        raise InputError(f"{root}: holds no train.tsv; prepare the data first (neupronet prepare)")
    for subset in subsets:
        if f"{subset}.tsv" not in present:
            raise InputError(
                f"{root}: holds no {subset}.tsv, which the benchmark evaluates; correct its subsets, or "
                "prepare that split too"
            )
    for name in present:
        digest.update(f"{name}\n".encode())
        content = (root / name).read_bytes()
        digest.update(_without_root(content) if name.endswith(".tsv") else content)
    return digest.hexdigest()


def _without_root(manifest: bytes) -> bytes:
    # Line 1 says where the features stand: the same data elsewhere is the same data.
    return manifest.partition(b"\n")[2]


def training_hash(cell: Cell) -> str:
    """Digest of all that decides what a cell's training ends with, 12 hexadecimal digits."""
    return _digest(cell, (), None)


def config_hash(cell: Cell, evaluation: dict) -> str:
    """Digest of all that decides a cell's result, 12 hexadecimal digits.

    Args:
        cell: the cell.
        evaluation: subsets, protocols and options of the evaluation.
    """
    return _digest(cell, tuple(evaluation["subsets"]), evaluation)


def _digest(cell: Cell, subsets: tuple[str, ...], evaluation: dict | None) -> str:
    finetuning = cell.stage == "finetuning"
    decisive = {
        "config": composed(cell),
        "seed": cell.seed,
        "data": data_digest(cell.data, subsets if finetuning else ()),
        "evaluation": evaluation if finetuning else None,
        "extractor": None if cell.extractor is None else training_hash(cell.extractor),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:12]


@lru_cache(maxsize=256)
def _train_clips(folder: str) -> int:
    with open(Path(folder) / "train.tsv", "rb") as file:
        return sum(1 for line in file if line.strip()) - 1


def updates_of(cell: Cell) -> tuple[int | None, int | None]:
    """Updates that the schedule has at most, and the clips heard in them (an early stop aside).

    Batches of whole profiles may be smaller than ``dataset.batch_size``; that is not foreseen here.

    Returns:
        Both; None for what cannot be told where batches are of ``dataset.max_tokens`` instead of so many clips.

    Raises:
        InputError: batches of no clip.
    """
    config = composed(cell)
    optimization, batch = config["optimization"], config["dataset"]["batch_size"]
    most = [int(optimization.get(f"max_{unit}") or 0) or math.inf for unit in ("update", "epoch")]
    if batch is None:
        return None if most[0] == math.inf else int(most[0]), None
    if int(batch) < 1:
        raise InputError(
            f"{cell.name}: dataset.batch_size={batch} leaves no clip in a batch; give a whole number from 1 up"
        )
    return _schedule(
        math.ceil(_train_clips(cell.data) / int(batch)),
        _train_clips(cell.data),
        optimization.get("update_freq") or [1],
        *most,
    )


def _schedule(
    batches: int, n_clips: int, frequencies: list, most_updates: float, most_epochs: float
) -> tuple[int, int]:
    """Updates and clips of epochs of so many batches, of which ``frequencies[epoch]`` make an update."""
    if most_updates == most_epochs == math.inf:
        return 0, 0
    updates, clips, epoch = 0, 0.0, 0
    while updates < most_updates and epoch < most_epochs:
        per_epoch = math.ceil(batches / int(frequencies[min(epoch, len(frequencies) - 1)]))
        # The last frequency is that of all epochs to come.
        n_epochs = 1 if epoch < len(frequencies) - 1 else most_epochs - epoch
        heard = min(per_epoch * n_epochs, most_updates - updates)
        updates, clips, epoch = updates + heard, clips + heard * n_clips / per_epoch, epoch + n_epochs
    return int(updates), round(clips)


def hours_of(cells: Sequence[Cell], seconds: dict[str, float]) -> float | None:
    """Expected hours of the cells one after the other, from what like cells took or from ``ms_per_clip``.

    Args:
        cells: those to run.
        seconds: ``dataset/variant`` → mean seconds of the finished cells.

    Returns:
        None where a cell has neither.
    """
    total = 0.0
    for cell in cells:
        measured = seconds.get(f"{cell.dataset}/{cell.variant}")
        if measured is None:
            clips = updates_of(cell)[1]
            if cell.ms_per_clip is None or clips is None:
                return None
            measured = clips * cell.ms_per_clip / 1000
        total += measured
    return total / 3600
