"""The config of a benchmark, read and checked: which trainings, from which recipes, evaluated how."""

import difflib
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_neupronet.errors import InputError, sentence_of
from fairseq_neupronet.evaluation.metrics import ICBHI_METRICS, METRICS
from fairseq_neupronet.evaluation.plan import parse_options
from fairseq_neupronet.files import require_regular
from fairseq_neupronet.profiles.protocols import Protocol

_DEFAULTS = {
    "recipes": None,  # folder of fairseq-hydra-train configs; the shipped ones
    "pretraining_recipes": None,
    "datasets": {},
    "variants": {},
    "seeds": [1],
    "overrides": [],  # for every training, after those of data set and variant
    "subsets": ["test"],
    "protocols": ["single", "full"],
    "evaluation": [],  # further options of neupronet evaluate
    "embeddings": False,  # keep embeddings.npz of each variant's first cell
    "reference": None,  # the variant that others are compared with; the first
    "metrics": ["accuracy"],  # of the summary
    "keep_checkpoints": False,
    "jobs": 1,
    "only": {},
    "quick": {},
}
_DATASET = {
    "data": None,
    "recipe": None,
    "folds": [1],
    "overrides": [],
    "ms_per_clip": None,
    "pretraining": None,
}
_VARIANT = {"recipe": "{recipe}", "overrides": [], "pretrained": False, "ms_per_clip": None}
_PRETRAINING = {"recipe": None, "overrides": [], "ms_per_clip": None}
AXES = ("dataset", "variant", "fold", "seed")
EXTRACTOR = "extractor"
"""The variant that a pretraining is in the table of cells."""

_Rule = tuple[Callable[[object], bool], str]  # whether a value fits, and what to give instead


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_scalar(value: object) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


_TEXT: _Rule = (lambda value: isinstance(value, str) and bool(value), "text")
_SWITCH: _Rule = (lambda value: isinstance(value, bool), "true or false")
_RULES: dict[str, _Rule] = {  # of a key's value, or of each item of its list
    "recipes": _TEXT,
    "pretraining_recipes": _TEXT,
    "recipe": _TEXT,
    "data": _TEXT,
    "embeddings": _SWITCH,
    "keep_checkpoints": _SWITCH,
    "pretrained": _SWITCH,
    "jobs": (lambda value: _is_whole(value) and value >= 1, "a whole number from 1 up"),
    "ms_per_clip": (_is_number, "milliseconds, a number above 0"),
    "seeds": (lambda value: _is_whole(value) and value >= 0, "whole numbers from 0 up"),
    "folds": (_is_scalar, "numbers or names"),
    "overrides": _TEXT,
    "subsets": _TEXT,
    "protocols": _TEXT,
    "metrics": _TEXT,
    "evaluation": (_is_scalar, "options of neupronet evaluate"),
}
_NEVER_EMPTY = ("seeds", "folds", "subsets", "protocols", "metrics")


def read_config(path: str | Path, settings: list[str] = (), quick: bool = False) -> dict:
    """Read a benchmark's yaml.

    Args:
        path: the file.
        settings: ``key.below=value``, as Hydra's overrides, which go last.
        quick: lay the section ``quick`` over the rest; its lists replace lists.

    Returns:
        Plain containers with every key of the defaults.

    Raises:
        InputError: not to be read, unknown or missing keys, values of another kind than their key's, or none where
            there must be some.
    """
    path = Path(path)
    require_regular(path, "a benchmark's yaml")
    try:
        config = OmegaConf.load(path)
        if not isinstance(config, DictConfig):
            raise InputError(f"{path}: is not a mapping; see configs/benchmark for examples")
        if quick:
            if not config.get("quick"):
                raise InputError(f"{path}: has no section 'quick', which --quick needs")
            config = OmegaConf.merge(config, config.quick)
        config = OmegaConf.to_container(OmegaConf.merge(config, *map(_setting, settings)), resolve=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); name a yaml file as those of configs/benchmark"
        ) from error
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {sentence_of(error)}") from error
    except InputError:
        raise
    except Exception as error:  # the yaml library's errors have no common public base but this
        raise InputError(f"{path}: is not yaml ({' '.join(str(error).split())})") from error
    return _checked(path, config)


def _setting(text: str) -> DictConfig:
    try:
        return OmegaConf.from_dotlist([text])
    except Exception as error:  # as above
        raise InputError(
            f"{text}: is not to be understood ({' '.join(str(error).split())}); write KEY=VALUE, VALUE as in yaml"
        ) from error


def _checked(path: Path, config: dict) -> dict:
    config = _completed(path, "", config, _DEFAULTS)
    _check_evaluation(str(path), config)
    for kind, defaults in (("datasets", _DATASET), ("variants", _VARIANT)):
        if not config[kind]:
            raise InputError(f"{path}: {kind} is empty; name at least one")
        config[kind] = {
            name: _completed(path, f"{kind}.{name}.", given, defaults) for name, given in config[kind].items()
        }
    for name, dataset in config["datasets"].items():
        for key in ("data", "recipe"):
            if dataset[key] is None:
                raise InputError(
                    f"{path}: datasets.{name}.{key} is not set; give it there or as "
                    f"datasets.{name}.{key}=… on the command line"
                )
        if dataset["pretraining"] is not None:
            section = f"datasets.{name}.pretraining."
            dataset["pretraining"] = _completed(path, section, dataset["pretraining"], _PRETRAINING)
            if dataset["pretraining"]["recipe"] is None:
                raise InputError(f"{path}: {section}recipe is not set; name a config of configs/pretraining")
        if len(dataset["folds"]) > 1 and "{fold" not in str(dataset["data"]):
            raise InputError(
                f"{path}: datasets.{name} has {len(dataset['folds'])} folds of one folder; write its data "
                "with {fold}, as DATA/fold{fold:02d}"
            )
    for name in config["variants"]:
        if "+" in str(name) or "/" in str(name):
            raise InputError(f"{path}: variants.{name}: + and / have a meaning in results; choose a name without")
        if name == EXTRACTOR:
            raise InputError(
                f"{path}: variants.{name}: the pretraining of extractors is called so; choose another name"
            )
    if config["reference"] is None:
        config["reference"] = next(iter(config["variants"]))
    elif not isinstance(config["reference"], str) or config["reference"] not in config["variants"]:
        raise InputError(f"{path}: reference {config['reference']!r} is not among the variants")
    check_only(config["only"], str(path))
    return config


def check_only(only: dict, where: str) -> None:
    """Refuse to select by something else than :data:`AXES`.

    Raises:
        InputError: an unknown axis, by its name.
    """
    for axis in only:
        if axis not in AXES:
            raise InputError(f"{where}: cells are chosen by {', '.join(AXES)}, not by {axis!r}")


def _completed(path: Path, section: str, given, defaults: dict) -> dict:
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise InputError(f"{path}: {section.rstrip('.')} must be a mapping of {', '.join(defaults)}")
    for key in given:
        if key not in defaults:
            raise InputError(f"{path}: unknown key {section}{key}; {_nearest(key, defaults)}")
    values = defaults | {key: value for key, value in given.items() if value is not None}
    for key, default in defaults.items():
        value, place, is_list = values[key], f"{path}: {section}{key}", isinstance(default, list)
        if is_list and not isinstance(value, list):
            raise InputError(f"{place} must be a list, as [{value}]")
        if isinstance(default, dict) and not isinstance(value, dict):
            raise InputError(f"{place} must be a mapping of names, not {reprlib.repr(value)}")
        fits, wanted = _RULES.get(key, (lambda value: True, ""))
        for item in value if is_list else [value]:
            if not fits(item) and (is_list or item is not None):
                raise InputError(f"{place} {'holds' if is_list else 'is'} {reprlib.repr(item)}; give {wanted}")
        if key in _NEVER_EMPTY:
            if not value:
                raise InputError(f"{place} is empty; name at least one")
            counted = Counter(map(str, value))
            if twice := [item for item in counted if counted[item] > 1]:
                raise InputError(f"{place} holds {twice[0]} twice; name each once")
    return values


def _check_evaluation(where: str, config: dict) -> None:
    """Refuse protocols, subsets, metrics and options that ``neupronet evaluate`` would refuse after a training.

    Raises:
        InputError: naming the key.
    """
    for name in config["protocols"]:
        try:
            Protocol.parse(name)
        except InputError as error:
            raise InputError(f"{where}: protocols: {error}") from None
    for subset in config["subsets"]:
        if subset.startswith("train"):
            raise InputError(f"{where}: subsets holds {subset}; fairseq trains on a split of such a name, name another")
    known = METRICS + ICBHI_METRICS
    for metric in config["metrics"]:
        if not (metric in known or metric.startswith("loss") or metric == "short_of_enrolment"):
            raise InputError(
                f"{where}: metrics holds {metric!r}, which neupronet evaluate does not compute; "
                + _nearest(metric, known, " and losses")
            )
    try:
        parse_options(map(str, config["evaluation"]))
    except InputError as error:
        raise InputError(f"{where}: evaluation: {error}") from None


def _nearest(name, known: Iterable[str], others: str = "") -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}{others}"
