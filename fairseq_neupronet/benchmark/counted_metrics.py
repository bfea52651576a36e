"""Paired tests of metrics that are no mean over clips, computed anew from the confusion counts of resampled profiles.

Letters: P profiles, S trainings (a fold and a seed each), K classes, R resamples; confusion counts have a row per
target, a column per prediction.
"""

from collections.abc import Callable, Sequence

import numpy as np

from fairseq_neupronet.benchmark.statistics import EXACT_BELOW, RESAMPLES, Comparison

NORMAL_CLASS = "normal"
_COUNTS_AT_ONCE = 4_000_000


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes that occur among targets or predictions: (..., K, K) to (...), NaN without clips."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    both = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    with np.errstate(invalid="ignore"):
        return (2 * hits / np.where(both > 0, both, 1)).sum(axis=-1) / (both > 0).sum(axis=-1)


def icbhi_score(confusion: np.ndarray, normal: int) -> np.ndarray:
    """Mean of sensitivity and specificity: (..., K, K) to (...), NaN without normal or without abnormal clips.

    Args:
        confusion: the counts.
        normal: index of the normal class.
    """
    hits, seen = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        specificity = hits[..., normal] / seen[..., normal]
        sensitivity = np.delete(hits, normal, axis=-1).sum(axis=-1) / np.delete(seen, normal, axis=-1).sum(axis=-1)
    return (sensitivity + specificity) / 2


def counted_metric(name: str, classes: Sequence[str]) -> Callable[[np.ndarray], np.ndarray] | None:
    """The metric of that name for these classes; None where there is none."""
    if name == "macro_f1":
        return macro_f1
    if name == "icbhi_score" and NORMAL_CLASS in classes:
        return lambda confusion: icbhi_score(confusion, classes.index(NORMAL_CLASS))
    return None


def compare_counts(
    ours: np.ndarray,
    theirs: np.ndarray,
    metric: Callable[[np.ndarray], np.ndarray],
    n_clips: int,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Test a metric of two variants on the same clips, as :func:`~fairseq_neupronet.benchmark.statistics.compare`.

    The metric is of each training by itself, and then the mean over trainings, as a table's figures are. The bootstrap
    draws profiles with replacement; the sign-flip test exchanges the two variants within profiles.

    Args:
        ours, theirs: (P, S, K, K) confusion counts of each profile in each training.
        metric: of confusion counts, (..., K, K) to (...).
        n_clips: how many clips they count.
        resamples: R.
        seed: of the resampling.

    Returns:
        All but the counts NaN where the metric is defined in no training.
    """
    n_profiles, shape = len(ours), ours.shape[1:]
    flat = ours.reshape(n_profiles, -1), theirs.reshape(n_profiles, -1)
    rng, at_once = np.random.default_rng(seed), max(1, _COUNTS_AT_ONCE // (flat[0].shape[1] + n_profiles))

    def gap(weights: np.ndarray, exchanged: np.ndarray | float = 0.0) -> np.ndarray:
        exchanged = np.broadcast_to(exchanged, weights.shape)
        one, other = (weights @ mine + exchanged @ yours for mine, yours in (flat, flat[::-1]))
        return _mean_where_defined(metric(one.reshape(-1, *shape)) - metric(other.reshape(-1, *shape)))

    difference = float(gap(np.ones((1, n_profiles)))[0])
    exact = n_profiles < EXACT_BELOW
    low = high = float("nan")
    if difference != difference:
        return Comparison(difference, low, high, float("nan"), exact, n_clips, n_profiles)
    if n_profiles > 1:
        gaps = [
            gap(rng.multinomial(n_profiles, np.full(n_profiles, 1 / n_profiles), size=n_drawn).astype(float))
            for n_drawn in _portions(resamples, at_once)
        ]
        low, high = map(float, np.nanquantile(np.concatenate(gaps), [0.025, 0.975]))

    # Half of the patterns: the other half mirrors them.
    n_patterns = 2 ** (n_profiles - 1) if exact else resamples
    extreme, start = 0, 0
    for n_drawn in _portions(n_patterns, at_once):
        if exact:
            kept = (np.arange(start, start + n_drawn)[:, None] >> np.arange(n_profiles) & 1).astype(float)
        else:
            kept = rng.integers(2, size=(n_drawn, n_profiles)).astype(float)
        # Sums of the same numbers in another order differ in their last bits.
        extreme += int((np.abs(gap(kept, 1 - kept)) >= abs(difference) - 1e-9).sum())
        start += n_drawn
    p = extreme / n_patterns if exact else (extreme + 1) / (n_patterns + 1)
    return Comparison(difference, low, high, p, exact, n_clips, n_profiles)


def _mean_where_defined(values: np.ndarray) -> np.ndarray:
    """(R, S) to (R,): a resample may leave a training without clips of a kind."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=1) / defined.sum(axis=1)


def _portions(total: int, at_once: int) -> list[int]:
    return [min(at_once, total - start) for start in range(0, total, at_once)]
