"""Batches that hold groups: P profiles with up to C clips each.

In random order a batch of 128 VocalSound-1s clips holds 1.05 clips of a clip's profile, itself included: the
method is idle. Here every batch is made of chunks of profiles.
"""

import numpy as np


def profile_batches(
    profiles: np.ndarray, clips_per_profile: int, profiles_per_batch: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Cut every profile into chunks and deal the chunks to batches.

    A profile's clips are shuffled and cut into chunks as equal as possible of at most C clips. Consecutive chunks go
    to consecutive batches, so that a profile meets itself in a batch only when it has more chunks than there are
    batches. Every clip appears once.

    Args:
        profiles: (N,) profile codes.
        clips_per_profile: C.
        profiles_per_batch: P.
        rng: the epoch's generator.

    Returns:
        batches of indices into ``profiles``, at most P · C each, in random order.
    """
    n_clips = len(profiles)
    shuffled = rng.permutation(n_clips)
    _, codes = np.unique(profiles, return_inverse=True)
    place = rng.permutation(codes.max() + 1)  # profiles in random order, so that batch mates differ by epoch
    by_profile = shuffled[np.argsort(place[codes[shuffled]], kind="stable")]
    sizes = np.bincount(place[codes])
    n_chunks = -(-sizes // clips_per_profile)
    rank = np.arange(n_clips) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chunk_in_profile = rank * np.repeat(n_chunks, sizes) // np.repeat(sizes, sizes)
    chunk = np.repeat(np.cumsum(n_chunks) - n_chunks, sizes) + chunk_in_profile
    n_batches = -(-int(n_chunks.sum()) // profiles_per_batch)
    batch = chunk % n_batches
    by_batch = by_profile[np.argsort(batch, kind="stable")]
    edges = np.cumsum(np.bincount(batch, minlength=n_batches))[:-1]
    batches = np.split(by_batch, edges)
    return [batches[number] for number in rng.permutation(n_batches)]
