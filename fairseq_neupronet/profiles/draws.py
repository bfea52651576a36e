"""Random draws that a (seed, epoch, row) fixes, for a whole batch at once.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) is a counter put through a mixing function, so that any element of its
stream can be had without those before it.
"""

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_WORD = 0xFFFFFFFFFFFFFFFF
_DOUBLE_BITS = 53


def mix(words: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, a bijection in which every bit of the input sways every bit of the output.

    (…) uint64 → (…) uint64; arithmetic wraps around.
    """
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def key_of(*numbers: int) -> np.ndarray:
    """(1,) uint64 that whole numbers fix, by their lowest 64 bits."""
    key = np.zeros(1, np.uint64)
    for number in numbers:
        key = mix((key ^ np.uint64(number & _WORD)) + GOLDEN)
    return key


def uniforms(seed: int, epoch: int, rows: np.ndarray, n_draws: int) -> np.ndarray:
    """Uniform draws for rows, the same whichever rows are asked for together.

    Args:
        seed, epoch: any whole numbers; their lowest 64 bits count.
        rows: (B,) whole numbers from 0 up.
        n_draws: K.

    Returns:
        (B, K) float64 in [0, 1).
    """
    streams = mix(key_of(seed, epoch) + _steps(np.asarray(rows)))
    draws = mix(streams[:, None] + _steps(np.arange(n_draws)))
    return (draws >> np.uint64(64 - _DOUBLE_BITS)) * 2.0**-_DOUBLE_BITS


def _steps(counters: np.ndarray) -> np.ndarray:
    return (counters.astype(np.uint64) + np.uint64(1)) * GOLDEN


def below(uniform: np.ndarray, limits) -> np.ndarray:
    """Whole numbers 0 … limit − 1 from uniform draws, for limits far below 2⁵³. (B,) → (B,) int64."""
    return (uniform * limits).astype(np.int64)
