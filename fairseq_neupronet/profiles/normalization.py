"""Cepstral-style mean and variance normalisation of mel bands over the clips of a profile.

Per-speaker CMVN (Viikki and Laurila, "Cepstral domain segmental feature vector normalization for noise robust speech
recognition", Speech Communication 25, 1998), of log-mel bands. Letters: N clips or items, B items of a batch, G groups,
M mel bands, F frames.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fairseq_neupronet.profiles.draws import mix, uniforms
from fairseq_neupronet.profiles.enrolment import Enrolment, rank_others

# A band that hardly moves within a group is not blown up: its deviation counts as this share of the training split's.
LEAST_DEVIATION = 0.01
_LISTED_ROWS = 1 << 14  # gathered at once: bounds memory
_DRAWS = 2  # of a clip: how many others, and the stream that says which
_DRAWS_SEED = 0xC3A5  # apart from the draws of crops and augmentation


@dataclass(frozen=True)
class BandStatistics:
    """Of the training split, or of groups.

    Attributes:
        mean: (M,) or (G, M) float64.
        deviation: the same shape; positive.
    """

    mean: np.ndarray
    deviation: np.ndarray

    def to_dict(self) -> dict:
        """In plain containers, for checkpoints."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    @classmethod
    def from_dict(cls, plain: dict) -> "BandStatistics":
        """From :meth:`to_dict`."""
        return cls(np.array(plain["mean"]), np.array(plain["deviation"]))

    def of(self, groups: np.ndarray) -> "BandStatistics":
        """Those of some groups, one after the other."""
        return BandStatistics(self.mean[groups], self.deviation[groups])

    def normalize(self, clips: list[np.ndarray]) -> list[np.ndarray]:
        """Normalise as many clips (M, F) as there are groups."""
        mean, deviation = (array.astype(np.float32)[:, :, None] for array in vars(self).values())
        return [(clip - mean[place]) / deviation[place] for place, clip in enumerate(clips)]


@dataclass(frozen=True)
class BandSums:
    """Sums over frames, from which the statistics of any set of clips follow.

    Attributes:
        frames: (N,) float64, how many.
        total: (N, M) float64, their sum in each band.
        square: (N, M) float64, the sum of their squares.
    """

    frames: np.ndarray
    total: np.ndarray
    square: np.ndarray

    @classmethod
    def of_clips(cls, spectrograms: Iterable[np.ndarray], n_clips: int, n_mels: int) -> "BandSums":
        """Sums of clips (M, F), which are looked at one by one and not kept."""
        frames, total, square = np.empty(n_clips), np.empty((n_clips, n_mels)), np.empty((n_clips, n_mels))
        for number, spectrogram in enumerate(spectrograms):
            wide = spectrogram.astype(np.float64)
            frames[number] = wide.shape[1]
            total[number] = wide.sum(axis=1)
            square[number] = np.einsum("mf,mf->m", wide, wide)
        return cls(frames, total, square)

    def by_group(self, codes: np.ndarray, n_groups: int) -> "BandSums":
        """Sums of the clips of each group, (N,) codes below G → (G, …); every group has a clip."""
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(n_groups))
        return BandSums(*(np.add.reduceat(sums[order], starts, axis=0) for sums in vars(self).values()))

    def by_list(self, offsets: np.ndarray, members: np.ndarray) -> "BandSums":
        """Sums of G lists of clips: list g is ``members[offsets[g]:offsets[g + 1]]``, and not empty."""
        pieces, start, n_lists = [], 0, len(offsets) - 1
        while start < n_lists:
            stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + _LISTED_ROWS, side="right")) - 1)
            clips, starts = members[offsets[start] : offsets[stop]], offsets[start:stop] - offsets[start]
            pieces.append([np.add.reduceat(sums[clips], starts, axis=0) for sums in vars(self).values()])
            start = stop
        return BandSums(*(np.concatenate(parts) for parts in zip(*pieces, strict=True)))

    def overall(self) -> BandStatistics:
        """Statistics over all frames of all clips (M,); a band that never moves counts as of deviation 1."""
        frames = self.frames.sum()
        mean = self.total.sum(axis=0) / frames
        variance = self.square.sum(axis=0) / frames - mean**2
        moves = variance > 1e-12 * np.maximum(mean**2, 1)
        return BandStatistics(mean, np.sqrt(np.where(moves, variance, 1.0)))


def shrunk(frames, total, square, prior: BandStatistics, prior_frames: float) -> tuple:
    """Mean and deviation (…, M) of bands with the prior's added as if they came from so many more frames.

    All of the arguments, the prior's attributes too, are numpy arrays, or all are tensors.

    Args:
        frames: (…, 1) or a number.
        total, square: (…, M), as of :class:`BandSums`.
        prior: (M,).
        prior_frames: how many.
    """
    frames = frames + prior_frames
    mean = (total + prior_frames * prior.mean) / frames
    square = (square + prior_frames * (prior.deviation**2 + prior.mean**2)) / frames
    least = (LEAST_DEVIATION * prior.deviation) ** 2
    return mean, (square - mean**2).clip(min=least) ** 0.5


@dataclass(frozen=True)
class BandNormalization:
    """Normalises the mel bands of clips by sums over the frames of their groups.

    The sums are a row: how many frames, then each band's sum, then each band's sum of squares. The rows of clips add up
    to the row of their group.

    Attributes:
        prior: the statistics of the training split.
        prior_frames: a group's statistics are shrunk toward them as if they came from so many more frames; 0 takes the
            group's own.
    """

    prior: BandStatistics
    prior_frames: float

    @property
    def n_sums(self) -> int:
        """How many numbers a row has, 1 + 2 M."""
        return 1 + 2 * len(self.prior.mean)

    def sums_of(self, spectrogram: np.ndarray) -> np.ndarray:
        """The row (1 + 2 M,) float64 of a clip (M, F)."""
        sums = BandSums.of_clips([spectrogram], 1, len(spectrogram))
        return np.concatenate([sums.frames, sums.total[0], sums.square[0]])

    def statistics(self, sums: BandSums) -> BandStatistics:
        """The statistics (G, M) of groups."""
        return BandStatistics(*shrunk(sums.frames[:, None], sums.total, sums.square, self.prior, self.prior_frames))

    def __call__(self, spectrograms: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
        """Normalise clips (M, F) by the rows of their groups (B, 1 + 2 M)."""
        total, square = np.split(rows[:, 1:], 2, axis=1)
        return self.statistics(BandSums(rows[:, 0], total, square)).normalize(spectrograms)


# ---- which clips' statistics an item of a data set is normalised by --------------------------------------------------


@dataclass(frozen=True)
class OfGroups:
    """Each item has the statistics of a group that does not change.

    Attributes:
        statistics: (G, M).
        group: (N,) each item's group.
    """

    statistics: BandStatistics
    group: np.ndarray

    @classmethod
    def partition(cls, sums: BandSums, codes: np.ndarray, normalization: BandNormalization) -> "OfGroups":
        """Groups of equal codes (N,), whatever numbers they are."""
        found, group = np.unique(codes, return_inverse=True)
        return cls(normalization.statistics(sums.by_group(group, len(found))), group)

    @classmethod
    def enrolments(cls, sums: BandSums, lists: Enrolment, normalization: BandNormalization) -> "OfGroups":
        """Statistics of the members of lists, each of which is a clip and those that are enrolled for it.

        The clip is normalised by the whole list. The enrolled ones are normalised without it: they were enrolled before
        it came, and nothing but what was computed then is remembered of them.
        """
        is_clip = np.zeros(len(lists.members), bool)
        is_clip[lists.offsets[:-1]] = True
        n_enrolled = lists.sizes - 1
        group = np.repeat(np.cumsum(n_enrolled > 0) - 1 + len(n_enrolled), lists.sizes)
        group[is_clip] = np.arange(len(n_enrolled))
        parts = [normalization.statistics(sums.by_list(*lists))]
        if n_enrolled.any():
            offsets = np.concatenate([[0], np.cumsum(n_enrolled[n_enrolled > 0])])
            parts.append(normalization.statistics(sums.by_list(offsets, lists.members[~is_clip])))
        joined = (np.concatenate(arrays) for arrays in zip(*(vars(part).values() for part in parts), strict=True))
        return cls(BandStatistics(*joined), group)

    def __call__(self, items: np.ndarray, epoch: int) -> BandStatistics:
        """(B, M)."""
        return self.statistics.of(self.group[items])

    def for_evaluation(self) -> "OfGroups":
        """The same."""
        return self


@dataclass(frozen=True)
class OfBatch:
    """The statistics of the profile's clips in the batch.

    Attributes:
        sums: of the N clips.
        profile: (N,) codes.
        normalization: by what is computed.
    """

    sums: BandSums
    profile: np.ndarray
    normalization: BandNormalization

    def __call__(self, items: np.ndarray, epoch: int) -> BandStatistics:
        """(B, M)."""
        codes, place = np.unique(self.profile[items], return_inverse=True)
        sums = BandSums(*(each[items] for each in vars(self.sums).values()))
        return self.normalization.statistics(sums.by_group(place, len(codes))).of(place)


class OfDrawnClips:
    """The statistics of the clip and a random number of other clips of its profile, drawn anew each epoch.

    The number is log-uniform between none and all, so that few clips, as at an enrolment, are as common as many.

    Args:
        sums: of the N clips.
        profile: (N,) codes.
        normalization: by what is computed.
        seed: of the draws; what a clip gets depends on (seed, epoch, clip) only.
    """

    def __init__(self, sums: BandSums, profile: np.ndarray, normalization: BandNormalization, seed: int):
        self._sums, self._normalization, self._seed = sums, normalization, seed
        self._profile, self._sizes = np.unique(profile, return_inverse=True, return_counts=True)[1:]
        self._by_profile = np.argsort(self._profile, kind="stable")
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._keys = mix(np.arange(len(profile), dtype=np.uint64))

    def members(self, items: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Each item and what is drawn for it, as lists one after the other.

        Returns:
            (B + 1,) offsets, and the items of all lists.
        """
        profile = self._profile[items]
        sizes = self._sizes[profile]
        uniform = uniforms(self._seed ^ _DRAWS_SEED, epoch, items, _DRAWS)
        wanted = np.minimum(((sizes + 1.0) ** uniform[:, 0]).astype(np.int64), sizes) - 1
        place = np.arange(sizes.max())
        candidates = self._by_profile[np.minimum(self._starts[profile][:, None] + place, len(self._profile) - 1)]
        candidates = np.where(place < sizes[:, None], candidates, -1)
        streams = (uniform[:, 1] * 2.0**53).astype(np.uint64)
        drawn, _ = rank_others(items, candidates, streams, self._keys, int(wanted.max(initial=0)))
        kept = np.arange(drawn.shape[1]) < wanted[:, None]
        lists = np.column_stack([items, drawn])[np.column_stack([np.ones(len(items), bool), kept])]
        return np.concatenate([[0], np.cumsum(wanted + 1)]), lists

    def __call__(self, items: np.ndarray, epoch: int) -> BandStatistics:
        """(B, M)."""
        return self._normalization.statistics(self._sums.by_list(*self.members(items, epoch)))

    def for_evaluation(self) -> OfGroups:
        """Of all clips of the profile."""
        return OfGroups.partition(self._sums, self._profile, self._normalization)


def statistics_of(dataset, sums: BandSums, normalization: BandNormalization, draws: bool):
    """What gives the items of a :class:`~fairseq_neupronet.data.dataset.SpectrogramDataset` their statistics.

    Args:
        dataset: its grouping says which clips count in evaluation.
        sums: of its N clips.
        normalization: by what is computed.
        draws: training takes a random number of clips of the profile instead of all.
    """
    if dataset.training:
        if draws:
            return OfDrawnClips(sums, dataset.profiles, normalization, dataset.options.seed)
        return OfGroups.partition(sums, dataset.profiles, normalization)
    grouping = dataset.grouping
    if grouping is None:
        return OfBatch(sums, dataset.profiles, normalization)
    if grouping.codes is not None:
        return OfGroups.partition(sums, grouping.codes, normalization)
    if dataset.pairs is None:
        return OfGroups(normalization.statistics(sums.by_list(*grouping.enrolment)), np.arange(len(grouping)))
    return OfGroups.enrolments(sums, dataset.pairs, normalization)
