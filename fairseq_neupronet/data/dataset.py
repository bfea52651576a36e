"""The fairseq dataset: manifest rows to padded batches. Letters: B clips, M mel bands, F frames."""

import copy
import logging

import numpy as np
import torch
from fairseq.data import FairseqDataset

from fairseq_neupronet.data.augmentation import SpecAugment
from fairseq_neupronet.data.clip_files import ClipFiles
from fairseq_neupronet.data.frequency_warp import FrequencyWarp
from fairseq_neupronet.data.length_batches import batches_by_length
from fairseq_neupronet.data.manifest import Manifest
from fairseq_neupronet.data.mixup import Mixup
from fairseq_neupronet.data.spectrogram import crop, normalize
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.band_statistics import BandSums
from fairseq_neupronet.profiles.batches import profile_batches
from fairseq_neupronet.profiles.draws import uniforms
from fairseq_neupronet.profiles.enrolment import Enrolment
from fairseq_neupronet.profiles.groups import Grouping
from fairseq_neupronet.profiles.normalization import ProfileNormalization
from fairseq_neupronet.profiles.whole_groups import WholeGroups

logger = logging.getLogger(__name__)

_CROP = 0
_AUGMENT = slice(_CROP + 1, _CROP + 1 + SpecAugment.DRAWS)
_MIX = slice(_AUGMENT.stop, _AUGMENT.stop + Mixup.DRAWS)
_WARP = slice(_MIX.stop, _MIX.stop + FrequencyWarp.DRAWS)  # new draws go to the end: those before stay what they were
_DRAWS = _WARP.stop
_BATCHES = 1  # the generator that deals clips to profile batches


class SpectrogramDataset(FairseqDataset):
    """The clips of one split. An item is read, cut and normalised alone; a batch is padded and augmented at once.

    Args:
        manifest: the split's manifest.
        targets: (N,) class indices, or None.
        subset: the split's name; batches carry it.
        training: random crops, augmentation and a new order each epoch; otherwise longest clip first and repeatable.
        seed: of crops, augmentation and order; what an epoch draws for a clip depends on (seed, epoch, clip) only.
        profiling: batches carry the profile codes.
        fixed_frames: pad or cut every clip to this length, so that a clip's result does not depend on the clips that
            share its batch; None pads to the longest of the batch, as the official implementation.
        max_sample_size, min_sample_size: frames; longer clips are cut, shorter ones are left out.
        normalize: zero mean and unit variance per clip.
        warp, augment, mixup: applied in training, one after the other.
        clips_per_profile: batches of profile chunks of this size, as many as the batch size holds; None batches by
            length.
        profile_normalization: zero mean and unit variance of each mel band over the clips of a profile.

    Attributes:
        grouping: the groups that evaluation hears clips in; None: by batch.
        batch_clips: clips of a batch of evaluation, whatever is asked for; None: what is asked for.
        pairs: the lists whose members the items are, where :meth:`paired` made them.
        together: the groups of evaluation, whole in a batch where there is a grouping; a batch says which they are.

    Raises:
        InputError: no clip is long enough, or profile batches without profiles.
    """

    # Workers see the epoch that the iterator was made in, and profile batches are drawn anew (fairseq keeps both).
    can_reuse_epoch_itr_across_epochs = False

    def __init__(
        self,
        manifest: Manifest,
        targets: np.ndarray | None,
        subset: str,
        *,
        training: bool,
        seed: int,
        profiling: bool = True,
        fixed_frames: int | None = None,
        max_sample_size: int | None = None,
        min_sample_size: int | None = None,
        normalize: bool = False,
        warp: FrequencyWarp | None = None,
        augment: SpecAugment | None = None,
        mixup: Mixup | None = None,
        clips_per_profile: int | None = None,
        profile_normalization: ProfileNormalization | None = None,
    ):
        super().__init__()
        self.manifest, self.targets, self.subset = manifest, targets, subset
        self.training, self.seed, self.epoch = training, seed, 1
        self.profiling = profiling and manifest.profiles is not None
        self.fixed_frames, self.max_sample_size = fixed_frames, max_sample_size
        self.normalize = normalize
        self.warp, self.augment, self.mixup = (warp, augment, mixup) if training else (None, None, None)
        self.clips_per_profile = clips_per_profile
        self.profile_normalization, self._statistics = profile_normalization, None
        self.grouping: Grouping | None = None
        self.batch_clips: int | None = None
        self.pairs: Enrolment | None = None
        self.together: WholeGroups | None = None
        self.rows = np.flatnonzero(manifest.frames >= (min_sample_size or 0))
        frames = manifest.frames[self.rows]
        limits = (fixed_frames, max_sample_size, np.iinfo(np.int64).max)
        self._longest = min(limit for limit in limits if limit is not None)
        self.sizes = np.minimum(frames, self._longest)
        n_cut = int((frames > self._longest).sum())
        self._draws_crops = training and n_cut > 0
        self._files = ClipFiles(manifest.root)
        self._report_lengths(min_sample_size, n_cut)
        if clips_per_profile is not None and manifest.profiles is None:
            raise InputError(f"{manifest.path}: task.profile_batches needs the profile column (the fourth)")

    def _report_lengths(self, min_sample_size: int | None, n_cut: int) -> None:
        skipped = len(self.manifest) - len(self.rows)
        if not len(self.rows):
            raise InputError(
                f"{self.manifest.path}: no clip has the {min_sample_size} frames of task.min_sample_size; lower it"
            )
        if skipped:
            logger.info(f"{self.subset}: {skipped} clips under {min_sample_size} frames are left out, labels included")
        if n_cut:
            logger.info(f"{self.subset}: {n_cut} clips are cut to {self._longest} frames")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def profiles(self) -> np.ndarray:
        """(N,) profile codes of the items."""
        return self.manifest.profiles[self.rows]

    def for_evaluation(self) -> "SpectrogramDataset":
        """The same items as evaluation has them: cut at their start, not augmented, batched by length."""
        self.prepare()
        twin = copy.copy(self)
        twin.training, twin.warp, twin.augment, twin.mixup = False, None, None, None
        twin._draws_crops, twin.clips_per_profile = False, None
        if self._statistics is not None:
            twin._statistics = self._statistics.for_evaluation()
        return twin

    def paired(self) -> "SpectrogramDataset":
        """Every clip in every group that has it: the items are the members of the grouping's lists."""
        twin = copy.copy(self)
        twin.pairs, twin.grouping = self.grouping.enrolment, self.grouping.paired()
        twin.rows, twin.sizes = self.rows[twin.pairs.members], self.sizes[twin.pairs.members]
        return twin

    def band_sums(self) -> BandSums:
        """Sums over the frames of each clip, as evaluation hears it before any profile normalisation."""
        rows = self.rows if self.pairs is None else self.rows[self.pairs.offsets[:-1]]
        spectrograms = (self._read(row, 0.0).numpy() for row in rows.tolist())
        return BandSums.of_clips(spectrograms, len(rows), self.manifest.n_mels)

    def prepare(self) -> None:
        """Compute what the items take from other clips; before workers start, each of which would do it again."""
        if self.profile_normalization is not None and self._statistics is None:
            self._statistics = self.profile_normalization.statistics_of(self)
            self.profile_normalization = None

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def size(self, index: int) -> int:
        return int(self.sizes[index])

    num_tokens = size

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        return self.sizes[indices]

    def __getitem__(self, index: int) -> dict:
        """``id`` and ``source`` (M, F) float32, before augmentation."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict]:
        """Several items; torch's loader asks for a whole batch."""
        rows = self.rows[indices]
        places = self._draws(rows)[:, _CROP] if self._draws_crops else np.zeros(len(rows))
        return [
            {"id": index, "source": self._read(row, place)}
            for index, row, place in zip(indices, rows.tolist(), places.tolist(), strict=True)
        ]

    def _draws(self, rows: np.ndarray) -> np.ndarray:
        return uniforms(self.seed, self.epoch, rows, _DRAWS)

    def _read(self, row: int, place: float) -> torch.Tensor:
        manifest = self.manifest
        spectrogram = self._files.read(
            manifest.clips[row], manifest.n_mels, int(manifest.frames[row]), manifest.line_of(row)
        )
        spectrogram = crop(spectrogram, self._longest, place)
        if self.normalize:
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
        n_frames = self.fixed_frames or int(lengths.max())
        source = _padded(self._normalized([sample["source"].numpy() for sample in samples], ids), n_frames)
        draws = self._draws(rows) if self.training else None
        if self.warp is not None:
            source = self.warp(source, draws[:, _WARP])
        if self.augment is not None:
            source = self.augment(source, lengths, draws[:, _AUGMENT])
        mixed = None
        if self.mixup is not None:
            source, partner, share = self.mixup(source, draws[:, _MIX])
            mixed = {"partner": partner, "share": share}
        padding_mask = torch.from_numpy(np.arange(n_frames) >= lengths[:, None])
        net_input = {"source": source, "padding_mask": padding_mask, "frames": lengths}
        if self.profiling:
            net_input["profile"] = torch.from_numpy(self.manifest.profiles[rows])
        batch = {"id": torch.from_numpy(ids), "subset": self.subset, "net_input": net_input}
        if self.targets is not None:
            batch["target"] = torch.from_numpy(self.targets[rows])
        if mixed is not None:
            batch["mixed"] = mixed
        if self.together is not None:
            batch["together"] = self.together.of_batch(ids)
        return batch

    def _normalized(self, clips: list[np.ndarray], ids: np.ndarray) -> list[np.ndarray]:
        self.prepare()
        if self._statistics is None:
            return clips
        statistics = self._statistics(ids, self.epoch)
        mean, deviation = (array.astype(np.float32)[:, :, None] for array in vars(statistics).values())
        return [(clip - mean[place]) / deviation[place] for place, clip in enumerate(clips)]

    def ordered_indices(self) -> np.ndarray:
        """Longest first; clips of one length in the epoch's random order in training, in manifest order otherwise."""
        ties = np.arange(len(self))
        if self.training:
            ties = np.random.default_rng((self.seed, self.epoch)).permutation(ties)
        return np.lexsort((ties, -self.sizes))

    def batch_by_size(self, indices, max_tokens=None, max_sentences=None, required_batch_size_multiple=1):
        """Batches of exactly ``max_sentences`` clips but for the last, or of at most ``max_tokens`` padded frames.

        fairseq's own batching loses the clips of a last batch that is no multiple of ``required_batch_size_multiple``
        (4 of 3,580 at its default of 8), so that argument is not heeded.
        """
        lengths = np.full(len(indices), self.fixed_frames) if self.fixed_frames else self.sizes[indices]
        if self.batch_clips is not None:
            return batches_by_length(indices, lengths, None, self.batch_clips)
        if self.together is not None and self.grouping is not None:
            return self.together.batches(indices, lengths, max_tokens, max_sentences)
        if self.clips_per_profile is None:
            return batches_by_length(indices, lengths, max_tokens, max_sentences)
        if max_sentences is None:
            raise InputError("task.profile_batches needs dataset.batch_size; dataset.max_tokens does not size them")
        profiles_per_batch = max_sentences // self.clips_per_profile
        if profiles_per_batch == 0:
            raise InputError(
                f"task.clips_per_profile={self.clips_per_profile}: so many clips of a profile do not fit "
                f"dataset.batch_size={max_sentences}; lower it, or raise dataset.batch_size"
            )
        # Not the generator of ordered_indices: of clips of one length it would undo that order, clip by clip.
        rng = np.random.default_rng((self.seed, self.epoch, _BATCHES))
        profiles = self.manifest.profiles[self.rows[indices]]
        return [indices[batch] for batch in profile_batches(profiles, self.clips_per_profile, profiles_per_batch, rng)]


def _padded(clips: list[np.ndarray], n_frames: int) -> torch.Tensor:
    """(M, F_i) each → (B, M, F), zeros at the right."""
    batch = np.empty((len(clips), clips[0].shape[0], n_frames), np.float32)
    for padded, clip in zip(batch, clips, strict=True):
        padded[:, : clip.shape[1]] = clip
        padded[:, clip.shape[1] :] = 0.0
    return torch.from_numpy(batch)
