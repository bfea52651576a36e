"""The paired test over profiles: against known cases, plain loops and scipy."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, recall_score

from fairseq_neupronet.benchmark import statistics
from fairseq_neupronet.evaluation import intervals

N_PROFILES, CLIPS = 30, 20


def profile_sums(values, profile):
    """Sum of the values and number of the clips of each profile."""
    names = np.unique(profile)
    return np.array([values[profile == name].sum() for name in names]), np.array(
        [sum(profile == name) for name in names]
    )


def compare(correct, reference, profile, **options):
    """The paired test of clips."""
    return statistics.compare_sums(*profile_sums(correct * 1.0 - reference, profile), **options)


def two_models(rng, gain: float = 0.0, accuracy: float = 0.8):
    """Independent errors; each profile has an ease of its own that both models share."""
    profile = np.repeat(np.arange(N_PROFILES), CLIPS)
    ease = rng.normal(0, 0.05, N_PROFILES)[profile]
    return ((rng.random(len(profile)) < accuracy + ease + shift).astype(float) for shift in (gain, 0.0)), profile


def test_the_interval_of_two_equal_models_covers_0_in_90_to_97_percent_of_draws():
    rng = np.random.default_rng(1)
    covered = 0
    for draw in range(1000):
        (ours, theirs), profile = two_models(rng)
        sums, counts = profile_sums(ours - theirs, profile)
        low, high = statistics.bootstrap_interval(sums, counts, resamples=1000, seed=draw)
        covered += low <= 0 <= high
    assert 900 <= covered <= 970


def test_the_interval_knows_that_clips_of_a_profile_are_not_independent():
    """Each profile gains or loses as a whole: an interval over clips would be sqrt(20) times too narrow."""
    rng = np.random.default_rng(2)
    profile = np.repeat(np.arange(N_PROFILES), CLIPS)
    difference = rng.choice([-1.0, 1.0], N_PROFILES)[profile]
    compared = compare(difference, np.zeros(len(profile)), profile)
    error = difference[::CLIPS].std() / np.sqrt(N_PROFILES)
    assert compared.high - compared.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_a_planted_gain_of_five_points_is_found():
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(20):
        profile = np.repeat(np.arange(N_PROFILES), 60)
        theirs = (rng.random(len(profile)) < 0.8).astype(float)
        ours = np.where(rng.random(len(profile)) < 0.25, 1.0, theirs)  # a quarter of the errors gone: + .05
        compared = compare(ours, theirs, profile)
        assert compared.difference == pytest.approx(0.05, abs=0.02)
        found += compared.low > 0 and compared.p < 0.05
    assert found == 20


def test_the_bootstrap_equals_a_plain_loop():
    rng = np.random.default_rng(4)
    profile = rng.integers(7, size=90)
    values = rng.normal(size=90)
    draws = np.random.default_rng(5).integers(7, size=(200, 7), dtype=np.int32)
    means = []
    for draw in draws:
        clips = np.concatenate([values[profile == one] for one in draw])
        means.append(clips.mean())
    expected = np.percentile(means, [2.5, 97.5])
    found = statistics.bootstrap_interval(*profile_sums(values, profile), resamples=200, seed=5)
    assert found == pytest.approx(tuple(expected))


def test_the_bootstrap_is_the_same_however_much_it_draws_at_once(monkeypatch):
    sums, counts = np.random.default_rng(6).normal(size=11), np.full(11, 3)
    whole = statistics.bootstrap_interval(sums, counts, resamples=500)
    monkeypatch.setattr(intervals, "DRAWS_AT_ONCE", 70)
    assert statistics.bootstrap_interval(sums, counts, resamples=500) == pytest.approx(whole)


def test_the_exact_sign_flip_test_equals_a_loop_over_all_signs():
    sums = np.random.default_rng(7).normal(0.6, size=8)
    flips = [abs(np.dot(signs, sums)) for signs in itertools.product((1, -1), repeat=8)]
    expected = np.mean([flip >= abs(sums.sum()) - 1e-12 for flip in flips])
    assert 0 < expected < 1
    assert statistics.exact_sign_flip_p(sums) == expected


def test_six_profiles_that_all_gain_have_p_of_two_in_64():
    profile = np.repeat(np.arange(6), 10)
    compared = compare(np.full(60, 0.9), np.full(60, 0.8), profile)
    assert compared.exact
    assert compared.p == 2 / 64
    assert (compared.clips, compared.profiles) == (60, 6)


def test_random_sign_flips_agree_with_scipy():
    values = np.random.default_rng(8).normal(0.4, size=25)
    expected = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=20_000, rng=1).pvalue
    compared = compare(values, np.zeros(25), np.arange(25), resamples=20_000)
    assert not compared.exact
    assert compared.p == pytest.approx(expected, abs=0.01)


def test_no_difference_at_all_is_no_evidence():
    compared = compare(np.ones(40), np.ones(40), np.arange(40) % 25)
    assert (compared.difference, compared.low, compared.high, compared.p) == (0, 0, 0, 1)


def test_a_single_profile_has_no_interval():
    compared = compare(np.ones(5), np.zeros(5), np.zeros(5))
    assert np.isnan([compared.low, compared.high]).all()
    assert compared.p == 1


def test_mean_and_sample_deviation():
    assert statistics.mean_and_deviation([[1], [2], [4]]) == pytest.approx((7 / 3, np.sqrt(7 / 3)))
    assert statistics.mean_and_deviation([[1, 2, 4]]) == pytest.approx((7 / 3, np.sqrt(7 / 3)))
    assert np.isnan(statistics.mean_and_deviation([[0.5]])[1])


def test_a_fold_with_more_seeds_weighs_no_more():
    mean, deviation = statistics.mean_and_deviation([[0.9, 0.8, 1.0], [0.5]])
    assert mean == pytest.approx((0.9 + 0.5) / 2)
    assert deviation == pytest.approx(np.std([0.9, 0.8, 1.0, 0.5], ddof=1))


# ---- metrics of confusion counts -------------------------------------------------------------------------------------


def predicted(rng, n_profiles: int, n_classes: int = 3, accuracies=(0.7, 0.5)):
    """Targets, two models' predictions and profiles of some clips."""
    profile = rng.permutation(np.repeat(np.arange(n_profiles), rng.integers(4, 9, n_profiles)))
    target = rng.integers(n_classes, size=len(profile))
    models = [
        np.where(rng.random(len(profile)) < accuracy, target, rng.integers(n_classes, size=len(profile)))
        for accuracy in accuracies
    ]
    return target, models, profile


def counts(target, prediction, profile, n_classes: int = 3):
    found = np.zeros((profile.max() + 1, n_classes, n_classes))
    np.add.at(found, (profile, target, prediction), 1)
    return found[:, None]  # one training


def score(metric: str, target, prediction) -> float:
    """By scikit-learn; class 0 is the normal one."""
    if metric == "macro_f1":
        return f1_score(target, prediction, average="macro")
    abnormal = target > 0
    return (
        recall_score(~abnormal, (prediction == 0) & ~abnormal) + accuracy_score(target[abnormal], prediction[abnormal])
    ) / 2


@pytest.fixture(params=["macro_f1", "icbhi_score"])
def metric(request):
    return request.param, statistics.counted_metric(request.param, ["normal", "b", "c"])


def test_a_counted_metric_is_that_of_scikit_learn(metric):
    name, function = metric
    target, (one, other), profile = predicted(np.random.default_rng(9), 6)
    one[one == 2] = 1  # a class that is never predicted
    both = counts(target, one, profile), counts(target, other, profile)
    compared = statistics.compare_counts(*both, function, len(target))
    assert compared.difference == pytest.approx(score(name, target, one) - score(name, target, other))
    assert (compared.clips, compared.profiles) == (len(target), 6)


def test_the_bootstrap_of_counts_equals_a_plain_loop_over_clips(metric):
    name, function = metric
    target, models, profile = predicted(np.random.default_rng(10), 9)
    both = [counts(target, one, profile) for one in models]
    compared = statistics.compare_counts(*both, function, len(target), resamples=100, seed=3)
    gaps = []
    for weights in np.random.default_rng(3).multinomial(9, np.full(9, 1 / 9), size=100):
        clips = np.concatenate([np.flatnonzero(profile == one) for one in np.repeat(np.arange(9), weights)])
        one, other = (score(name, target[clips], model[clips]) for model in models)
        gaps.append(one - other)
    assert (compared.low, compared.high) == pytest.approx(tuple(np.percentile(gaps, [2.5, 97.5])))


def test_the_exact_test_of_counts_equals_a_loop_that_exchanges_the_models_within_profiles(metric):
    name, function = metric
    target, (one, other), profile = predicted(np.random.default_rng(11), 6, accuracies=(0.8, 0.4))
    gaps = []
    for kept in itertools.product((True, False), repeat=6):
        mine = np.array(kept)[profile]
        gaps.append(score(name, target, np.where(mine, one, other)) - score(name, target, np.where(mine, other, one)))
    expected = np.mean(np.abs(gaps) >= abs(gaps[0]) - 1e-12)
    both = counts(target, one, profile), counts(target, other, profile)
    compared = statistics.compare_counts(*both, function, len(target))
    assert compared.exact and 0 < expected < 1
    assert compared.p == pytest.approx(expected)


def test_accuracy_from_counts_is_tested_as_accuracy_from_clips():
    """Profiles of one size, so that drawing profiles with their clips is drawing their sums."""
    rng = np.random.default_rng(12)
    profile = np.repeat(np.arange(25), 8)
    target = rng.integers(3, size=200)
    models = [np.where(rng.random(200) < accuracy, target, (target + 1) % 3) for accuracy in (0.75, 0.65)]
    found = statistics.compare_counts(
        *(counts(target, one, profile) for one in models),
        lambda confusion: np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1)),
        200,
    )
    expected = compare(*(one == target for one in models), profile)
    assert found.difference == pytest.approx(expected.difference)
    assert (found.low, found.high, found.p) == pytest.approx((expected.low, expected.high, expected.p), abs=0.02)
    assert found.exact == expected.exact


def test_a_score_of_the_normal_class_needs_one():
    assert statistics.counted_metric("icbhi_score", ["a", "b"]) is None
