"""Whether two trainings are the same: all that their checkpoints hold, and every figure that they logged."""

import csv
import re
from pathlib import Path

import torch

_TIMES = re.compile(r"^(wps|ups|wall|train_wall) ?[=\d]")
_TIME_COLUMN = re.compile(r"_(wps|ups|wall|train_wall)$")
_LOGGED = re.compile(r"\[(train_inner|train|valid)\]\[INFO\] - (.*)")


def figures(printed: str) -> set[str]:
    """The lines with figures of a log, without what the wall clock says."""
    lines = set()
    for tag, line in _LOGGED.findall(printed):
        fields = re.split(r" \| |, ", line.strip())
        lines.add(f"{tag}: " + ", ".join(field for field in fields if not _TIMES.match(field)))
    return lines


def rows_of(log: Path) -> list[dict[str, str]]:
    """The rows of a ``training.csv``, without what the wall clock says; none where there is no file."""
    if not log.exists():
        return []
    with open(log, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: text for name, text in row.items() if not _TIME_COLUMN.search(name)} for row in rows]


def state_of(checkpoint: Path) -> dict:
    """All that a checkpoint holds, by place, but the wall clock, the running averages beside it, and the config.

    Of the optimiser's history the last entry; fairseq adds one with each start.
    """
    state = torch.load(checkpoint, weights_only=True)
    state["optimizer_history"] = state["optimizer_history"][-1:]
    state["extra_state"] = {
        key: value for key, value in state["extra_state"].items() if key not in ("metrics", "previous_training_time")
    }
    del state["cfg"]
    return dict(_flat(state, ""))


def _flat(value, place: str):
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, (dict, list)):
        yield place, value
    for key, child in children:
        yield from _flat(child, f"{place}/{key}")


def difference(checkpoint: Path, expected: Path) -> str:
    """Where two checkpoints differ first; empty if they do not."""
    found, wanted = state_of(checkpoint), state_of(expected)
    if found.keys() != wanted.keys():
        return f"{checkpoint}: {sorted(found.keys() ^ wanted.keys())} in one of them only"
    for place, value in wanted.items():
        equal = torch.equal(found[place], value) if isinstance(value, torch.Tensor) else found[place] == value
        if not equal:
            return f"{checkpoint}: {place} is {found[place]} instead of {value}"
    return ""
