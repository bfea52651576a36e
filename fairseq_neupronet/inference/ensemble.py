"""Several trained models as one, whose log-probabilities are averaged.

Letters: L models, W windows, N clips, K classes, n remembered clips.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.inference.classifier import Classifier, Request
from fairseq_neupronet.inference.clips import own_limits
from fairseq_neupronet.inference.results import Prediction, Unreadable
from fairseq_neupronet.profiles.profile import Profile


class Ensemble(Classifier):
    """Models of the same classes and the same window in seconds, each with its own features and its own use of groups.

    A clip's probabilities are the softmax of the mean of the models' log-probabilities, that is their geometric mean,
    made to add up to 1. A model that makes no use of groups labels each clip alone, beside others that do. Classes are
    matched by name and have the order of the first model.

    Args:
        models: L of :class:`~fairseq_neupronet.inference.model.TrainedModel`, used by the ensemble only from then on.

    Raises:
        InputError: other classes, or another window.
    """

    def __init__(self, models: Sequence):
        self.models = list(models)
        checkpoints = [model.checkpoint for model in models]
        paths = [each.path for each in checkpoints]
        self._orders = class_orders(paths, [each.classes for each in checkpoints])
        limits = common_limits(paths, [own_limits(each.recipe, each.most_frames) for each in checkpoints])
        for model in models:
            own = model.checkpoint.recipe.sample_rate
            by_rate = {each.recipe.sample_rate: each for each in checkpoints}
            model.limits, model.alongside = limits, [each for rate, each in by_rate.items() if rate != own]

    @property
    def classes(self) -> list[str]:
        return self.models[0].classes

    @property
    def uses_profiles(self) -> bool:
        return any(model.uses_profiles for model in self.models)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(" ".join(model.digest for model in self.models).encode()).hexdigest()

    def nothing(self) -> Profile:
        return _joined([model.nothing() for model in self.models])

    def remember(self, name: str, request: Request) -> Profile:
        self._require_rate(request)
        return _joined([model.remember(name, request) for model in self.models])

    def require_profiles(self, verb: str) -> None:
        if not self.uses_profiles:
            self.models[0].require_profiles(verb)

    def label(self, request: Request) -> Iterator[Prediction | Unreadable]:
        self._require_rate(request)
        streams = [model.label(request._replace(remembered=own)) for model, own in self._split(request.remembered)]
        return map(self._combined, zip(*streams, strict=True))

    def embed(self, *_, **__):
        """Raises InputError: embeddings of different models do not compare."""
        raise InputError("an ensemble has no embeddings of its own; load one of its models")

    def inspect(self, *_, **__):
        """Raises InputError: a picture shows what one model is given."""
        raise InputError("an ensemble cannot be shown in one picture; load one of its models")

    def _require_rate(self, request: Request) -> None:
        rates = sorted({model.features.sample_rate for model in self.models})
        arrays = [sound for sound in request.sounds if not isinstance(sound, str | Path)]
        if arrays and request.sample_rate is None and len(rates) > 1:
            raise InputError(
                f"sample_rate is missing: models take {' and '.join(map(str, rates))} Hz; say what the arrays have"
            )

    def _split(self, remembered: list[Profile | None] | None) -> Iterator[tuple]:
        """Each model with its part of what is remembered; inputs of one profile share one record, as before."""
        start = Profile.empty(0, 0, 0)
        for model in self.models:
            end = _joined([start, model.nothing()])
            places = {name: slice(_width(start, name), _width(end, name)) for name in vars(end)}
            parts = {id(None): None}
            for each in remembered or []:
                if id(each) not in parts:
                    parts[id(each)] = Profile(**{name: getattr(each, name)[..., at] for name, at in places.items()})
            yield model, None if remembered is None else [parts[id(each)] for each in remembered]
            start = end

    def _combined(self, outcomes: Sequence[Prediction | Unreadable]) -> Prediction | Unreadable:
        for outcome in outcomes:
            if isinstance(outcome, Unreadable):
                return outcome
        first, logits = outcomes[0], [torch.from_numpy(outcome.logits) for outcome in outcomes]
        return Prediction(first.path, self.classes, first.profile, first.times, average(logits, self._orders).numpy())


def _width(profile: Profile, name: str) -> int:
    return getattr(profile, name).shape[-1]


def _joined(profiles: Sequence[Profile]) -> Profile:
    """What several models remember of the same n clips, side by side."""
    return Profile(
        torch.cat([each.embeddings for each in profiles], dim=1),
        np.concatenate([each.bands for each in profiles]),
        np.concatenate([each.norms for each in profiles]),
    )


def average(logits: Sequence[Tensor], orders: Sequence[Sequence[int]]) -> Tensor:
    """Log-probabilities (N, K) that add up to 1: the models' mean.

    Args:
        logits: L of (N, K), each in its own model's order of classes.
        orders: of :func:`class_orders`.
    """
    each = [of_model.double()[:, order].log_softmax(dim=1) for of_model, order in zip(logits, orders, strict=True)]
    return torch.stack(each).mean(dim=0).log_softmax(dim=1).to(logits[0].dtype)


def class_orders(paths: Sequence[Path], classes: Sequence[list[str]]) -> list[list[int]]:
    """For each model the indices of its classes in the order of the first model's.

    Raises:
        InputError: a model has other classes than the first one.
    """
    for path, names in zip(paths, classes, strict=True):
        if set(names) != set(classes[0]):
            raise InputError(
                f"{path}: its classes are {', '.join(names)}, those of {paths[0]} are {', '.join(classes[0])}; an "
                "ensemble takes models of the same classes"
            )
    return [[names.index(name) for name in classes[0]] for names in classes]


def common_limits(paths: Sequence[Path], limits: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Least and most seconds of a clip that is the longest one to every model.

    Args:
        paths: the checkpoints.
        limits: of :func:`~fairseq_neupronet.inference.clips.own_limits`; None fits any other.

    Returns:
        The limits; None where all are None.

    Raises:
        InputError: no length is every model's longest.
    """
    known = [(own, path) for own, path in zip(limits, paths, strict=True) if own is not None]
    if not known:
        return None
    longest, of_longest = max((least, path) for (least, _), path in known)
    shortest, of_shortest = min((most, path) for (_, most), path in known)
    if longest > shortest:
        raise InputError(
            f"{of_shortest}: takes {shortest:.4g} s of sound at once, {of_longest} {longest:.4g} s; an ensemble takes "
            "models of one window: train them on clips of one length, or with task.max_sample_size of as many seconds"
        )
    return longest, shortest


def one_a_model(option: str, value, n_models: int) -> list:
    """What is given once for all models, or once a model.

    Raises:
        InputError: a list of another length, or no model.
    """
    values = list(value) if isinstance(value, list | tuple) else [value]
    if n_models == 0:
        raise InputError("no checkpoint is given; name one, or several for an ensemble")
    if len(values) not in (1, n_models):
        raise InputError(f"{option}: {len(values)} are given for {n_models} models; give one for all, or one a model")
    return values * n_models if len(values) == 1 else values
