"""Classification metrics of a whole split, from all clips' probabilities.

Tensor letters: N clips, K classes.

Always plain Python floats, NaN where a metric is undefined, with the reason on request: never an exception for few
clips or classes. Each equals scikit-learn's. Macro averages of precision, recall and F1 run over the classes that
occur among targets or predictions (a class never predicted has precision 0, one never seen recall 0), balanced
accuracy and AUC over the classes that occur among the targets.

Where a class is the normal one, three metrics of the ICBHI 2017 challenge come with them (Rocha et al., "An open access
database for the evaluation of respiratory sound classification algorithms", Physiological Measurement 40, 2019).
"""

import itertools
import math

import numpy as np

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "auc",
    "auc_ovo",
    "auc_micro",
    "brier",
    "brier_micro",
)
ICBHI_METRICS = ("sensitivity", "specificity", "icbhi_score")

_NO_CLIPS = "there are no clips"
_NOT_FINITE = "some probabilities are NaN or infinite"
_ONE_CLASS = "all clips are of one class"
_ONE_KNOWN_CLASS = "there is one class only"
_NOT_BINARY = "it is defined for two classes only, and there are {}"
_NONE_NORMAL = "no clip is of the normal class"
_ALL_NORMAL = "all clips are of the normal class"


def metric_names(n_classes: int, normal: int | None = None) -> tuple[str, ...]:
    """Names of the metrics that some clips of K classes would define.

    Args:
        n_classes: K.
        normal: index of the normal class; None where there is none.
    """
    return tuple(name for name in _all_names(normal) if name != "brier" or n_classes == 2)


def figure_names(profiling: bool, n_classes: int, normal: int | None) -> tuple[str, ...]:
    """Every figure of an evaluation: the losses, then :func:`metric_names`."""
    losses = ("loss", "loss_classification", *(["loss_contrastive"] if profiling else []))
    return losses + metric_names(n_classes, normal)


def _all_names(normal: int | None) -> tuple[str, ...]:
    return METRICS if normal is None else METRICS + ICBHI_METRICS


def confusion_matrix(predictions: np.ndarray, targets: np.ndarray, n_classes: int) -> np.ndarray:
    """Count clips by class.

    Args:
        predictions: (N,) integers below K.
        targets: (N,) integers below K.
        n_classes: K.

    Returns:
        (K, K) int64, a row per target, a column per prediction.
    """
    cells = np.asarray(targets, dtype=np.int64) * n_classes + np.asarray(predictions, dtype=np.int64)
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def _binary_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve as the Mann-Whitney statistic; ties count one half."""
    _, where, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[where]
    n_positive = int(positive.sum())
    pairs = n_positive * (len(positive) - n_positive)
    return (ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / pairs


def _auc(probabilities: np.ndarray, targets: np.ndarray) -> float:
    if probabilities.shape[1] == 2:
        return _binary_auc(probabilities[:, 1], targets == 1)
    return float(np.mean([_binary_auc(probabilities[:, k], targets == k) for k in np.unique(targets)]))


def _auc_ovo(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """M of Hand & Till, "A simple generalisation of the area under the ROC curve", Machine Learning 45, 2001."""
    of_class = {k: probabilities[targets == k] for k in np.unique(targets)}
    areas = []
    for one, other in itertools.permutations(of_class, 2):
        scores = np.concatenate([of_class[one][:, one], of_class[other][:, one]])
        areas.append(_binary_auc(scores, np.arange(len(scores)) < len(of_class[one])))
    return float(np.mean(areas))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes that occur among targets or predictions, of (..., K, K) counts; NaN without clips."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    both = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    with np.errstate(invalid="ignore"):
        return (2 * hits / np.maximum(both, 1)).sum(axis=-1) / (both > 0).sum(axis=-1)


def icbhi_metrics(confusion: np.ndarray, normal: int) -> dict[str, np.ndarray]:
    """Sensitivity, specificity and their mean; an abnormal clip is a hit in its own class only, not in another one.

    Args:
        confusion: (..., K, K) counts, a row per target.
        normal: index of the normal class.

    Returns:
        Each of :data:`ICBHI_METRICS` to (...) values, NaN where no clip is of the kind that it is about.
    """
    hits, seen = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        specificity = hits[..., normal] / seen[..., normal]
        sensitivity = np.delete(hits, normal, axis=-1).sum(axis=-1) / np.delete(seen, normal, axis=-1).sum(axis=-1)
    return {"sensitivity": sensitivity, "specificity": specificity, "icbhi_score": (sensitivity + specificity) / 2}


def _count_metrics(confusion: np.ndarray) -> dict[str, float]:
    hits, seen, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    occurs = seen + predicted > 0
    recall = hits / np.maximum(seen, 1)
    return {
        "accuracy": hits.sum() / confusion.sum(),
        "balanced_accuracy": recall[seen > 0].mean(),
        "macro_precision": (hits / np.maximum(predicted, 1))[occurs].mean(),
        "macro_recall": recall[occurs].mean(),
        "macro_f1": macro_f1(confusion),
    }


def undefined_reasons(probabilities: np.ndarray, targets: np.ndarray, normal: int | None = None) -> dict[str, str]:
    """Say why metrics are undefined.

    Args:
        probabilities: (N, K).
        targets: (N,) integers below K.
        normal: index of the normal class; None leaves out :data:`ICBHI_METRICS`.

    Returns:
        Metric name to reason, for the undefined ones only.
    """
    probabilities, targets = np.asarray(probabilities), np.asarray(targets)
    for broken, reason in ((len(targets) == 0, _NO_CLIPS), (not np.isfinite(probabilities).all(), _NOT_FINITE)):
        if broken:
            return dict.fromkeys(_all_names(normal), reason)
    reasons = {}
    if len(np.unique(targets)) < 2:
        reasons["auc"] = reasons["auc_ovo"] = _ONE_CLASS
    if probabilities.shape[1] < 2:
        reasons["auc_micro"] = _ONE_KNOWN_CLASS
    if normal is not None and not (targets != normal).any():
        reasons["sensitivity"] = reasons["icbhi_score"] = _ALL_NORMAL
    if normal is not None and not (targets == normal).any():
        reasons["specificity"] = reasons["icbhi_score"] = _NONE_NORMAL
    if probabilities.shape[1] != 2:
        reasons["brier"] = _NOT_BINARY.format(probabilities.shape[1])
    return reasons


def classification_metrics(
    probabilities: np.ndarray, targets: np.ndarray, normal: int | None = None
) -> dict[str, float]:
    """Compute every metric of :data:`METRICS`, and of :data:`ICBHI_METRICS` where a class is the normal one.

    - ``auc`` is one-vs-rest, macro over the classes present; for two classes that of class 1. ``auc_ovo`` is the mean
      over the ordered pairs of classes present.
    - ``brier`` is the mean squared difference between the probability of class 1 and the target, for two classes only.
    - ``auc_micro`` and ``brier_micro`` take each of the N · K probabilities for a clip of its own, whose target is 1
      where the class is right: what the official option ``ovr_onehot`` asks for.
    - ``sensitivity`` is the share of clips of other classes than the normal one that are classified right, each in its
      own class; ``specificity`` that of the normal clips; ``icbhi_score`` their mean.

    Args:
        probabilities: (N, K); anything that numpy reads, a CPU tensor included.
        targets: (N,) integers below K.
        normal: index of the normal class; None where there is none.

    Returns:
        Metric name to a Python float, NaN where :func:`undefined_reasons` has a reason.
    """
    probabilities, targets = np.asarray(probabilities, dtype=np.float64), np.asarray(targets, dtype=np.int64)
    n_classes = probabilities.shape[1]
    undefined = undefined_reasons(probabilities, targets, normal)
    values: dict[str, float] = {}
    if "accuracy" not in undefined:
        confusion = confusion_matrix(probabilities.argmax(1), targets, n_classes)
        one_hot = targets[:, None] == np.arange(n_classes)
        values.update(_count_metrics(confusion), brier_micro=np.square(probabilities - one_hot).mean())
        if normal is not None:
            values.update(icbhi_metrics(confusion, normal))
    if "auc" not in undefined:
        values.update(auc=_auc(probabilities, targets), auc_ovo=_auc_ovo(probabilities, targets))
    if "auc_micro" not in undefined:
        values["auc_micro"] = _binary_auc(probabilities.ravel(), one_hot.ravel())
    if "brier" not in undefined:
        values["brier"] = np.square(probabilities[:, 1] - targets).mean()
    return {name: float(values.get(name, math.nan)) for name in _all_names(normal)}


def draw_confusion(axes, counts: np.ndarray, classes: list[str], per_cent: bool = False) -> None:
    """Draw a confusion matrix: rows are targets, shaded by the share of their clips, and columns predictions.

    Args:
        axes: matplotlib's.
        counts: (K, K) clips, a row per target.
        classes: K names; none are written, and no numbers, where the list is empty.
        per_cent: write the rounded share of the target's clips in place of their number.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("prediction")
    axes.set_ylabel("target")
    names = [name.replace("$", r"\$") for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    for (row, column), share in np.ndenumerate(shares) if classes else ():
        text = f"{100 * share:.0f}" if per_cent else str(counts[row, column])
        if text != "0":
            colour = "white" if share > 0.5 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
