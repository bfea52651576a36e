"""The data set of a split: manifest rows to padded batches. Letters: B clips, M mel bands, F frames."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset

from fairseq_neupronet.data.augmentation import FrequencyWarp, Mixup, SpecAugment
from fairseq_neupronet.data.clip_files import ClipFiles, crop, normalize
from fairseq_neupronet.data.manifest import Manifest
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.batches import BatchMates, batches_by_length, profile_batches
from fairseq_neupronet.profiles.draws import uniforms
from fairseq_neupronet.profiles.enrolment import Enrolment
from fairseq_neupronet.profiles.groups import Grouping
from fairseq_neupronet.profiles.normalization import BandSums

logger = logging.getLogger(__name__)

_CROP = 0
_AUGMENT = slice(_CROP + 1, _CROP + 1 + SpecAugment.DRAWS)
_MIX = slice(_AUGMENT.stop, _AUGMENT.stop + Mixup.DRAWS)
_WARP = slice(_MIX.stop, _MIX.stop + FrequencyWarp.DRAWS)  # new draws go to the end: those before stay what they were
_DRAWS = _WARP.stop
_BATCHES = 1  # the generator that deals clips to profile batches


@dataclass(frozen=True)
class DatasetOptions:
    """How a data set reads, cuts, changes and batches its clips.

    Attributes:
        training: random crops, augmentation and a new order each epoch; otherwise longest clip first and repeatable.
        seed: of crops, augmentation and order; what an epoch draws for a clip depends on (seed, epoch, clip) only.
        profiling: batches carry the profile codes.
        fixed_frames: pad or cut every clip to this length, so that a clip's result does not depend on the clips that
            share its batch; None pads to the longest of the batch, as the official implementation.
        max_sample_size, min_sample_size: frames; longer clips are cut, shorter ones are left out.
        normalize: zero mean and unit variance per clip.
        warp, augment, mixup: applied in training, one after the other.
        clips_per_profile: training batches of profile chunks of this size, as many as the batch size holds; None
            batches by length.
        profile_normalization: from a data set to what gives its items the statistics of their profiles' mel bands, see
            :func:`~fairseq_neupronet.profiles.normalization.statistics_of`; None: bands stay as they are.
    """

    training: bool
    seed: int
    profiling: bool = True
    fixed_frames: int | None = None
    max_sample_size: int | None = None
    min_sample_size: int | None = None
    normalize: bool = False
    warp: FrequencyWarp | None = None
    augment: SpecAugment | None = None
    mixup: Mixup | None = None
    clips_per_profile: int | None = None
    profile_normalization: Callable[[Dataset], Callable] | None = None

    def for_evaluation(self) -> "DatasetOptions":
        """Without what training changes."""
        return replace(self, training=False, warp=None, augment=None, mixup=None, clips_per_profile=None)


@dataclass(frozen=True)
class Treatment:
    """How evaluation groups the clips of a data set.

    Attributes:
        grouping: of the items; None: the clips of a profile in their batch.
        batch_clips: clips of a batch, whatever is asked for; None: what is asked for.
        pairs: lists of clips. The items are their members, every clip in every group that has it, and ``grouping`` is
            of these. None: the items are the clips.
        together: the groups of the items, whole in a batch where there is a grouping; a batch says which they are.
    """

    grouping: Grouping | None = None
    batch_clips: int | None = None
    pairs: Enrolment | None = None
    together: BatchMates | None = None


def kept_rows(manifest: Manifest, min_sample_size: int | None) -> np.ndarray:
    """The rows of a manifest whose clips are long enough; None: all of them.

    Raises:
        InputError: there is none.
    """
    rows = np.flatnonzero(manifest.frames >= (min_sample_size or 0))
    if not len(rows):
        raise InputError(f"{manifest.path}: no clip has the {min_sample_size} frames of task.min_sample_size; lower it")
    return rows


class SpectrogramDataset(Dataset):
    """The clips of one split. An item is read, cut and normalised alone; a batch is padded and augmented at once.

    Args:
        manifest: the split's manifest, N clips.
        targets: (N,) class indices, or None.
        subset: the split's name; batches carry it.
        options: how clips are treated.
        treatment: how they are grouped in evaluation; there is none in training.

    Raises:
        InputError: no clip is long enough, or profile batches without profiles.
    """

    def __init__(
        self,
        manifest: Manifest,
        targets: np.ndarray | None,
        subset: str,
        options: DatasetOptions,
        treatment: Treatment = Treatment(),
    ):
        super().__init__()
        self.manifest, self.targets, self.subset = manifest, targets, subset
        self.options = options if options.training else options.for_evaluation()
        self.treatment, self.epoch = treatment, 1
        self._files, self._statistics = ClipFiles(manifest.root), None
        rows = kept_rows(manifest, options.min_sample_size)
        limits = (options.fixed_frames, options.max_sample_size, np.iinfo(np.int64).max)
        self._longest = min(limit for limit in limits if limit is not None)
        self._n_cut = int((manifest.frames[rows] > self._longest).sum())
        self._report_lengths(len(manifest) - len(rows))
        self.rows = rows if self.pairs is None else rows[self.pairs.members]
        self.sizes = np.minimum(manifest.frames[self.rows], self._longest)
        if self.options.clips_per_profile is not None and manifest.profiles is None:
            raise InputError(f"{manifest.path}: task.profile_batches needs the profile column (the fourth)")

    def _report_lengths(self, n_skipped: int) -> None:
        if n_skipped:
            shortest = self.options.min_sample_size
            logger.info(f"{self.subset}: {n_skipped} clips under {shortest} frames are left out, labels included")
        if self._n_cut:
            logger.info(f"{self.subset}: {self._n_cut} clips are cut to {self._longest} frames")

    @property
    def training(self) -> bool:
        """Whether clips are cut, changed and ordered at random."""
        return self.options.training

    @property
    def grouping(self) -> Grouping | None:
        """The groups of evaluation; None: by batch."""
        return self.treatment.grouping

    @property
    def pairs(self) -> Enrolment | None:
        """The lists whose members the items are; None: the items are clips."""
        return self.treatment.pairs

    @property
    def profiles(self) -> np.ndarray:
        """Profile code of each item."""
        return self.manifest.profiles[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def for_evaluation(self) -> "SpectrogramDataset":
        """The same items as evaluation has them: cut at their start, not augmented, batched by length."""
        self.prepare()
        twin = copy.copy(self)
        twin.options = self.options.for_evaluation()
        if self._statistics is not None:
            twin._statistics = self._statistics.for_evaluation()
        return twin

    def band_sums(self) -> BandSums:
        """Sums over the frames of each clip, as evaluation receives it before any profile normalisation."""
        rows = self.rows if self.pairs is None else self.rows[self.pairs.offsets[:-1]]
        spectrograms = (self._read(row, 0.0).numpy() for row in rows.tolist())
        return BandSums.of_clips(spectrograms, len(rows), self.manifest.n_mels)

    def prepare(self) -> None:
        """Compute what the items take from other clips; before workers start, each of which would do it again."""
        normalization = self.options.profile_normalization
        if normalization is not None:
            self._statistics = normalization(self)
            self.options = replace(self.options, profile_normalization=None)  # its functions cannot be sent to workers

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict:
        """``id`` and ``source`` (M, F) float32, before augmentation."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict]:
        """Several items; torch's loader asks for a whole batch."""
        rows = self.rows[indices]
        places = self._draws(rows)[:, _CROP] if self.training and self._n_cut else np.zeros(len(rows))
        return [
            {"id": index, "source": self._read(row, place)}
            for index, row, place in zip(indices, rows.tolist(), places.tolist(), strict=True)
        ]

    def _draws(self, rows: np.ndarray) -> np.ndarray:
        return uniforms(self.options.seed, self.epoch, rows, _DRAWS)

    def _read(self, row: int, place: float) -> torch.Tensor:
        manifest = self.manifest
        spectrogram = self._files.read(
            manifest.clips[row], manifest.n_mels, int(manifest.frames[row]), manifest.line_of(row)
        )
        spectrogram = crop(spectrogram, self._longest, place)
        if self.options.normalize:
            spectrogram = normalize(spectrogram)
        return torch.from_numpy(np.ascontiguousarray(spectrogram))

    def collater(self, samples: list[dict]) -> dict:
        """Right-pad with zeros and augment.

        ``source`` (B, M, F); ``padding_mask`` (B, F) bool, True on padding; ``frames`` (B,) unpadded ones, an array
        that stays on the host when the rest goes to a GPU; ``mixed`` with mixup; ``together`` with whole
        groups: ``group`` and ``counts`` (B,).
        """
        if not samples:
            return {}
        ids = np.array([sample["id"] for sample in samples])
        rows = self.rows[ids]
        lengths = np.array([sample["source"].shape[1] for sample in samples])
        n_frames = self.options.fixed_frames or int(lengths.max())
        source = _padded(self._normalized([sample["source"].numpy() for sample in samples], ids), n_frames)
        options, mixed = self.options, {}
        draws = self._draws(rows) if options.training else None
        if options.warp is not None:
            source = options.warp(source, draws[:, _WARP])
        if options.augment is not None:
            source = options.augment(source, lengths, draws[:, _AUGMENT])
        if options.mixup is not None:
            source, partner, share = options.mixup(source, draws[:, _MIX])
            mixed = {"mixed": {"partner": partner, "share": share}}
        padding_mask = torch.from_numpy(np.arange(n_frames) >= lengths[:, None])
        net_input = {"source": source, "padding_mask": padding_mask, "frames": lengths}
        if options.profiling and self.manifest.profiles is not None:
            net_input["profile"] = torch.from_numpy(self.manifest.profiles[rows])
        batch = {"id": torch.from_numpy(ids), "subset": self.subset, "net_input": net_input} | mixed
        if self.targets is not None:
            batch["target"] = torch.from_numpy(self.targets[rows])
        if self.treatment.together is not None:
            batch["together"] = self.treatment.together.of_batch(ids)
        return batch

    def _normalized(self, clips: list[np.ndarray], ids: np.ndarray) -> list[np.ndarray]:
        self.prepare()
        return clips if self._statistics is None else self._statistics(ids, self.epoch).normalize(clips)

    def ordered_indices(self) -> np.ndarray:
        """Longest first; clips of one length in the epoch's random order in training, in manifest order otherwise."""
        ties = np.arange(len(self))
        if self.training:
            ties = np.random.default_rng((self.options.seed, self.epoch)).permutation(ties)
        return np.lexsort((ties, -self.sizes))

    def batch_by_size(self, indices, max_tokens=None, max_sentences=None, required_batch_size_multiple=1):
        """Batches of exactly ``max_sentences`` clips but for the last, or of at most ``max_tokens`` padded frames.

        fairseq's own batching loses the clips of a last batch that is no multiple of ``required_batch_size_multiple``
        (4 of 3,580 at its default of 8), so that argument is not heeded.
        """
        fixed_frames, clips_per_profile = self.options.fixed_frames, self.options.clips_per_profile
        lengths = np.full(len(indices), fixed_frames) if fixed_frames else self.sizes[indices]
        if self.treatment.batch_clips is not None:
            return batches_by_length(indices, lengths, None, self.treatment.batch_clips)
        if self.treatment.together is not None and self.grouping is not None:
            return self.treatment.together.batches(indices, lengths, max_tokens, max_sentences)
        if clips_per_profile is None:
            return batches_by_length(indices, lengths, max_tokens, max_sentences)
        # Not the generator of ordered_indices: of clips of one length it would undo that order, clip by clip.
        rng = np.random.default_rng((self.options.seed, self.epoch, _BATCHES))
        profiles = self.manifest.profiles[self.rows[indices]]
        return [indices[batch] for batch in profile_batches(profiles, clips_per_profile, max_sentences, rng)]


def _padded(clips: list[np.ndarray], n_frames: int) -> torch.Tensor:
    """(M, F_i) each → (B, M, F), zeros at the right."""
    batch = np.empty((len(clips), clips[0].shape[0], n_frames), np.float32)
    for padded, clip in zip(batch, clips, strict=True):
        padded[:, : clip.shape[1]] = clip
        padded[:, clip.shape[1] :] = 0.0
    return torch.from_numpy(batch)
