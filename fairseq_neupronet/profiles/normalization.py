"""Cepstral-style mean and variance normalisation of mel bands over the clips of a profile.

Per-speaker CMVN (Viikki and Laurila, "Cepstral domain segmental feature vector normalization for noise robust speech
recognition", Speech Communication 25, 1998), of log-mel bands. Letters: N items, B items of a batch, G groups, M bands.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fairseq_neupronet.profiles.band_statistics import BandStatistics, BandSums
from fairseq_neupronet.profiles.draws import mix, uniforms
from fairseq_neupronet.profiles.enrolment import Enrolment, rank_others

_DRAWS = 2  # of a clip: how many others, and the stream that says which
_DRAWS_SEED = 0xC3A5  # apart from the draws of crops and augmentation


@dataclass(frozen=True)
class OfGroups:
    """Each item has the statistics of a group that does not change.

    Attributes:
        statistics: (G, M).
        group: (N,) each item's group.
    """

    statistics: BandStatistics
    group: np.ndarray

    def __call__(self, items: np.ndarray, epoch: int) -> BandStatistics:
        """(B, M)."""
        group = self.group[items]
        return BandStatistics(self.statistics.mean[group], self.statistics.deviation[group])

    def for_evaluation(self) -> "OfGroups":
        """The same."""
        return self


@dataclass(frozen=True)
class OfBatch:
    """The statistics of the profile's clips in the batch.

    Attributes:
        sums: of the N clips.
        profile: (N,) codes.
        prior, prior_frames: see :meth:`BandSums.statistics`.
    """

    sums: BandSums
    profile: np.ndarray
    prior: BandStatistics
    prior_frames: float

    def __call__(self, items: np.ndarray, epoch: int) -> BandStatistics:
        """(B, M)."""
        codes, place = np.unique(self.profile[items], return_inverse=True)
        groups = self.sums.take(items).by_group(place, len(codes)).statistics(self.prior, self.prior_frames)
        return BandStatistics(groups.mean[place], groups.deviation[place])


@dataclass(frozen=True)
class OfDrawnClips:
    """The statistics of the clip and a random number of other clips of its profile, drawn anew each epoch.

    The number is log-uniform between none and all, so that few clips, as at an enrolment, are as common as many.

    Attributes:
        sums: of the N clips.
        profile: (N,) codes 0 … G − 1, each of them there.
        prior, prior_frames: see :meth:`BandSums.statistics`.
        seed: of the draws; what a clip gets depends on (seed, epoch, clip) only.
    """

    sums: BandSums
    profile: np.ndarray
    prior: BandStatistics
    prior_frames: float
    seed: int

    def __post_init__(self):
        sizes = np.bincount(self.profile)
        keys = mix(np.arange(len(self.profile), dtype=np.uint64))
        for name, value in (
            ("_by_profile", np.argsort(self.profile, kind="stable")),
            ("_sizes", sizes),
            ("_starts", np.cumsum(sizes) - sizes),
            ("_keys", keys),
        ):
            object.__setattr__(self, name, value)

    def members(self, items: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Each item and what is drawn for it, as lists one after the other.

        Returns:
            (B + 1,) offsets, and the items of all lists.
        """
        profile = self.profile[items]
        sizes = self._sizes[profile]
        uniform = uniforms(self.seed ^ _DRAWS_SEED, epoch, items, _DRAWS)
        wanted = np.minimum(((sizes + 1.0) ** uniform[:, 0]).astype(np.int64), sizes) - 1
        widest = int(sizes.max())
        place = np.arange(widest)
        candidates = self._by_profile[np.minimum(self._starts[profile][:, None] + place, len(self.profile) - 1)]
        candidates = np.where(place < sizes[:, None], candidates, -1)
        streams = (uniform[:, 1] * 2.0**53).astype(np.uint64)
        drawn, _ = rank_others(items, candidates, streams, self._keys, int(wanted.max(initial=0)))
        kept = np.arange(drawn.shape[1]) < wanted[:, None]
        lists = np.column_stack([items, drawn])[np.column_stack([np.ones(len(items), bool), kept])]
        return np.concatenate([[0], np.cumsum(wanted + 1)]), lists

    def __call__(self, items: np.ndarray, epoch: int) -> BandStatistics:
        """(B, M)."""
        return self.sums.by_list(*self.members(items, epoch)).statistics(self.prior, self.prior_frames)

    def for_evaluation(self) -> OfGroups:
        """Of all clips of the profile."""
        return of_partition(self.sums, self.profile, self.prior, self.prior_frames)


def of_partition(sums: BandSums, codes: np.ndarray, prior: BandStatistics, prior_frames: float) -> OfGroups:
    """Groups of equal codes (N,), whatever numbers they are."""
    found, group = np.unique(codes, return_inverse=True)
    return OfGroups(sums.by_group(group, len(found)).statistics(prior, prior_frames), group)


def of_enrolments(sums: BandSums, lists: Enrolment, prior: BandStatistics, prior_frames: float) -> OfGroups:
    """Statistics of the members of lists, each of which is a clip and those that are enrolled for it.

    The clip is normalised by the whole list. The enrolled ones are normalised without it: they were enrolled before it
    came, and nothing but what was computed then is remembered of them.
    """
    is_clip = np.zeros(len(lists.members), bool)
    is_clip[lists.offsets[:-1]] = True
    n_enrolled = lists.sizes - 1
    group = np.repeat(np.cumsum(n_enrolled > 0) - 1 + len(n_enrolled), lists.sizes)
    group[is_clip] = np.arange(len(n_enrolled))
    parts = [sums.by_list(*lists).statistics(prior, prior_frames)]
    if n_enrolled.any():
        offsets = np.concatenate([[0], np.cumsum(n_enrolled[n_enrolled > 0])])
        parts.append(sums.by_list(offsets, lists.members[~is_clip]).statistics(prior, prior_frames))
    joined = (np.concatenate(arrays) for arrays in zip(*(vars(part).values() for part in parts), strict=True))
    return OfGroups(BandStatistics(*joined), group)


@dataclass(frozen=True)
class ProfileNormalization:
    """How a task normalises its data sets; what it costs is paid when a data set is first used.

    Attributes:
        sums_of: the band sums of a data set's clips.
        prior: the statistics of the training split.
        prior_frames: see :meth:`BandSums.statistics`.
        draws: training takes a random number of clips of the profile instead of all.
    """

    sums_of: Callable[[object], BandSums]
    prior: Callable[[], BandStatistics]
    prior_frames: float
    draws: bool

    def statistics_of(self, dataset) -> OfGroups | OfBatch | OfDrawnClips:
        """What gives a :class:`~fairseq_neupronet.data.dataset.SpectrogramDataset` its statistics."""
        sums, prior = self.sums_of(dataset), self.prior()
        if dataset.training:
            if not self.draws:
                return of_partition(sums, dataset.profiles, prior, self.prior_frames)
            codes = np.unique(dataset.profiles, return_inverse=True)[1]
            return OfDrawnClips(sums, codes, prior, self.prior_frames, dataset.seed)
        grouping = dataset.grouping
        if grouping is None:
            return OfBatch(sums, dataset.profiles, prior, self.prior_frames)
        if grouping.codes is not None:
            return of_partition(sums, grouping.codes, prior, self.prior_frames)
        if dataset.pairs is None:
            groups = sums.by_list(*grouping.enrolment).statistics(prior, self.prior_frames)
            return OfGroups(groups, np.arange(len(grouping)))
        return of_enrolments(sums, dataset.pairs, prior, self.prior_frames)
