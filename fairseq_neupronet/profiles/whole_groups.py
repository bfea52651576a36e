"""Groups whose clips share a batch. Letters: N items, B of a batch."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from fairseq_neupronet.profiles.enrolment import Enrolment

MOST_TOGETHER = 128  # clips of a group that share a batch: bounds memory


class WholeGroups(NamedTuple):
    """Which items are heard together.

    Attributes:
        group: (N,) int64.
        counts: (N,) bool, whether an item is one of those that its group is known by.
    """

    group: np.ndarray
    counts: np.ndarray

    @classmethod
    def of_lists(cls, lists: Enrolment) -> "WholeGroups":
        """Items are the members of lists; a clip, the first of its list, is not one of those enrolled for it."""
        counts = np.ones(lists.offsets[-1], bool)
        counts[lists.offsets[:-1]] = False
        return cls(np.repeat(np.arange(len(lists.sizes)), lists.sizes), counts)

    @classmethod
    def of_batches(cls, codes: np.ndarray) -> "WholeGroups":
        """Items of equal codes (N,) that come in the same batch; all count."""
        return cls(codes, np.ones(len(codes), bool))

    @classmethod
    def of_partition(cls, codes: np.ndarray, keys: Callable[[], np.ndarray]) -> "WholeGroups":
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
        """``group`` (B,), 0 … G − 1, and ``counts`` (B,) of some items; an item alone does not count."""
        _, group, sizes = np.unique(self.group[items], return_inverse=True, return_counts=True)
        counts = self.counts[items] & (sizes[group] > 1)
        return {"group": torch.from_numpy(group), "counts": torch.from_numpy(counts)}

    def batches(
        self, indices: np.ndarray, lengths: np.ndarray, max_tokens: int | None, max_sentences: int | None
    ) -> list[np.ndarray]:
        """Cut items into batches of whole groups, those with the longest item first.

        A batch is as large as asked for, but for a single group that is larger.

        Args:
            indices, lengths, max_tokens, max_sentences: as for :func:`~fairseq_neupronet.data.batching.
                batches_by_length`.
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
