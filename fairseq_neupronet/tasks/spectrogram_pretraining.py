"""fairseq task ``spectrogram_pretraining``: spectrogram datasets, without labels."""

import logging
from functools import cached_property
from pathlib import Path

import torch
from fairseq.tasks import FairseqTask, register_task
from omegaconf import OmegaConf, open_dict

from fairseq_neupronet.audio.features import band_centres
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.data.augmentation import SpecAugment
from fairseq_neupronet.data.dataset import SpectrogramDataset
from fairseq_neupronet.data.frequency_warp import FrequencyWarp
from fairseq_neupronet.data.labels import describe_training_data
from fairseq_neupronet.data.manifest import Manifest, read_manifest
from fairseq_neupronet.data.mixup import Mixup
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.outputs import Evaluation
from fairseq_neupronet.profiles.band_statistics import BandStatistics, BandSums
from fairseq_neupronet.profiles.groups import Grouping
from fairseq_neupronet.profiles.normalization import ProfileNormalization
from fairseq_neupronet.tasks.task_config import SpectrogramTaskConfig, check_task_config
from fairseq_neupronet.trainer.memory import FreedMemory
from fairseq_neupronet.trainer.non_finite import RunningUpdate
from fairseq_neupronet.trainer.patches import early_stopping_state, restore_early_stopping
from fairseq_neupronet.trainer.processes import process_number, share_buffers
from fairseq_neupronet.trainer.randomness import draws_of_batch

logger = logging.getLogger(__name__)


@register_task("spectrogram_pretraining", dataclass=SpectrogramTaskConfig)
class SpectrogramPretrainingTask(FairseqTask):
    """Loads the datasets of a prepared folder; a split whose name begins with ``train`` is trained on.

    What the data is (recipe, mel bands, padded length) travels in the checkpoint as task state.
    """

    def __init__(self, cfg: SpectrogramTaskConfig):
        super().__init__(cfg)
        check_task_config(cfg)
        self.trained_on: dict | None = None
        self.update, self._freed_memory = RunningUpdate(), FreedMemory()
        self._band_sums: dict[str, BandSums] = {}
        self._heard_subset = ""
        self.validations: dict[str, tuple[dict, Evaluation | None]] = {}  # since the log was written last
        # Our iterators serve one epoch. Workers that outlive it, fairseq's default, are ended by the garbage
        # collector, which closes their queues before they are told: 5 seconds lost for each, every epoch.
        with open_dict(cfg):
            cfg.persistent_workers = False

    @classmethod
    def setup_task(cls, cfg: SpectrogramTaskConfig, **kwargs):
        return cls(cfg)

    @cached_property
    def folder(self) -> Path:
        """The data folder.

        Raises:
            InputError: none given, or no such folder.
        """
        if OmegaConf.is_missing(self.cfg, "data"):
            raise InputError("task.data is not set; give the folder that `neupronet prepare` wrote")
        folder = Path(self.cfg.data)
        if not folder.is_dir():
            raise InputError(f"task.data={self.cfg.data}: no such folder; prepare the data or correct the path")
        return folder

    @cached_property
    def train_manifest(self) -> Manifest:
        """The training split's manifest."""
        return self.read_manifest("train")

    @property
    def needs_profiles(self) -> bool:
        """Whether anything asks for the profiles of the manifests."""
        return self.cfg.profiling or self.cfg.profile_normalize

    def read_manifest(self, split: str) -> Manifest:
        """A split's manifest, with profiles where they are needed."""
        return read_manifest(self.folder / f"{split}.tsv", self.needs_profiles)

    @property
    def data_state(self) -> dict:
        """What a checkpoint has to know of the data it was trained on, in plain containers."""
        return self._data_here if self.trained_on is None else self.trained_on

    @cached_property
    def _data_here(self) -> dict:
        return self.describe_data()

    def describe_data(self) -> dict:
        """The data state of this folder's training split, read from its files."""
        return describe_training_data(self.train_manifest, self.cfg.max_sample_size)

    @cached_property
    def band_statistics(self) -> BandStatistics:
        """Of the training split: the checkpoint's where there is one, so that evaluation needs no training data.

        Raises:
            InputError: a checkpoint that was trained without them.
        """
        if self.trained_on is None:
            return self.band_sums(self.build_dataset("train")).overall()
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

    def state_dict(self) -> dict:
        if not self.cfg.profile_normalize:
            return self.data_state
        return self.data_state | {"band_statistics": self.band_statistics.to_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        # An official checkpoint, converted without its data, knows its mel bands only.
        self.trained_on = {"fixed_frames": None, "recipe": None} | state_dict

    def get_checkpoint_dict(self) -> dict:
        """What fairseq stores for a task beside the model, as it wants it."""
        return {type(self).__name__: {"early_stopping": early_stopping_state()}}

    def set_checkpoint_dict(self, state: dict) -> None:
        restore_early_stopping(state["early_stopping"])

    @property
    def fixed_frames(self) -> int | None:
        """Frames that every clip is padded to; None where each batch has its own.

        Raises:
            InputError: fixed padding, and a checkpoint that does not know its longest training clip.
        """
        if str(self.cfg.padding) != "fixed":
            return None
        if self.data_state["fixed_frames"] is None:
            raise InputError(
                "task.padding=fixed: the checkpoint was converted without its data and does not know the longest "
                "training clip; set padding=batch, or convert it again with --data DIR"
            )
        return self.data_state["fixed_frames"]

    def check_manifest(self, manifest: Manifest) -> None:
        """Compare a split with the data that the model was or will be trained on.

        Raises:
            InputError: another mel count or another recipe.
        """
        expected = self.data_state
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

    def read_targets(self, split: str, manifest: Manifest):
        """(N,) class indices, or None; overridden where there are labels."""
        return None

    def load_dataset(self, split: str, combine: bool = False, task_cfg=None, **kwargs) -> None:
        self.datasets[split] = self.build_dataset(split)

    def build_dataset(self, split: str) -> SpectrogramDataset:
        """The clips of a split, as training or evaluation hears them."""
        cfg = self.cfg
        training = split.startswith("train")
        manifest = self.train_manifest if split == "train" else self.read_manifest(split)
        self.check_manifest(manifest)
        normalization = None
        if cfg.profile_normalize:
            normalization = ProfileNormalization(
                self.band_sums,
                lambda: self.band_statistics,
                cfg.profile_normalize_prior,
                str(cfg.profile_normalize_clips) == "random",
            )
        dataset = SpectrogramDataset(
            manifest,
            self.read_targets(split, manifest),
            split,
            training=training,
            seed=cfg.seed,
            profiling=cfg.profiling,
            fixed_frames=self.fixed_frames,
            max_sample_size=cfg.max_sample_size,
            min_sample_size=cfg.min_sample_size,
            normalize=cfg.normalize,
            warp=self._frequency_warp() if training and cfg.frequency_warp is not None else None,
            augment=SpecAugment(cfg.frequency_mask, cfg.time_mask, cfg.time_roll) if cfg.specaug else None,
            mixup=None if cfg.mixup is None else Mixup(cfg.mixup),
            clips_per_profile=cfg.clips_per_profile if training and cfg.profile_batches else None,
            profile_normalization=normalization,
        )
        if not training:
            self.group(dataset)
        return dataset

    def _frequency_warp(self) -> FrequencyWarp:
        recipe = self.data_state["recipe"]
        if recipe is None:
            raise InputError(
                f"task.frequency_warp={self.cfg.frequency_warp}: {self.train_manifest.root} has no recipe.yaml, so "
                "that the frequencies of its mel bands are unknown; prepare the data with `neupronet prepare`, or "
                "leave it unset"
            )
        return FrequencyWarp(self.cfg.frequency_warp, band_centres(FeatureRecipe.from_dict(recipe)))

    def group(self, dataset: SpectrogramDataset) -> None:
        """Set the groups that evaluation hears clips in: all clips of the profile."""
        if dataset.manifest.profiles is not None:
            dataset.grouping = Grouping.partition(dataset.profiles)

    def get_batch_iterator(self, dataset, *arguments, **options):
        dataset.prepare()
        self._heard_subset = dataset.subset
        return super().get_batch_iterator(dataset, *arguments, **options)

    def build_model(self, cfg, from_checkpoint: bool = False):
        if not from_checkpoint:
            self.complete_model_config(cfg)
        model = super().build_model(cfg, from_checkpoint)
        model.bfloat16 = self.cfg.bfloat16
        return model

    def complete_model_config(self, cfg) -> None:
        """Write into the model's config what the data decides, so that the checkpoint stands alone.

        Raises:
            InputError: the config names another mel count than the data has.
        """
        with open_dict(cfg):
            cfg.n_mels = _agree(cfg.get("n_mels"), self.data_state["n_mels"], "n_mels", self.train_manifest.path)

    def begin_epoch(self, epoch: int, model) -> None:
        super().begin_epoch(epoch, model)
        self._freed_memory.return_at_times()

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if ignore_grad and "profile" in sample["net_input"]:
            # A batch that fairseq gives to a worker without one, and that must not count: nobody may pool over it.
            strangers = -1 - torch.arange(len(sample["id"]), device=sample["net_input"]["profile"].device)
            sample = sample | {"net_input": sample["net_input"] | {"profile": strangers}}
        with draws_of_batch(process_number()):
            loss, size, log = super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
        if not ignore_grad:
            self.update.add(update_num, sample, loss)
        return loss, size, log

    def begin_valid_epoch(self, epoch, model) -> None:
        """All processes evaluate the model that is saved: running statistics are each process's own in training."""
        super().begin_valid_epoch(epoch, model)
        share_buffers(model)

    def valid_step(self, sample, model, criterion):
        # fairseq-validate gives an empty batch to a worker that has one less than others.
        return super().valid_step(sample, model, criterion) if sample else (0.0, 0, {})

    def post_validate(self, model, stats: dict, agg) -> None:
        """Of fairseq's training, when it has validated a subset: what the training's log takes up."""
        self.validations[self._heard_subset] = dict(stats), self.validated_clips()

    def validated_clips(self) -> Evaluation | None:
        """What the last validation said of each clip; None where clips have no labels."""
        return None

    def reduce_metrics(self, logging_outputs: list[dict], criterion) -> None:
        super().reduce_metrics([log for log in logging_outputs if log], criterion)

    def max_positions(self):
        """No limit: clips are cut to max_sample_size."""
        return None


def _agree(configured: int | None, found: int, name: str, source: Path) -> int:
    if configured is not None and configured != found:
        raise InputError(f"model.{name}={configured}, but {source} has {found}; leave model.{name} out")
    return found
