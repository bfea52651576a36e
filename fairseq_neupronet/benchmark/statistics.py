"""Means, and paired tests of two variants on the same clips, clustered by profile.

Clips of a profile are not independent, so profiles are what is resampled and whose signs are flipped (cluster
bootstrap: Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, section 3.8; sign flips: Fisher's
randomisation test). Letters: N clips, P profiles, R resamples.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
EXACT_BELOW = 20  # profiles; 2 ** 19 sign patterns are a moment's work
_DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """A difference of a metric, with what chance would make of it.

    Attributes:
        difference: of all clips.
        low, high: 95 % interval of the bootstrap over profiles; NaN with a single profile.
        p: two-sided, of the sign-flip test over profiles.
        exact: whether p is of all sign patterns, not of random ones.
        clips, profiles: N and P.
    """

    difference: float
    low: float
    high: float
    p: float
    exact: bool
    clips: int
    profiles: int


def mean_and_deviation(by_fold: Iterable[Sequence[float]]) -> tuple[float, float]:
    """Mean over folds of the mean over seeds, and sample standard deviation (of n − 1) over all.

    In a table that is not complete a fold with more seeds than others weighs no more than they do.

    Args:
        by_fold: of each fold, the values of its seeds.

    Returns:
        Both; the deviation is NaN for a single value.
    """
    folds = [np.asarray(values, np.float64) for values in by_fold]
    values = np.concatenate(folds)
    mean = float(np.mean([fold.mean() for fold in folds]))
    return mean, float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def compare(
    correct: np.ndarray, reference: np.ndarray, profile: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Test ``correct`` against ``reference`` on the same clips.

    Args:
        correct, reference: (N,) share of the seeds whose prediction is right, for each clip.
        profile: (N,) labels, equal where two clips share a profile.
        resamples: R.
        seed: of the resampling.
    """
    difference = np.asarray(correct, np.float64) - np.asarray(reference, np.float64)
    return compare_sums(*profile_sums(difference, profile), resamples, seed)


def compare_sums(sums: np.ndarray, counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """The same of differences that are summed by profile already: sums and numbers of clips, (P,) each."""
    low, high = bootstrap_interval(sums, counts, resamples, seed)
    exact = len(sums) < EXACT_BELOW
    p = exact_sign_flip_p(sums) if exact else random_sign_flip_p(sums, resamples, seed)
    n_clips = int(counts.sum())
    return Comparison(float(sums.sum() / n_clips), low, high, p, exact, n_clips, len(sums))


def profile_sums(values: np.ndarray, profile: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values (P,) and number of the clips (P,) of each profile."""
    _, codes = np.unique(np.asarray(profile), return_inverse=True)
    return np.bincount(codes, weights=np.asarray(values, np.float64)), np.bincount(codes)


def bootstrap_interval(
    sums: np.ndarray, counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean over clips when profiles are drawn with replacement.

    Args:
        sums, counts: (P,) of :func:`profile_sums`.
        resamples: R.
        seed: of the draws.
        level: share of the resampled means within.
    """
    n_profiles = len(sums)
    if n_profiles < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    at_once = max(1, _DRAWS_AT_ONCE // n_profiles)
    for start in range(0, resamples, at_once):
        drawn = rng.integers(n_profiles, size=(min(at_once, resamples - start), n_profiles), dtype=np.int32)
        means[start : start + at_once] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def exact_sign_flip_p(sums: np.ndarray) -> float:
    """Share of all 2 ** P sign patterns whose sum is at least as far from 0 as the observed one."""
    flipped = np.zeros(1)
    for value in sums:
        flipped = np.concatenate([flipped + value, flipped - value])
    return float(_as_extreme(flipped, sums).mean())


def random_sign_flip_p(sums: np.ndarray, draws: int = RESAMPLES, seed: int = 0) -> float:
    """The same of random sign patterns, the observed one counted among them, so that it is never 0."""
    rng = np.random.default_rng(seed)
    extreme = 0
    at_once = max(1, _DRAWS_AT_ONCE // len(sums))
    for start in range(0, draws, at_once):
        signs = rng.integers(2, size=(min(at_once, draws - start), len(sums)), dtype=np.int8) * 2 - 1
        extreme += int(_as_extreme(signs @ sums, sums).sum())
    return (extreme + 1) / (draws + 1)


def _as_extreme(flipped: np.ndarray, sums: np.ndarray) -> np.ndarray:
    # Sums of the same numbers in another order differ in their last bits.
    return np.abs(flipped) >= abs(sums.sum()) - 1e-9
