"""Which other clips of its profile a clip is pooled with. Letters: N clips, R rows, C candidates, n others."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fairseq_neupronet.profiles.draws import GOLDEN, key_of, mix

_BARRED = np.uint64(0xFFFFFFFFFFFFFFFF)
_CELLS = 1 << 21  # of a block that is ranked at once: bounds memory


class Enrolment(NamedTuple):
    """For each clip itself and then the clips enrolled with it, in the order of the draw.

    Attributes:
        offsets: (N + 1,) int64; the members of clip i are ``members[offsets[i]:offsets[i + 1]]``.
        members: int64 clips.
    """

    offsets: np.ndarray
    members: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """(N,) how many members each clip has, itself included."""
        return np.diff(self.offsets)


def path_keys(names: Iterable[str]) -> np.ndarray:
    """A 64-bit digest of each clip's path, the same on every machine. (N,) uint64."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def rank_others(
    rows: np.ndarray,
    candidates: np.ndarray,
    streams: np.ndarray,
    keys: np.ndarray,
    n_most: int,
    recording: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Put other clips into each row's own random order.

    The place of a candidate follows from the row's stream and the candidate's key, whichever other candidates there
    are. So the first of many are those that would be drawn if fewer were asked for.

    Args:
        rows: (R,) the clips that others are drawn for.
        candidates: (R, C) clips; a row's own clip, and places below 0, are never drawn.
        streams: (R,) uint64, the randomness of each row.
        keys: (N,) uint64, one a clip.
        n_most: n.
        recording: (N,) codes; clips of the row's own recording are never drawn. None: there are none.

    Returns:
        (R, min(n, C)) drawn clips, of which the first (R,) count.
    """
    scores = mix(mix(streams + GOLDEN)[:, None] ^ keys[candidates]) >> np.uint64(1)
    barred = (candidates == rows[:, None]) | (candidates < 0)
    if recording is not None:
        barred |= recording[candidates] == recording[rows][:, None]
    scores[barred] = _BARRED
    n_drawn = min(n_most, candidates.shape[1])
    if n_drawn < candidates.shape[1]:
        first = np.argpartition(scores, n_drawn, axis=1)[:, :n_drawn]
        candidates, scores = (np.take_along_axis(array, first, axis=1) for array in (candidates, scores))
    order = np.argsort(scores, axis=1)
    return np.take_along_axis(candidates, order, axis=1), np.minimum(n_drawn, (~barred).sum(axis=1))


def enrol(
    profile: np.ndarray, keys: np.ndarray, n_others: int, seed: int, recording: np.ndarray | None = None
) -> Enrolment:
    """Draw n other clips of its profile for every clip; all there are where they are fewer.

    What a clip gets depends on the seed, on its own path and on the paths of its profile's clips. The draw is uniform
    over their subsets, and nested: the first clips of a larger draw are those of a smaller one. Time grows with the sum
    of the squared sizes of the profiles.

    Args:
        profile: (N,) profile codes.
        keys: (N,) of :func:`path_keys`.
        n_others: n.
        seed: any whole number; its lowest 64 bits count.
        recording: (N,) codes of the source recordings, of which a clip never meets its own; None: not known.
    """
    n_clips = len(profile)
    streams = mix(keys ^ key_of(seed))
    _, codes, sizes = np.unique(profile, return_inverse=True, return_counts=True)
    by_profile, starts = np.argsort(codes, kind="stable"), np.cumsum(sizes) - sizes
    widest = min(n_others, int(sizes.max(initial=1)) - 1)
    counts = np.zeros(n_clips, np.int64)
    pieces, owners = [], []
    for size in np.unique(sizes).tolist():
        if size == 1 or widest == 0:
            continue
        of_size = starts[sizes == size][:, None] + np.arange(size)  # (profiles, size)
        groups = by_profile[of_size]
        for block in np.array_split(np.arange(groups.size), -(-groups.size * size // _CELLS)):
            rows = groups.ravel()[block]
            drawn, n_drawn = rank_others(rows, groups[block // size], streams[rows], keys, widest, recording)
            kept = np.arange(drawn.shape[1]) < n_drawn[:, None]
            counts[rows] = n_drawn
            pieces.append(drawn[kept])
            owners.append(np.repeat(rows, n_drawn))
    offsets = np.concatenate([[0], np.cumsum(counts + 1)])
    members = np.empty(offsets[-1], np.int64)
    members[offsets[:-1]] = np.arange(n_clips)
    if owners:
        owner = np.concatenate(owners)
        order = np.argsort(owner, kind="stable")
        owner, others = owner[order], np.concatenate(pieces)[order]
        rank = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        members[offsets[owner] + 1 + rank] = others
    return Enrolment(offsets, members)
