"""How far an official training had come: the optimiser's moments, the number of updates, the best figure.

fairseq stores Adam's moments by the index of the parameter in the model, or, where it trained in half precision, as one
vector of all parameters in their order; both are put into our model's order by name.
"""

import math

import torch
from torch import Tensor

from fairseq_neupronet.checkpoints.plain import printable
from fairseq_neupronet.conversion.official import CLASSIFIER, EXTRACTOR, OfficialCheckpoint
from fairseq_neupronet.conversion.parameters import ConvertedParameters
from fairseq_neupronet.conversion.report import Report
from fairseq_neupronet.errors import InputError

_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
_ADAM = ("FairseqAdam", "FP16Optimizer", "MemoryEfficientFP16Optimizer", "AMPOptimizer")


def convert_history(official: OfficialCheckpoint, report: Report) -> list[dict]:
    """fairseq's record of the training, with one entry: how many updates there were, and of what kind.

    Raises:
        InputError: an optimiser's state without such a record, or one that does not count updates.
    """
    history = official.state.get("optimizer_history")
    if not history and official.state.get("last_optimizer_state") is None:
        report.note("optimizer_history: not in the checkpoint; training from it begins at update 0")
        history = [{"num_updates": 0}]
    last = history[-1] if isinstance(history, list) and history else None
    updates = last.get("num_updates") if isinstance(last, dict) else None
    if type(updates) is not int or updates < 0:
        raise InputError(f"{official.path}: does not say how many updates it was trained for (optimizer_history)")
    schedule = last.get("lr_scheduler_state")
    best, unit = schedule.get("best") if isinstance(schedule, dict) else None, _metric_unit(official)
    optimizer = last.get("optimizer_name")
    report.map("optimizer_history num_updates", "optimizer_history num_updates", updates)
    criterion = "NeuProNetCriterion" if official.kind == CLASSIFIER else "Wav2vecCriterion"
    return [
        {
            "criterion_name": criterion,
            "optimizer_name": optimizer if optimizer in _ADAM else _ADAM[0],
            "lr_scheduler_state": {"best": best / unit if _is_number(best) and unit else None},
            "num_updates": updates,
        }
    ]


def convert_extra_state(official: OfficialCheckpoint, report: Report) -> dict:
    """Where training goes on: the epoch that was under way begins anew, since ours draws other batches."""
    extra = official.state.get("extra_state")
    extra = extra if isinstance(extra, dict) else {}
    iterator = extra.get("train_iterator")
    epoch = iterator.get("epoch", 1) if isinstance(iterator, dict) else 1
    epoch = epoch if type(epoch) is int and epoch > 0 else 1
    converted = {"train_iterator": {"version": 2, "epoch": epoch, "iterations_in_epoch": 0, "shuffle": True}}
    report.map("extra_state train_iterator", "extra_state train_iterator epoch", epoch, "which begins anew")
    seconds, best = extra.get("previous_training_time"), extra.get("best")
    if _is_number(seconds):
        converted["previous_training_time"] = seconds
    unit = _metric_unit(official)
    if _is_number(best) and unit:
        converted["best"] = converted["val_loss"] = best / unit
        report.map("extra_state best", "extra_state best", converted["best"])
    elif best is not None:
        report.note("extra_state best: its unit is not known; the first validation sets a new one")
    report.note("extra_state metrics: the log's running averages, of official names and units")
    known = {"train_iterator", "previous_training_time", "best", "val_loss", "metrics"}
    for key in [key for key in extra if key not in known]:
        report.note(f"extra_state {printable(str(key))}: not used by ours")
    return converted


def convert_optimizer(official: OfficialCheckpoint, parameters: ConvertedParameters, report: Report) -> dict | None:
    """The optimiser's state in the order of our parameters; None where the checkpoint has none.

    Raises:
        InputError: a state that is not that of Adam on these parameters.
    """
    state = official.state.get("last_optimizer_state")
    if state is None:
        report.note(
            "last_optimizer_state: not in the checkpoint; training from it begins with a fresh optimiser at update 0"
        )
        return None
    moments, groups = (state.get(key) for key in ("state", "param_groups")) if isinstance(state, dict) else (None, None)
    if not isinstance(moments, dict) or not isinstance(groups, list) or len(groups) != 1:
        raise _unlike(official, "it is not one group of parameters with their moments")
    group = groups[0] if isinstance(groups[0], dict) else {}
    indices = group.get("params")
    if not isinstance(indices, list) or indices != list(range(len(indices))) or not set(moments) <= set(indices):
        raise _unlike(official, "its parameters are not numbered from 0")
    theirs, ours = parameters.official_order, parameters.our_order
    shapes = {name: parameters.weights[name].shape for name in theirs}
    if len(indices) == len(theirs):
        position = {name: index for index, name in enumerate(theirs)}
        for name, index in position.items():
            if index in moments:
                _check_moments(official, moments[index], shapes[name], name)
        reordered = {
            number: _plain_moments(moments[position[name]])
            for number, name in enumerate(ours)
            if position[name] in moments
        }
    elif len(indices) == 1:
        total = sum(shape.numel() for shape in shapes.values())
        if 0 in moments:
            _check_moments(official, moments[0], torch.Size([total]), "all of them in one vector")
        reordered = {index: _reorder_flat(value, theirs, ours, shapes) for index, value in moments.items()}
        report.note("last_optimizer_state: one vector, of training in half precision; go on with common.fp16=true")
    else:
        raise _unlike(official, f"it is of {len(indices)} parameters, the network trains {len(theirs)}")
    kept = {key: _number_or_pair(value) for key, value in group.items() if key != "params"}
    converted = {
        "state": reordered,
        "param_groups": [{k: v for k, v in kept.items() if v is not None} | {"params": list(range(len(indices)))}],
    }
    if _is_number(state.get("loss_scale")):
        converted["loss_scale"] = state["loss_scale"]
    report.map("last_optimizer_state", "last_optimizer_state", f"moments of {len(reordered)} of {len(indices)}")
    return converted


def _check_moments(official: OfficialCheckpoint, moments: object, shape: torch.Size, name: str) -> None:
    if not isinstance(moments, dict) or not {"step", "exp_avg", "exp_avg_sq"} <= moments.keys():
        raise _unlike(official, f"it has no moments of Adam for {name}")
    for key, value in moments.items():
        if key == "step":
            sound = _is_number(value) or (isinstance(value, Tensor) and value.numel() == 1)
        else:
            sound = key in _MOMENTS and isinstance(value, Tensor) and value.shape == shape
        if not sound:
            shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise _unlike(official, f"{printable(str(key))} of {name} is {shown}, not {tuple(shape)}")


def _plain_moments(moments: dict) -> dict:
    return {key: int(value) if key == "step" else value for key, value in moments.items()}


def _reorder_flat(moments: dict, theirs: list[str], ours: list[str], shapes: dict[str, torch.Size]) -> dict:
    def reorder(vector: Tensor) -> Tensor:
        parts = dict(zip(theirs, vector.split([shapes[name].numel() for name in theirs]), strict=True))
        return torch.cat([parts[name] for name in ours])

    plain = _plain_moments(moments)
    return {key: reorder(value) if isinstance(value, Tensor) else value for key, value in plain.items()}


def _unlike(official: OfficialCheckpoint, why: str) -> InputError:
    return InputError(
        f"{official.path}: its optimiser state cannot be taken over: {why}; leave it out with --without-optimizer"
    )


def _number_or_pair(value: object) -> object:
    if isinstance(value, bool) or _is_number(value):
        return value
    if isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value)):
        return tuple(value)
    return None


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _metric_unit(official: OfficialCheckpoint) -> int | None:
    """What divides the official best figure: accuracy is in per cent there, InfoNCE the same; None: unknown."""
    metric = official.section("checkpoint").get("best_checkpoint_metric")
    return {(CLASSIFIER, "accuracy"): 100, (EXTRACTOR, "loss"): 1}.get((official.kind, str(metric)))
