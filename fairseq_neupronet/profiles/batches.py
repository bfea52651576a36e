"""Which clips share a batch: by length, by profile, or whole groups. Letters: N clips or items, B of a batch."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.enrolment import Enrolment

MOST_TOGETHER = 128  # clips of a group that share a batch: bounds memory


def batches_by_length(
    indices: np.ndarray, lengths: np.ndarray, max_tokens: int | None, max_sentences: int | None
) -> list[np.ndarray]:
    """Cut a list of clips where a batch is full.

    Args:
        indices: (N,) the clips.
        lengths: (N,) frames of each, padded.
        max_tokens: most frames of a batch, each clip as long as the longest; None: any number.
        max_sentences: most clips of a batch; None: any number.
    """
    limit = max_sentences or len(indices)
    starts, start, longest = [], 0, 0
    if max_tokens is None:
        starts = range(limit, len(indices), limit)
    else:
        for position, length in enumerate(lengths.tolist()):
            longest = max(longest, length)
            n_clips = position - start
            if n_clips and (n_clips == limit or longest * (n_clips + 1) > max_tokens):
                starts.append(position)
                start, longest = position, length
    return np.split(indices, starts)


def profile_batches(
    profiles: np.ndarray, clips_per_profile: int, max_sentences: int | None, rng: np.random.Generator
) -> list[np.ndarray]:
    """Batches of chunks of up to C clips of a profile, as many chunks as a batch holds.

    In random order a batch of 128 VocalSound-1s clips holds 1.05 clips of a clip's profile, itself included: the method
    is idle. Here a profile's clips are shuffled and cut into chunks as equal as possible of at most C clips.
    Consecutive chunks go to consecutive batches, so that a profile meets itself in a batch only when it has more chunks
    than there are batches. Every clip appears once.

    Args:
        profiles: (N,) profile codes.
        clips_per_profile: C.
        max_sentences: most clips of a batch.
        rng: the epoch's generator.

    Returns:
        Batches of indices into ``profiles``, in random order.

    Raises:
        InputError: no number of clips, or too few for a chunk.
    """
    if max_sentences is None:
        raise InputError("task.profile_batches needs dataset.batch_size; dataset.max_tokens does not size them")
    profiles_per_batch = max_sentences // clips_per_profile
    if profiles_per_batch == 0:
        raise InputError(
            f"task.clips_per_profile={clips_per_profile}: so many clips of a profile do not fit "
            f"dataset.batch_size={max_sentences}; lower it, or raise dataset.batch_size"
        )
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


def equal_parts(place: np.ndarray, n_clips: np.ndarray | int) -> np.ndarray:
    """The part of at most 128 clips that the clip at a place, from 0, of a group of so many clips falls into."""
    return place * -(-n_clips // MOST_TOGETHER) // np.maximum(n_clips, 1)


class BatchMates(NamedTuple):
    """Which items share a batch, and which of them each is normalised by.

    Attributes:
        group: (N,) int64.
        part: (N,) int64, the part of its group that an item is normalised by, of those that count; -1: all of them.
        counts: (N,) bool, whether an item is one of those that its group is known by.
    """

    group: np.ndarray
    part: np.ndarray
    counts: np.ndarray

    @classmethod
    def of_lists(cls, lists: Enrolment) -> "BatchMates":
        """Items are the members of lists; a clip, the first of its list, is not one of those enrolled for it.

        Where more than 128 are enrolled they are normalised in equal parts, as where they are remembered.
        """
        group = np.repeat(np.arange(len(lists.sizes)), lists.sizes)
        place = np.arange(len(group)) - lists.offsets[group] - 1
        part = np.where(place < 0, -1, equal_parts(place, lists.sizes[group] - 1))
        return cls(group, part, place >= 0)

    @classmethod
    def of_batches(cls, codes: np.ndarray) -> "BatchMates":
        """Items of equal codes (N,) that come in the same batch; all count."""
        return cls(codes, np.zeros(len(codes), np.int64), np.ones(len(codes), bool))

    @classmethod
    def of_partition(cls, codes: np.ndarray, keys: Callable[[], np.ndarray]) -> "BatchMates":
        """Items of equal codes, all of which count.

        Of more than 128 the items are dealt out into equal parts of 128 at most, each of which is a group.

        Args:
            codes: (N,).
            keys: (N,) uint64, the order in which they are dealt; called if there is such a group.
        """
        _, codes, sizes = np.unique(codes, return_inverse=True, return_counts=True)
        if sizes.max(initial=0) > MOST_TOGETHER:
            order = np.lexsort((keys(), codes))
            rank = np.empty(len(codes), np.int64)
            rank[order] = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            n_parts = -(-sizes // MOST_TOGETHER)
            codes = (np.cumsum(n_parts) - n_parts)[codes] + rank % n_parts[codes]
        return cls.of_batches(codes)

    def of_batch(self, items: np.ndarray) -> dict[str, torch.Tensor]:
        """By what each of some items is normalised, for ``adapted_to_groups``; an item alone does not count.

        Returns:
            ``part`` (B,) int64, 0 … P − 1, and ``members`` (P, B) bool, the items that make a part's statistics.
        """
        _, group, sizes = np.unique(self.group[items], return_inverse=True, return_counts=True)
        counts = self.counts[items] & (sizes[group] > 1)
        pairs, part = np.unique(np.stack([group, self.part[items]]), axis=1, return_inverse=True)
        of_part = (pairs[1][:, None] < 0) | (pairs[1][:, None] == self.part[items])
        members = (pairs[0][:, None] == group) & of_part & counts
        return {"part": torch.from_numpy(part.reshape(-1)), "members": torch.from_numpy(members)}

    def batches(
        self, indices: np.ndarray, lengths: np.ndarray, max_tokens: int | None, max_sentences: int | None
    ) -> list[np.ndarray]:
        """Cut items into batches of whole groups, those with the longest item first.

        A batch is as large as asked for, but for a single group that is larger.

        Args:
            indices, lengths, max_tokens, max_sentences: as for :func:`batches_by_length`.
        """
        _, group, sizes = np.unique(self.group[indices], return_inverse=True, return_counts=True)
        longest = np.zeros(len(sizes), np.int64)
        np.maximum.at(longest, group, lengths)
        sequence = np.argsort(-longest, kind="stable")
        most_clips, most_frames = max_sentences or len(indices), max_tokens or np.inf
        batch_of, batch, n_clips, frames = np.empty(len(sizes), np.int64), 0, 0, 0
        for number in sequence.tolist():
            size, frames = int(sizes[number]), max(frames, int(longest[number]))
            if n_clips and (n_clips + size > most_clips or (n_clips + size) * frames > most_frames):
                batch, n_clips, frames = batch + 1, 0, int(longest[number])
            batch_of[number] = batch
            n_clips += size
        order = np.argsort(batch_of[group], kind="stable")
        ends = np.cumsum(np.bincount(batch_of[group]))
        return np.split(indices[order], ends[:-1])
