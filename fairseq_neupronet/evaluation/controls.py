"""What the composition of groups gives away without their sound: controls made of each clip's own probabilities.

A gain that one of these reaches as well is knowledge of which labels a group holds. None of them reads a label.
Letters: N clips, K classes, |G| clips of a group.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment

from fairseq_neupronet.profiles.enrolment import Enrolment
from fairseq_neupronet.profiles.groups import Grouping

_MEMBERS = 1 << 18  # gathered at once: bounds memory
_LEAST_LOGARITHM = -745.0  # of the smallest double; keeps the assignment's costs finite


def majority_vote(log_probabilities: np.ndarray, grouping: Grouping) -> np.ndarray:
    """The share of votes that the group's clips give each class; ties go to the higher mean probability.

    The mean probability counts as one vote more, so that it decides ties and nothing else.
    """
    votes = np.eye(log_probabilities.shape[1])[log_probabilities.argmax(axis=1)]
    sizes, totals = _sum_over_group(votes, grouping)
    return (totals + mean_probability(log_probabilities, grouping)) / (sizes + 1)[:, None]


def mean_probability(log_probabilities: np.ndarray, grouping: Grouping) -> np.ndarray:
    """The mean of the group's probabilities."""
    sizes, totals = _sum_over_group(np.exp(log_probabilities), grouping)
    return totals / sizes[:, None]


def centred_logits(log_probabilities: np.ndarray, grouping: Grouping) -> np.ndarray:
    """Each clip's log-probabilities minus their mean over the group, as probabilities."""
    bounded = np.maximum(log_probabilities, _LEAST_LOGARITHM)
    sizes, totals = _sum_over_group(bounded, grouping)
    centred = bounded - totals / sizes[:, None]
    odds = np.exp(centred - centred.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def balanced_assignment(log_probabilities: np.ndarray, grouping: Grouping) -> np.ndarray:
    """Each label as often as the group has clips for it: 1 for the label that a clip is dealt, 0 for the others.

    Labels are dealt so that the sum of the log-probabilities is highest (Hungarian algorithm; Kuhn, "The Hungarian
    method for the assignment problem", Naval Research Logistics Quarterly 2, 1955), each to at most ⌈|G| / K⌉ clips.
    Where |G| is a multiple of K each label is dealt equally often; otherwise some are dealt once less or more, down to
    never, whichever fits the clips best, and a group of one keeps its own choice. Clips whose log-probabilities are NaN
    take up labels like others, and get NaN.
    """
    bounded = np.fmax(log_probabilities, _LEAST_LOGARITHM)
    labels = np.empty(len(grouping), np.int64)
    for clips, members in _groups(grouping):
        dealt = _deal(bounded[members])
        labels[clips] = dealt if len(clips) == len(members) else dealt[0]
    dealt = np.eye(log_probabilities.shape[1])[labels]
    dealt[np.isnan(log_probabilities).any(axis=1)] = np.nan
    return dealt


CONTROLS: dict[str, Callable[[np.ndarray, Grouping], np.ndarray]] = {
    "majority_vote": majority_vote,
    "mean_probability": mean_probability,
    "centred_logits": centred_logits,
    "balanced_assignment": balanced_assignment,
}
"""From log-probabilities (N, K) of clips alone, and groups of the clips, to probabilities (N, K), by name."""


def _deal(log_probabilities: np.ndarray) -> np.ndarray:
    """Labels of one group's clips."""
    n_clips, n_classes = log_probabilities.shape
    if n_clips == 1:
        return log_probabilities.argmax(axis=1)
    slots = -(-n_clips // n_classes)
    rows, columns = linear_sum_assignment(np.repeat(log_probabilities, slots, axis=1), maximize=True)
    return columns[np.argsort(rows)] // slots


def _groups(grouping: Grouping) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Whose label is wanted, and the members of their group; a list has its own clip first."""
    if grouping.enrolment is not None:
        offsets, members = grouping.enrolment
        for clip in range(len(grouping)):
            group = members[offsets[clip] : offsets[clip + 1]]
            yield group[:1], group
        return
    order = np.argsort(grouping.codes, kind="stable")
    for group in np.split(order, np.cumsum(np.bincount(grouping.codes))[:-1]):
        yield group, group


def _sum_over_group(values: np.ndarray, grouping: Grouping) -> tuple[np.ndarray, np.ndarray]:
    """How many clips each clip's group has (N,), and the sum of their values (N, K)."""
    if grouping.enrolment is not None:
        return grouping.enrolment.sizes, _sum_over_lists(values, grouping.enrolment)
    order = np.argsort(grouping.codes, kind="stable")
    sizes = np.bincount(grouping.codes)
    totals = np.add.reduceat(values[order], np.cumsum(sizes) - sizes, axis=0)
    return sizes[grouping.codes], totals[grouping.codes]


def _sum_over_lists(values: np.ndarray, enrolment: Enrolment) -> np.ndarray:
    offsets, members = enrolment
    totals, start = np.empty_like(values), 0
    while start < len(values):
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + _MEMBERS, side="right")) - 1)
        gathered = values[members[offsets[start] : offsets[stop]]]
        totals[start:stop] = np.add.reduceat(gathered, offsets[start:stop] - offsets[start], axis=0)
        start = stop
    return totals
