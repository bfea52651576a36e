"""The paired test over profiles: against known cases, plain loops and scipy."""

import itertools

import numpy as np
import pytest
from scipy import stats

from fairseq_neupronet.benchmarking import statistics

N_PROFILES, CLIPS = 30, 20


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
        sums, counts = statistics.profile_sums(ours - theirs, profile)
        low, high = statistics.bootstrap_interval(sums, counts, resamples=1000, seed=draw)
        covered += low <= 0 <= high
    assert 900 <= covered <= 970


def test_the_interval_knows_that_clips_of_a_profile_are_not_independent():
    """Each profile gains or loses as a whole: an interval over clips would be sqrt(20) times too narrow."""
    rng = np.random.default_rng(2)
    profile = np.repeat(np.arange(N_PROFILES), CLIPS)
    difference = rng.choice([-1.0, 1.0], N_PROFILES)[profile]
    compared = statistics.compare(difference, np.zeros(len(profile)), profile)
    error = difference[::CLIPS].std() / np.sqrt(N_PROFILES)
    assert compared.high - compared.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_a_planted_gain_of_five_points_is_found():
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(20):
        profile = np.repeat(np.arange(N_PROFILES), 60)
        theirs = (rng.random(len(profile)) < 0.8).astype(float)
        ours = np.where(rng.random(len(profile)) < 0.25, 1.0, theirs)  # a quarter of the errors gone: + .05
        compared = statistics.compare(ours, theirs, profile)
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
    found = statistics.bootstrap_interval(*statistics.profile_sums(values, profile), resamples=200, seed=5)
    assert found == pytest.approx(tuple(expected))


def test_the_bootstrap_is_the_same_however_much_it_draws_at_once(monkeypatch):
    sums, counts = np.random.default_rng(6).normal(size=11), np.full(11, 3)
    whole = statistics.bootstrap_interval(sums, counts, resamples=500)
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 70)
    assert statistics.bootstrap_interval(sums, counts, resamples=500) == pytest.approx(whole)


def test_the_exact_sign_flip_test_equals_a_loop_over_all_signs():
    sums = np.random.default_rng(7).normal(0.6, size=8)
    flips = [abs(np.dot(signs, sums)) for signs in itertools.product((1, -1), repeat=8)]
    expected = np.mean([flip >= abs(sums.sum()) - 1e-12 for flip in flips])
    assert 0 < expected < 1
    assert statistics.exact_sign_flip_p(sums) == expected


def test_six_profiles_that_all_gain_have_p_of_two_in_64():
    profile = np.repeat(np.arange(6), 10)
    compared = statistics.compare(np.full(60, 0.9), np.full(60, 0.8), profile)
    assert compared.exact
    assert compared.p == 2 / 64
    assert (compared.clips, compared.profiles) == (60, 6)


def test_random_sign_flips_agree_with_scipy():
    values = np.random.default_rng(8).normal(0.4, size=25)
    expected = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=20_000, rng=1).pvalue
    compared = statistics.compare(values, np.zeros(25), np.arange(25), resamples=20_000)
    assert not compared.exact
    assert compared.p == pytest.approx(expected, abs=0.01)


def test_no_difference_at_all_is_no_evidence():
    compared = statistics.compare(np.ones(40), np.ones(40), np.arange(40) % 25)
    assert (compared.difference, compared.low, compared.high, compared.p) == (0, 0, 0, 1)


def test_a_single_profile_has_no_interval():
    compared = statistics.compare(np.ones(5), np.zeros(5), np.zeros(5))
    assert np.isnan([compared.low, compared.high]).all()
    assert compared.p == 1


def test_mean_and_sample_deviation():
    assert statistics.mean_and_deviation([1, 2, 4]) == pytest.approx((7 / 3, np.sqrt(7 / 3)))
    assert np.isnan(statistics.mean_and_deviation([0.5])[1])
