"""The cells of a benchmark: one training and its evaluation each, or the pretraining of an extractor."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_neupronet.benchmark.config import AXES, EXTRACTOR
from fairseq_neupronet.errors import InputError, quiet_libraries, sentence_of
from fairseq_neupronet.files import configs_folder

_PLACEHOLDER = re.compile(r"\{(fold|seed)(:[^{}]*)?\}")
_EXTRACTOR_SEED = 1
_SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        dataset, variant, fold, seed: its place in the table; an extractor's variant is ``extractor``.
        stage: ``finetuning`` or ``pretraining``.
        recipe_folder, recipe: of fairseq-hydra-train's config.
        data: folder of the manifests.
        overrides: of the recipe, in order, without data, seed and extractor.
        ms_per_clip: for the estimate of hours; None where nobody says.
        extractor: the pretraining whose checkpoint it starts from.
    """

    dataset: str
    variant: str
    fold: object
    seed: int
    stage: str
    recipe_folder: Path
    recipe: str
    data: str
    overrides: tuple[str, ...]
    ms_per_clip: float | None
    extractor: "Cell | None" = None

    @property
    def name(self) -> str:
        """Also its place below the benchmark's folder ``cells``."""
        return f"{self.dataset}/{self.variant}/fold-{self.fold}/seed-{self.seed}"


def plan_cells(config: dict) -> list[Cell]:
    """All cells in the order of the config; an extractor stands before the first cell that needs it.

    Args:
        config: of :func:`~fairseq_neupronet.benchmark.config.read_config`.

    Raises:
        InputError: a variant wants a pretrained extractor and the data set has no section ``pretraining``.
    """
    cells, extractors = [], {}
    for dataset_name, dataset in config["datasets"].items():
        for variant_name, variant in config["variants"].items():
            for fold in dataset["folds"]:
                for seed in config["seeds"]:
                    extractor = None
                    if variant["pretrained"]:
                        key = (dataset_name, fold)
                        if key not in extractors:
                            extractors[key] = _extractor(config, dataset_name, variant_name, fold)
                            cells.append(extractors[key])
                        extractor = extractors[key]
                    recipe = variant["recipe"].replace("{recipe}", dataset["recipe"])
                    overrides = [*dataset["overrides"], *variant["overrides"], *config["overrides"]]
                    ms_per_clip = variant["ms_per_clip"] or dataset["ms_per_clip"]
                    place = dataset_name, variant_name, fold, seed
                    cells.append(_cell(config, place, "finetuning", recipe, overrides, ms_per_clip, extractor))
    return cells


def _extractor(config: dict, dataset_name: str, variant_name: str, fold) -> Cell:
    pretraining = config["datasets"][dataset_name]["pretraining"]
    if pretraining is None:
        raise InputError(
            f"variant {variant_name} is pretrained and datasets.{dataset_name} has no section "
            "pretraining; add one with its recipe, or set pretrained: false"
        )
    place = dataset_name, EXTRACTOR, fold, _EXTRACTOR_SEED
    return _cell(
        config, place, "pretraining", pretraining["recipe"], pretraining["overrides"], pretraining["ms_per_clip"]
    )


def _cell(config: dict, place: tuple, stage: str, recipe: str, overrides: list, ms_per_clip, extractor=None) -> Cell:
    """A cell of data set, variant, fold and seed; ``{fold}`` and ``{seed}`` of its data and overrides filled in."""
    given = config["recipes" if stage == "finetuning" else "pretraining_recipes"]
    folder = configs_folder() / stage if given is None else Path(given).resolve()
    data, *overrides = (_filled(text, *place[2:]) for text in [config["datasets"][place[0]]["data"], *overrides])
    return Cell(*place, stage, folder, recipe, data, tuple(overrides), ms_per_clip, extractor)


def _filled(text: str, fold, seed: int) -> str:
    """``{fold}`` and ``{seed}`` replaced, with a format where one is given; other braces are Hydra's."""
    values = {"fold": fold, "seed": seed}
    try:
        return _PLACEHOLDER.sub(lambda match: format(values[match[1]], (match[2] or ":")[1:]), text)
    except ValueError as error:
        raise InputError(
            f"{text}: fold {fold!r} and seed {seed} cannot be put in ({error}); name folds that fit the "
            "format, or write {fold}"
        ) from error


def chosen(cells: list[Cell], only: dict) -> list[Cell]:
    """The cells of the given values, and the extractors that they need.

    Args:
        cells: of :func:`plan_cells`.
        only: axis → values; an axis that is left out has all.

    Raises:
        InputError: a value that no cell has.
    """
    wanted = {
        axis: set(map(str, values if isinstance(values, (list, tuple)) else [values])) for axis, values in only.items()
    }
    for axis, values in wanted.items():
        known = [str(getattr(cell, axis)) for cell in cells if cell.stage == "finetuning"]
        if missing := sorted(values - set(known)):
            raise InputError(
                f"there is no {axis} {missing[0]!r} in this benchmark; known are {', '.join(dict.fromkeys(known))}"
            )
    kept = [
        cell
        for cell in cells
        if cell.stage == "finetuning"
        and all(str(getattr(cell, axis)) in wanted[axis] for axis in AXES if axis in wanted)
    ]
    needed = {cell.extractor for cell in kept}
    kept = set(kept)
    return [cell for cell in cells if cell in kept or cell in needed]


@lru_cache(maxsize=256)
def _composed(folder: Path, recipe: str, overrides: tuple[str, ...]) -> dict:
    if not (folder / f"{recipe}.yaml").is_file():
        known = sorted(path.stem for path in folder.glob("*.yaml") if path.stem != "options")
        raise InputError(f"{folder}: has no recipe {recipe!r}; known are {', '.join(known) or 'none'}")
    try:
        with quiet_libraries():
            # With all options of fairseq, as fairseq-hydra-train has them.
            from fairseq.dataclass.initialize import hydra_init

            hydra_init(recipe)
            with initialize_config_dir(str(folder), version_base="1.1"):
                return OmegaConf.to_container(compose(recipe, list(overrides)), enum_to_str=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"recipe {recipe} of {folder} cannot be composed: {sentence_of(error)}") from error


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
        # Line 1 of a manifest says where the features stand: the same data elsewhere is the same data.
        digest.update(content.partition(b"\n")[2] if name.endswith(".tsv") else content)
    return digest.hexdigest()


def training_hash(cell: Cell) -> str:
    """Digest of all that decides what a cell's training ends with, 12 hexadecimal digits."""
    return config_hash(cell, None)


def config_hash(cell: Cell, evaluation: dict | None) -> str:
    """Digest of all that decides a cell's result, 12 hexadecimal digits.

    Args:
        cell: the cell.
        evaluation: subsets, protocols and options of the evaluation; None for the training alone.
    """
    if cell.stage == "pretraining":
        evaluation = None
    decisive = {
        "config": composed(cell),
        "seed": cell.seed,
        "data": data_digest(cell.data, tuple(evaluation["subsets"]) if evaluation else ()),
        "evaluation": evaluation,
        "extractor": None if cell.extractor is None else training_hash(cell.extractor),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:12]
