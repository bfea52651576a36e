"""What the values of a benchmark's config may be."""

import difflib
import reprlib
from collections.abc import Callable, Iterable

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.metrics import ICBHI_METRICS, METRICS
from fairseq_neupronet.evaluation.options import parse_options
from fairseq_neupronet.profiles.protocols import Protocol

_Rule = tuple[Callable[[object], bool], str]  # whether a value fits, and what to give instead


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_scalar(value: object) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


_TEXT: _Rule = (lambda value: isinstance(value, str) and bool(value), "text")
_SWITCH: _Rule = (lambda value: isinstance(value, bool), "true or false")
_VALUES: dict[str, _Rule] = {
    "recipes": _TEXT,
    "pretraining_recipes": _TEXT,
    "recipe": _TEXT,
    "data": _TEXT,
    "embeddings": _SWITCH,
    "keep_checkpoints": _SWITCH,
    "pretrained": _SWITCH,
    "jobs": (lambda value: _is_whole(value) and value >= 1, "a whole number from 1 up"),
    "ms_per_clip": (_is_number, "milliseconds, a number above 0"),
}
_ITEMS: dict[str, _Rule] = {
    "seeds": (lambda value: _is_whole(value) and value >= 0, "whole numbers from 0 up"),
    "folds": (_is_scalar, "numbers or names"),
    "overrides": _TEXT,
    "subsets": _TEXT,
    "protocols": _TEXT,
    "metrics": _TEXT,
    "evaluation": (_is_scalar, "options of neupronet evaluate"),
}
_NEVER_EMPTY = ("seeds", "folds", "subsets", "protocols", "metrics")


def check_values(where: str, section: str, values: dict) -> None:
    """Refuse values that are not of the kind that their key wants, and values that a list holds twice.

    Args:
        where: the file, for the sentence.
        section: with a dot at its end, or empty.
        values: of the section.

    Raises:
        InputError: naming the key.
    """
    for key, value in values.items():
        place = f"{where}: {section}{key}"
        if key in _VALUES and value is not None:
            fits, wanted = _VALUES[key]
            if not fits(value):
                raise InputError(f"{place} is {reprlib.repr(value)}; give {wanted}")
        elif key in _ITEMS:
            fits, wanted = _ITEMS[key]
            for item in value:
                if not fits(item):
                    raise InputError(f"{place} holds {reprlib.repr(item)}; give {wanted}")
            if key in _NEVER_EMPTY:
                _check_set(place, value)


def _check_set(place: str, items: list) -> None:
    if not items:
        raise InputError(f"{place} is empty; name at least one")
    seen = set()
    for item in map(str, items):
        if item in seen:
            raise InputError(f"{place} holds {item} twice; name each once")
        seen.add(item)


def check_evaluation(where: str, config: dict) -> None:
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
    for metric in config["metrics"]:
        _check_metric(f"{where}: metrics", metric)
    try:
        parse_options(map(str, config["evaluation"]))
    except InputError as error:
        raise InputError(f"{where}: evaluation: {error}") from None


def _check_metric(place: str, metric: str, known: Iterable[str] = METRICS + ICBHI_METRICS) -> None:
    if metric in known or metric.startswith("loss") or metric == "short_of_enrolment":
        return
    near = difflib.get_close_matches(metric, known, n=1)
    raise InputError(
        f"{place} holds {metric!r}, which neupronet evaluate does not compute; "
        + (f"did you mean {near[0]}?" if near else f"known are {', '.join(known)} and losses")
    )
