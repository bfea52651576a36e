"""Controls that need the base model's outputs only, against loops over clips and groups."""

from itertools import product

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from fairseq_neupronet.evaluation.controls import CONTROLS
from fairseq_neupronet.profiles.enrolment import enrol
from fairseq_neupronet.profiles.groups import Grouping

N_CLIPS, N_CLASSES = 40, 3


@pytest.fixture
def outputs():
    return log_softmax(np.random.default_rng(0).normal(size=(N_CLIPS, N_CLASSES)) * 2, axis=1)


@pytest.fixture(params=["full", "enrol"])
def groups(request):
    """Members of each clip's group, itself first, and the same as a grouping."""
    profile = np.random.default_rng(1).integers(0, 9, N_CLIPS)
    if request.param == "full":
        members = [[i, *(j for j in range(N_CLIPS) if j != i and profile[j] == profile[i])] for i in range(N_CLIPS)]
        return members, Grouping.partition(profile)
    enrolment = enrol(profile, np.arange(N_CLIPS, dtype=np.uint64), 3, seed=1)
    members = [part.tolist() for part in np.split(enrolment.members, enrolment.offsets[1:-1])]
    return members, Grouping.listed(enrolment, 3)


def test_majority_vote(outputs, groups):
    members, grouping = groups
    found = CONTROLS["majority_vote"](outputs, grouping)
    assert np.allclose(found.sum(axis=1), 1)
    for clip, group in enumerate(members):
        votes = [sum(outputs[other].argmax() == k for other in group) for k in range(N_CLASSES)]
        means = [np.mean([np.exp(outputs[other, k]) for other in group]) for k in range(N_CLASSES)]
        assert found[clip].argmax() == max(range(N_CLASSES), key=lambda k: (votes[k], means[k]))  # noqa: B023


def test_a_tie_of_votes_goes_to_the_higher_mean_probability():
    probabilities = np.array([[0.6, 0.4, 0.0001], [0.05, 0.9, 0.05]])
    found = CONTROLS["majority_vote"](np.log(probabilities), Grouping.partition(np.zeros(2, int)))
    assert found.argmax(axis=1).tolist() == [1, 1]


def test_mean_probability(outputs, groups):
    members, grouping = groups
    found = CONTROLS["mean_probability"](outputs, grouping)
    for clip, group in enumerate(members):
        np.testing.assert_allclose(found[clip], np.mean(np.exp(outputs[group]), axis=0))


def test_centred_logits(outputs, groups):
    members, grouping = groups
    found = CONTROLS["centred_logits"](outputs, grouping)
    for clip, group in enumerate(members):
        np.testing.assert_allclose(found[clip], softmax(outputs[clip] - np.mean(outputs[group], axis=0)))


def best_deal(outputs, most):
    """Over all labellings in which no class has more than ``most`` clips, the one of the highest sum."""
    n_clips = len(outputs)
    allowed = [
        labels
        for labels in product(range(N_CLASSES), repeat=n_clips)
        if max(labels.count(k) for k in range(N_CLASSES)) <= most
    ]
    return max(allowed, key=lambda labels: sum(outputs[range(n_clips), labels]))


def test_balanced_assignment_is_the_best_of_all_balanced_labellings(outputs, groups):
    members, grouping = groups
    found = CONTROLS["balanced_assignment"](outputs, grouping)
    assert set(np.unique(found)) == {0.0, 1.0} and (found.sum(axis=1) == 1).all()
    for clip, group in enumerate(members):
        assert found[clip].argmax() == best_deal(outputs[group], -(-len(group) // N_CLASSES))[0]


def test_a_group_with_each_class_as_often_is_dealt_each_as_often(outputs):
    found = CONTROLS["balanced_assignment"](outputs[:12], Grouping.partition(np.zeros(12, int)))
    assert found.sum(axis=0).tolist() == [4, 4, 4]


def test_probabilities_of_zero_are_dealt_with():
    with np.errstate(divide="ignore"):
        outputs = np.log(np.array([[1.0, 0.0], [1.0, 0.0]]))
    for control in CONTROLS.values():
        assert np.isfinite(control(outputs, Grouping.partition(np.zeros(2, int)))).all()
    assert CONTROLS["balanced_assignment"](outputs, Grouping.partition(np.zeros(2, int))).sum(axis=0).tolist() == [1, 1]


def test_a_clip_without_numbers_gets_none_and_leaves_the_others_theirs(outputs, groups):
    """The assignment sees the lost clip as one that fits no label, as if it were hopeless at all of them."""
    _, grouping = groups
    lost, hopeless = outputs.copy(), outputs.copy()
    lost[3], hopeless[3] = np.nan, -745.0
    found, expected = (CONTROLS["balanced_assignment"](given, grouping) for given in (lost, hopeless))
    assert np.isnan(found[3]).all()
    assert np.array_equal(np.delete(found, 3, axis=0), np.delete(expected, 3, axis=0))
