"""What a prepared folder gives before any network: logistic regression on statistics of its clips.

The statistics are taken as they are (``single``) or centred by the clips of a group (``enrol-N``, ``full``), beside the
control of groups dealt anew: of the same sizes and with as many clips of each class, but of other profiles' clips.
What centring gains over the control it owes to the groups' sound. Letters: N clips, D statistics, K classes.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fairseq_neupronet.data.manifest import read_classes
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.clip_statistics import Clips, read_clips
from fairseq_neupronet.evaluation.floor import Floor, digest, write_probe
from fairseq_neupronet.evaluation.intervals import bootstrap_interval
from fairseq_neupronet.evaluation.metrics import confusion_matrix
from fairseq_neupronet.evaluation.verdict import SINGLE, reach, verdict
from fairseq_neupronet.profiles.protocols import Protocol

_STRENGTHS = (0.003, 0.01, 0.03)  # inverse regularisation; beyond them the solver takes long and validation falls
_FOLDS = 5
_KINDS = ("single", "enrol", "full")


def probe(folder: str | Path, protocols: list[str], subset: str | None = None, seed: int = 1) -> tuple[dict, list[str]]:
    """Measure a prepared folder, and keep the figures in its ``probe.json``.

    Args:
        folder: the prepared folder.
        protocols: names.
        subset: the split to measure; None: test, or else valid, or else grouped folds of train.
        seed: of draws, folds, groups dealt anew and intervals.

    Returns:
        What ``probe.json`` keeps, and the lines to print.

    Raises:
        InputError: files that cannot be used, one class only, or options that do not fit.
    """
    folder = Path(folder)
    wanted = [Protocol.parse(name) for name in protocols]
    for protocol in wanted:
        if protocol.kind not in _KINDS:
            raise InputError(f"--protocol {protocol}: a probe makes no batches; give single, enrol-N or full")
    if seed < 0:
        raise InputError(f"--seed {seed}: give a whole number from 0 up")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder that neupronet prepare has written")
    if not (folder / "train.tsv").is_file():
        below = ", ".join(sorted(path.parent.name for path in folder.glob("*/train.tsv"))[:3])
        cure = f"give one of its folders with manifests ({below} …)" if below else "write it with neupronet prepare"
        raise InputError(f"{folder}: holds no train.tsv; {cure}")
    there = [name for name in ("test", "valid") if (folder / f"{name}.tsv").is_file()]
    subset = subset or [*there, "train"][0]
    splits = tuple(dict.fromkeys(["train", *(["valid"] if "valid" in there and subset != "train" else []), subset]))
    classes = read_classes(folder / "dict.label.txt")
    clips, names, notes = read_clips(folder, splits, classes)
    if len(np.unique(clips.target[clips.split == "train"])) < 2:
        raise InputError(f"{folder / 'train.label'}: all training clips are of one class; two are needed to tell apart")
    is_measured = clips.split == subset
    measured_rows = np.flatnonzero(is_measured)
    if names is None:
        wanted = [protocol for protocol in wanted if protocol.kind == "single"] or [Protocol.parse(SINGLE)]
        notes.append("no profile has two clips, or there is no profile column: only single is measured")
    correct, figures = {}, {}
    target, profile = clips.target[is_measured], clips.profile[is_measured]
    again, strengths = clips.dealt_anew(seed), {}
    for protocol in sorted(wanted, key=lambda protocol: reach(str(protocol)), reverse=True):
        grouped = protocol.kind != "single"
        for name, variant in {str(protocol): clips, **({f"{protocol}+dealt_anew": again} if grouped else {})}.items():
            # Chosen for the largest groups, and kept for the smaller ones and the controls: it saves half of the time.
            predictions, strengths[grouped] = _predict(variant, protocol, subset, seed, strengths.get(grouped))
            correct[name] = (predictions == target).astype(float)
            figures[name] = asdict(_figures(predictions, target, profile, len(classes), seed)) | {
                "C": strengths[grouped]
            }
    figures = {name: figures[name] for each in wanted for name in (str(each), f"{each}+dealt_anew") if name in figures}
    chance = _chance(clips, target, len(classes))
    shown = {str(each): _difference(correct, str(each), profile, seed) for each in wanted if each.kind != "single"}
    ends_with = verdict(correct, shown, target, profile if names is not None else None)
    kept = {
        "digest": digest(folder, splits),
        "splits": list(splits),
        "seed": seed,
        "clips": len(measured_rows),
        "profiles": len(np.unique(profile)),
        "chance": chance,
        "protocols": _plain(figures),
        "differences": _plain(shown),
        "verdict": ends_with,
        "notes": notes,
    }
    path = write_probe(folder, subset, kept)
    return kept, [*_table(subset, kept, figures), *(f"note: {note}" for note in notes), f"kept in {path}", ends_with]


# ---- fitting ---------------------------------------------------------------------------------------------------------


def _predict(
    clips: Clips, protocol: Protocol, subset: str, seed: int, strength: float | None
) -> tuple[np.ndarray, float]:
    """Predicted classes of the measured clips, in manifest order, and the regularisation that was chosen."""
    train = np.flatnonzero(clips.split == "train")
    if subset != "train":
        x = clips.centred(protocol, seed, clips.statistics[train].mean(axis=0))
        valid = np.flatnonzero(clips.split == "valid") if subset != "valid" else np.array([], int)
        strength, model = (strength, None) if strength else _choose(x, clips, train, valid, seed)
        model = model or _fitted(x[train], clips.target[train], strength)
        return model.predict(x[clips.split == subset]), strength
    predictions, chosen = np.empty(len(train), np.int64), []
    for kept, held in _grouped_folds(clips.target[train], clips.profile[train], seed):
        x = clips.centred(protocol, seed, clips.statistics[kept].mean(axis=0))
        chosen.append(strength or _choose(x, clips, kept, np.array([], int), seed)[0])
        predictions[held] = _fitted(x[kept], clips.target[kept], chosen[-1]).predict(x[held])
    return predictions, float(np.median(chosen))


def _choose(x: np.ndarray, clips: Clips, train: np.ndarray, valid: np.ndarray, seed: int) -> tuple[float, object]:
    """The regularisation of the highest accuracy on the validation clips, or on grouped folds where there are none.

    Returns:
        It, and the model that was fitted with it to all training clips; None where folds were held out.
    """
    if len(valid):
        models = [_fitted(x[train], clips.target[train], c) for c in _STRENGTHS]
        best = int(np.argmax([(model.predict(x[valid]) == clips.target[valid]).sum() for model in models]))
        return _STRENGTHS[best], models[best]
    folds = [
        (train[kept], train[held]) for kept, held in _grouped_folds(clips.target[train], clips.profile[train], seed)
    ]
    right = [
        sum(
            (_fitted(x[kept], clips.target[kept], c).predict(x[held]) == clips.target[held]).sum()
            for kept, held in folds
        )
        for c in _STRENGTHS
    ]
    return _STRENGTHS[int(np.argmax(right))], None


def _fitted(x: np.ndarray, target: np.ndarray, strength: float):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
    return make_pipeline(StandardScaler(), model).fit(x.astype(np.float32), target)


def _grouped_folds(target: np.ndarray, profile: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows to fit and rows held out, five times, no profile on both sides.

    Raises:
        InputError: fewer than two profiles, or a class that only one of the folds would have.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    n_folds = min(_FOLDS, len(np.unique(profile)))
    if n_folds < 2:
        raise InputError("all training clips are of one profile: nothing can be held out; add others, or a split")
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    for kept, held in folds.split(target, target, profile):
        if len(held) and len(np.unique(target[kept])) > 1:
            yield kept, held


# ---- figures ---------------------------------------------------------------------------------------------------------


def _figures(predictions: np.ndarray, target: np.ndarray, profile: np.ndarray, n_classes: int, seed: int) -> Floor:
    confusion = confusion_matrix(predictions, target, n_classes)
    seen = confusion.sum(axis=1)
    balanced = (np.diag(confusion)[seen > 0] / seen[seen > 0]).mean()
    low, high = _interval((predictions == target).astype(float), profile, seed)
    return Floor(float(np.trace(confusion) / len(target)), low, high, float(balanced))


def _interval(values: np.ndarray, profile: np.ndarray, seed: int) -> tuple[float, float]:
    _, codes, counts = np.unique(profile, return_inverse=True, return_counts=True)
    return bootstrap_interval(np.bincount(codes, values), counts, seed=seed)


def _difference(correct: dict[str, np.ndarray], name: str, profile: np.ndarray, seed: int) -> dict[str, dict]:
    """What a protocol gains over single, and over its control, with intervals over profiles."""
    shown = {}
    for other in (SINGLE, f"{name}+dealt_anew"):
        if other in correct:
            gain = correct[name] - correct[other]
            low, high = _interval(gain, profile, seed)
            shown[other.rpartition("+")[2]] = {"difference": float(gain.mean()), "low": low, "high": high}
    return shown


def _chance(clips: Clips, target: np.ndarray, n_classes: int) -> dict[str, float]:
    """The training split's most frequent class for every clip; balanced, one over the classes that occur."""
    majority = np.bincount(clips.target[clips.split == "train"], minlength=n_classes).argmax()
    return {"accuracy": float((target == majority).mean()), "balanced_accuracy": 1 / len(np.unique(target))}


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _table(subset: str, kept: dict, figures: dict[str, dict]) -> Iterator[str]:
    yield f"on {subset}: {kept['clips']} clips of {kept['profiles']} profiles; logistic regression, no network"
    yield f"{'':<22}{'accuracy':>9}  {'95 % interval':<15}{'balanced':>9}"
    chance = kept["chance"]
    yield f"{'chance':<22}{chance['accuracy']:>9.4f}  {'':<15}{chance['balanced_accuracy']:>9.4f}"
    for name, values in figures.items():
        interval = "" if math.isnan(values["low"]) else f"{values['low']:.4f} {values['high']:.4f}"
        yield f"{name:<22}{values['accuracy']:>9.4f}  {interval:<15}{values['balanced_accuracy']:>9.4f}"
