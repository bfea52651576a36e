"""Means, and paired tests of two variants on the same clips, clustered by profile.

Clips of a profile are not independent, so profiles are what is resampled and whose signs are flipped (cluster
bootstrap: Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, section 3.8; sign flips: Fisher's
randomisation test). A metric that is no mean over clips is computed anew from the confusion counts of the resampled
profiles. Letters: N clips, P profiles, S trainings (a fold and a seed each), K classes, R resamples; confusion counts
have a row per target, a column per prediction.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fairseq_neupronet.config.data import FinetuningOptions
from fairseq_neupronet.evaluation.intervals import DRAWS_AT_ONCE, RESAMPLES, bootstrap_interval
from fairseq_neupronet.evaluation.metrics import icbhi_metrics, macro_f1

NORMAL_CLASS = FinetuningOptions.normal_class
EXACT_BELOW = 20  # profiles; 2 ** 19 sign patterns are a moment's work
_COUNTS_AT_ONCE = 4_000_000


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


def compare_sums(sums: np.ndarray, counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Test whether two variants are right equally often on the same clips.

    Args:
        sums: (P,) how many clips of each profile the one variant has right more than the other; of several seeds the
            mean.
        counts: (P,) clips of each profile.
        resamples: R.
        seed: of the resampling.
    """
    low, high = bootstrap_interval(sums, counts, resamples, seed)
    exact = len(sums) < EXACT_BELOW
    p = exact_sign_flip_p(sums) if exact else random_sign_flip_p(sums, resamples, seed)
    n_clips = int(counts.sum())
    return Comparison(float(sums.sum() / n_clips), low, high, p, exact, n_clips, len(sums))


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
    at_once = max(1, DRAWS_AT_ONCE // len(sums))
    for start in range(0, draws, at_once):
        signs = rng.integers(2, size=(min(at_once, draws - start), len(sums)), dtype=np.int8) * 2 - 1
        extreme += int(_as_extreme(signs @ sums, sums).sum())
    return (extreme + 1) / (draws + 1)


def _as_extreme(flipped: np.ndarray, sums: np.ndarray) -> np.ndarray:
    # Sums of the same numbers in another order differ in their last bits.
    return np.abs(flipped) >= abs(sums.sum()) - 1e-9


def counted_metric(name: str, classes: Sequence[str]) -> Callable[[np.ndarray], np.ndarray] | None:
    """The metric of that name as a function of (..., K, K) confusion counts; None where these classes define none."""
    if name == "macro_f1":
        return macro_f1
    if name == "icbhi_score" and NORMAL_CLASS in classes:
        return lambda confusion: icbhi_metrics(confusion, classes.index(NORMAL_CLASS))["icbhi_score"]
    return None


def compare_counts(
    ours: np.ndarray,
    theirs: np.ndarray,
    metric: Callable[[np.ndarray], np.ndarray],
    n_clips: int,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Test a metric of two variants on the same clips, as :func:`compare_sums` tests sums.

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
