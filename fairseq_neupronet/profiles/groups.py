"""The groups of a split: a partition, or for each clip a list of its own. Letters: N clips, R rows, C columns."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fairseq_neupronet.profiles.enrolment import Enrolment

_ROWS = 1024
_CELLS = 1 << 20  # of a chunk's mask where groups are lists: bounds memory


class GroupChunk(NamedTuple):
    """Clips to be pooled together.

    Attributes:
        rows: (R,) int64, the clips whose pooled embedding is computed.
        columns: (C,) int64, the embeddings of all groups of the rows.
        mask: (R, C) bool, True where the column is of the row's group.
    """

    rows: np.ndarray
    columns: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Grouping:
    """Who is pooled with whom: a partition, or a list for each clip.

    What is pooled are embeddings, one an item. Items are the clips; or pairs of a clip and the group that it is
    in, where a clip's embedding differs from group to group.

    Attributes:
        codes: (N,) int64, equal for clips of one group: a partition.
        enrolment: for each clip the items of its group, its own first: lists.
        own_items: (N,) int64, the item of each clip in its own group; None: clip i is item i.
        n_short: how many clips have fewer others than the protocol asks for.
    """

    codes: np.ndarray | None = None
    enrolment: Enrolment | None = None
    own_items: np.ndarray | None = None
    n_short: int = 0

    @classmethod
    def partition(cls, codes: np.ndarray) -> "Grouping":
        """Groups of equal codes (N,)."""
        return cls(codes=np.unique(codes, return_inverse=True)[1].astype(np.int64))

    @classmethod
    def listed(cls, enrolment: Enrolment, short_of: int) -> "Grouping":
        """A group of its own for each clip; ``short_of`` is how many others are wanted."""
        return cls(enrolment=enrolment, n_short=int((enrolment.sizes <= short_of).sum()))

    def paired(self) -> "Grouping":
        """The same lists, of items (clip, group) in the order of ``enrolment.members``."""
        offsets = self.enrolment.offsets
        return replace(self, enrolment=Enrolment(offsets, np.arange(offsets[-1])), own_items=offsets[:-1])

    def alone(self) -> "Grouping":
        """Every clip a group of its own, of the item that it is in its own group."""
        own = self.own()
        return replace(self, codes=None, enrolment=Enrolment(np.arange(len(own) + 1), own))

    def __len__(self) -> int:
        return len(self.codes) if self.enrolment is None else len(self.enrolment.offsets) - 1

    @property
    def n_items(self) -> int:
        """How many embeddings there are."""
        return len(self) if self.own_items is None else len(self.enrolment.members)

    def own(self) -> np.ndarray:
        """(N,) the item of each clip in its own group."""
        return np.arange(len(self)) if self.own_items is None else self.own_items

    def among(self, items: np.ndarray) -> "Grouping":
        """Where only some items are there; their positions among these are the items of the result.

        Args:
            items: increasing items.
        """
        if self.enrolment is None:
            return Grouping.partition(self.codes[items])
        offsets, members = self.enrolment
        own = self.own()
        position = np.full(max(members.max(initial=-1), own.max(initial=-1)) + 1, -1)
        position[items] = np.arange(len(items))
        is_kept = position[own] >= 0
        owner = np.repeat(np.arange(len(self)), self.enrolment.sizes)
        present = is_kept[owner] & (position[members] >= 0)
        sizes = np.bincount(owner[present], minlength=len(self))[is_kept]
        kept = Enrolment(np.concatenate([[0], np.cumsum(sizes)]), position[members[present]])
        return Grouping(enrolment=kept, own_items=position[own[is_kept]])

    def chunks(self) -> Iterator[GroupChunk]:
        """Cut the split so that memory is bounded; every clip is a row exactly once, in chunks that hold its group."""
        return partition_chunks(self.codes, _ROWS) if self.enrolment is None else listed_chunks(self.enrolment, _CELLS)


def partition_chunks(codes: np.ndarray, rows_per_chunk: int) -> Iterator[GroupChunk]:
    """Chunks of a partition.

    Rows are taken group by group, so a chunk has at most ``rows_per_chunk`` + 2 · (largest group) columns. What a clip
    is pooled with is its group whatever the order of the clips or the chunk size.

    Args:
        codes: (N,) equal for clips of one group.
        rows_per_chunk: most rows of a chunk, at least 1.
    """
    codes = np.asarray(codes)
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    for start in range(0, len(codes), rows_per_chunk):
        rows = slice(start, min(start + rows_per_chunk, len(codes)))
        columns = slice(
            np.searchsorted(ordered, ordered[rows.start], side="left"),
            np.searchsorted(ordered, ordered[rows.stop - 1], side="right"),
        )
        yield GroupChunk(order[rows], order[columns], ordered[rows, None] == ordered[None, columns])


def listed_chunks(enrolment: Enrolment, cells_per_chunk: int) -> Iterator[GroupChunk]:
    """Chunks of lists.

    Args:
        enrolment: each clip's members.
        cells_per_chunk: most cells of a chunk's mask, but for a single row with more.
    """
    offsets, members = enrolment
    largest = int(enrolment.sizes.max(initial=1))
    rows_per_chunk = max(1, int((cells_per_chunk / largest) ** 0.5))
    for start in range(0, len(offsets) - 1, rows_per_chunk):
        stop = min(start + rows_per_chunk, len(offsets) - 1)
        columns, place = np.unique(members[offsets[start] : offsets[stop]], return_inverse=True)
        mask = np.zeros((stop - start, len(columns)), bool)
        mask[np.repeat(np.arange(stop - start), enrolment.sizes[start:stop]), place] = True
        yield GroupChunk(np.arange(start, stop), columns, mask)
