"""A prepared folder: its splits as data sets, for a training and for an evaluation. Letters: N clips, K classes."""

import math
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.config.data import FinetuningOptions
from fairseq_neupronet.data.augmentation import FrequencyWarp, Mixup, SpecAugment
from fairseq_neupronet.data.dataset import DatasetOptions, SpectrogramDataset, Treatment, kept_rows
from fairseq_neupronet.data.manifest import (
    Manifest,
    clip_keys,
    describe_training_data,
    read_classes,
    read_labels,
    read_manifest,
    read_recordings,
)
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.batches import BatchMates
from fairseq_neupronet.profiles.normalization import BandNormalization, BandStatistics, BandSums, statistics_of
from fairseq_neupronet.profiles.protocols import Protocol, group_clips, shuffled_profiles


def check_evaluation_options(options) -> None:
    """Refuse options of evaluation that cannot be used.

    Raises:
        InputError: naming the option.
    """
    Protocol.parse(options.protocol)
    if options.adaptive_batch_norm is not None and not 0 <= options.adaptive_batch_norm < math.inf:
        raise InputError(f"task.adaptive_batch_norm={options.adaptive_batch_norm}: give clips from 0 up")
    if options.shuffle_profiles is None and options.shuffle_profiles_among != FinetuningOptions.shuffle_profiles_among:
        raise InputError(
            f"task.shuffle_profiles_among={options.shuffle_profiles_among}: without task.shuffle_profiles "
            "nothing is shuffled; give it a seed, or leave this out"
        )


class PreparedFolder:
    """The splits of a prepared folder, as one model is trained or evaluated on them.

    A split whose name begins with ``train`` is trained on; others are evaluated.

    Args:
        folder: that holds the manifests.
        options: the fields of :class:`~fairseq_neupronet.config.data.DataOptions` as attributes; with
            labels those of :class:`~fairseq_neupronet.config.data.FinetuningOptions`.
        labelled: clips have labels, and evaluation has a protocol.
        kind: the class of the data sets.

    Attributes:
        trained_on: what the model's checkpoint knows of the data that it was trained on, see :meth:`restore`; None
            where training begins with this folder.

    Raises:
        InputError: no such folder.
    """

    def __init__(
        self, folder: str | Path, options, labelled: bool, kind: type[SpectrogramDataset] = SpectrogramDataset
    ):
        self.folder, self.options, self._labelled, self._kind = Path(folder), options, labelled, kind
        self.trained_on: dict | None = None
        self._band_sums: dict[str, BandSums] = {}
        if not self.folder.is_dir():
            raise InputError(f"task.data={folder}: no such folder; prepare the data or correct the path")

    # ---- what the model was or will be trained on ------------------------------------------------------------------

    @cached_property
    def train_manifest(self) -> Manifest:
        """The training split's manifest."""
        return self.manifest("train")

    @cached_property
    def data_classes(self) -> list[str]:
        """Class names of the folder's own dictionary."""
        return read_classes(self.folder / "dict.label.txt")

    @property
    def classes(self) -> list[str]:
        """The model's class names in index order: of the checkpoint, or of the folder when training begins."""
        return self.trained_on["classes"] if self.trained_on else self.data_classes

    @property
    def normal(self) -> int | None:
        """Index of the normal class; None where the model has no class of that name."""
        name = self.options.normal_class
        return self.classes.index(name) if name in self.classes else None

    @property
    def state(self) -> dict:
        """What a checkpoint has to know of the data that its model was trained on, in plain containers."""
        return self._here if self.trained_on is None else self.trained_on

    @cached_property
    def _here(self) -> dict:
        classes = self.data_classes if self._labelled else None
        return describe_training_data(self.train_manifest, self.options.max_sample_size, classes)

    def restore(self, state: dict) -> None:
        """Take over what a checkpoint knows; an official one, converted without its data, knows its mel bands only.

        Raises:
            InputError: the folder has classes that the model does not know.
        """
        state = {"fixed_frames": None, "recipe": None} | state
        if self._labelled:  # the official code believes the folder at hand
            state = {"classes": self.data_classes, "train_clips": [1] * len(self.data_classes)} | state
        self.trained_on = state
        unknown = [name for name in self.data_classes if name not in state["classes"]] if self._labelled else []
        if unknown:
            raise InputError(
                f"{self.folder / 'dict.label.txt'}: class {', '.join(unknown)} is unknown to the model, whose classes "
                f"are {', '.join(state['classes'])}; validate on data with these classes"
            )

    @cached_property
    def band_statistics(self) -> BandStatistics:
        """Of the training split: the checkpoint's where there is one, so that evaluation needs no training data.

        Raises:
            InputError: a checkpoint that was trained without them.
        """
        if self.trained_on is None:
            return self.band_sums(self.dataset("train")).overall()
        if "band_statistics" not in self.trained_on:
            raise InputError(
                "task.profile_normalize=true: the checkpoint was trained without it and does not know the training "
                "split's statistics; leave it out, or train a model with it"
            )
        return BandStatistics.from_dict(self.trained_on["band_statistics"])

    def band_sums(self, dataset: SpectrogramDataset) -> BandSums:
        """Of each clip of a split; read from its files once."""
        if dataset.subset not in self._band_sums:
            self._band_sums[dataset.subset] = dataset.band_sums()
        return self._band_sums[dataset.subset]

    @property
    def fixed_frames(self) -> int | None:
        """Frames that every clip is padded to; None where each batch has its own.

        Raises:
            InputError: fixed padding, and a checkpoint that does not know its longest training clip.
        """
        if str(self.options.padding) != "fixed":
            return None
        if self.state["fixed_frames"] is None:
            raise InputError(
                "task.padding=fixed: the checkpoint was converted without its data and does not know the longest "
                "training clip; set padding=batch, or convert it again with --data DIR"
            )
        return self.state["fixed_frames"]

    # ---- the files of a split --------------------------------------------------------------------------------------

    def manifest(self, split: str, shuffle: tuple[int, str] | None = None) -> Manifest:
        """A split's manifest, with profiles where they are needed, shuffled where that is asked for.

        Args:
            split: its name.
            shuffle: seed and clips, in place of ``shuffle_profiles`` and ``shuffle_profiles_among``.

        Raises:
            InputError: see :func:`~fairseq_neupronet.data.manifest.read_manifest`; a seed below 0, or no profiles.
        """
        options = self.options
        needs_profiles = options.profiling or options.profile_normalize or self._adaptive is not None
        manifest = read_manifest(self.folder / f"{split}.tsv", needs_profiles)
        if not self._labelled:
            return manifest
        seed, among = shuffle or (options.shuffle_profiles, options.shuffle_profiles_among)
        if seed is None:
            return manifest
        if seed < 0:
            raise InputError(f"task.shuffle_profiles={seed}: a seed is 0 or more")
        if manifest.profiles is None:
            raise InputError(f"task.shuffle_profiles={seed}: {manifest.path} has no profiles; set task.profiling=True")
        classes = None
        if among == "clips_of_a_class":
            classes = read_labels(manifest, self.data_classes, self.data_classes)
        shuffled = shuffled_profiles(manifest.profiles, seed, split, classes)
        return replace(manifest, profiles=shuffled, own_profiles=manifest.profiles)

    @property
    def _adaptive(self) -> float | None:
        return self.options.adaptive_batch_norm if self._labelled else None

    def _check_manifest(self, manifest: Manifest) -> None:
        """Compare a split with the data that the model was or will be trained on."""
        expected = self.state
        if manifest.n_mels != expected["n_mels"]:
            raise InputError(
                f"{manifest.path}: {manifest.n_mels} mel bands, the model has {expected['n_mels']}; "
                "prepare this data with the model's recipe"
            )
        recipe = FeatureRecipe.read(manifest.root)
        trained = expected["recipe"] and FeatureRecipe.from_dict(expected["recipe"])
        if recipe and trained and recipe != trained:
            raise InputError(
                f"{manifest.path}: features of recipe {recipe.describe()}; the model was trained on "
                f"{trained.describe()}; prepare this data with that recipe"
            )

    def targets(self, manifest: Manifest) -> np.ndarray:
        """(N,) class indices of a split.

        Raises:
            InputError: see :func:`~fairseq_neupronet.data.manifest.read_labels`; a class that was not trained on.
        """
        targets = read_labels(manifest, self.data_classes, self.classes)
        trained = np.array(self.state["train_clips"])
        untrained = np.flatnonzero(trained[targets] == 0)
        if len(untrained):
            where = f"{manifest.path.with_suffix('.label')}:{untrained[0] + 1}"
            raise InputError(
                f"{where}: class {self.classes[targets[untrained[0]]]!r} has no clip in the training split "
                f"({len(untrained)} clips here have such a class); leave the class out or train on it"
            )
        return targets

    # ---- data sets -------------------------------------------------------------------------------------------------

    def dataset(
        self,
        split: str,
        protocol: Protocol | None = None,
        shuffle: tuple[int, str] | None = None,
        warp: FrequencyWarp | None = None,
    ) -> SpectrogramDataset:
        """The clips of a split, as training or evaluation receives them.

        Args:
            split: its name.
            protocol: of evaluation; None: that of the options, ``full`` without labels.
            shuffle: see :meth:`manifest`.
            warp: of training.

        Raises:
            InputError: files that cannot be used, or that do not fit what the model was trained on.
        """
        options, training = self.options, split.startswith("train")
        manifest = self.train_manifest if split == "train" else self.manifest(split, shuffle)
        self._check_manifest(manifest)
        targets = self.targets(manifest) if self._labelled else None
        dataset_options = DatasetOptions(
            training=training,
            seed=options.seed,
            profiling=options.profiling,
            fixed_frames=self.fixed_frames,
            max_sample_size=options.max_sample_size,
            min_sample_size=options.min_sample_size,
            normalize=options.normalize,
            warp=warp,
            augment=SpecAugment(options.frequency_mask, options.time_mask, options.time_roll)
            if options.specaug
            else None,
            mixup=None if options.mixup is None else Mixup(options.mixup),
            clips_per_profile=options.clips_per_profile if options.profile_batches else None,
            profile_normalization=self._statistics_of if options.profile_normalize else None,
        )
        treatment = Treatment() if training else self._treatment(manifest, protocol)
        return self._kind(manifest, targets, split, dataset_options, treatment)

    def _statistics_of(self, dataset: SpectrogramDataset):
        """What gives a data set's items the statistics of their profiles; its cost is paid at the set's first use."""
        normalization = BandNormalization(self.band_statistics, self.options.profile_normalize_prior)
        draws = str(self.options.profile_normalize_clips) == "random"
        return statistics_of(dataset, self.band_sums(dataset), normalization, draws)

    def _treatment(self, manifest: Manifest, protocol: Protocol | None) -> Treatment:
        options, adapts = self.options, self._adaptive is not None
        rows = kept_rows(manifest, options.min_sample_size)
        protocol = protocol or Protocol.parse(options.protocol if self._labelled else "full")
        profiles = None if manifest.profiles is None else manifest.profiles[rows]
        if protocol.kind == "batch" or profiles is None:
            number = protocol.number if protocol.kind == "batch" else None
            return Treatment(batch_clips=number, together=BatchMates.of_batches(profiles) if adapts else None)
        keys = recording = None
        if protocol.kind == "enrol":
            keys, recording = clip_keys(manifest, rows), read_recordings(manifest)
            recording = None if recording is None else recording[rows]
        seed = options.protocol_seed if self._labelled else 1
        grouping = group_clips(protocol, profiles, keys=keys, seed=seed, recording=recording)
        pairs = grouping.enrolment
        if pairs is not None and (adapts or (options.profiling and options.profile_normalize)):
            return Treatment(grouping.paired(), None, pairs, BatchMates.of_lists(pairs) if adapts else None)
        together = BatchMates.of_partition(grouping.codes, lambda: clip_keys(manifest, rows)) if adapts else None
        return Treatment(grouping, together=together)
