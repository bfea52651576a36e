"""Intervals of a mean over clips that are not independent: the clips of a profile are drawn together.

The cluster bootstrap is that of Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, section 3.8.
Letters: P profiles, R resamples.
"""

import numpy as np

RESAMPLES = 10_000
DRAWS_AT_ONCE = 4_000_000  # bounds memory


def bootstrap_interval(
    sums: np.ndarray, counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean over clips when profiles are drawn with replacement.

    Args:
        sums, counts: (P,) sum of the values and number of the clips of each profile.
        resamples: R.
        seed: of the draws.
        level: share of the resampled means within.
    """
    n_profiles = len(sums)
    if n_profiles < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    at_once = max(1, DRAWS_AT_ONCE // n_profiles)
    for start in range(0, resamples, at_once):
        drawn = rng.integers(n_profiles, size=(min(at_once, resamples - start), n_profiles), dtype=np.int32)
        means[start : start + at_once] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
