"""Profiles permuted among the clips of a split: what a model gains with these, it does not owe to its profiles.

Letters: N clips.
"""

import zlib

import numpy as np


def shuffled_profiles(profiles: np.ndarray, seed: int, split: str, classes: np.ndarray | None = None) -> np.ndarray:
    """Groups of the same sizes, of the wrong clips.

    Args:
        profiles: (N,) profile codes.
        seed: 0 or more.
        split: its name; each split is permuted in its own way.
        classes: (N,) class indices; profiles are permuted among the clips of one class only, so that every group keeps
            its composition: as many clips of each class as before. None: among all.

    Returns:
        (N,) profile codes.
    """
    rng = np.random.default_rng((seed, zlib.crc32(split.encode())))
    if classes is None:
        return rng.permutation(profiles)
    shuffled = profiles.copy()
    for index in np.unique(classes):
        clips = np.flatnonzero(classes == index)
        shuffled[clips] = rng.permutation(profiles[clips])
    return shuffled
