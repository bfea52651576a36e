"""fairseq task ``spectrogram_pretraining``: spectrogram datasets, without labels."""

import logging
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from fairseq.data import FairseqDataset
from fairseq.tasks import FairseqTask, register_task
from omegaconf import OmegaConf, open_dict

from fairseq_neupronet.audio.features import band_centres
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.data.augmentation import FrequencyWarp
from fairseq_neupronet.data.dataset import SpectrogramDataset
from fairseq_neupronet.data.prepared import PreparedFolder
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.outputs import Evaluation
from fairseq_neupronet.models.fairseq_configs import SpectrogramTaskConfig
from fairseq_neupronet.trainer.memory import FreedMemory
from fairseq_neupronet.trainer.non_finite import RunningUpdate
from fairseq_neupronet.trainer.processes import draws_of_batch, process_number, share_buffers
from fairseq_neupronet.trainer.stopping import early_stopping_state, restore_early_stopping

logger = logging.getLogger(__name__)


class FairseqSpectrogramDataset(SpectrogramDataset, FairseqDataset):
    """A data set as fairseq's trainer and iterators want it."""

    # Workers see the epoch that the iterator was made in, and profile batches are drawn anew (fairseq keeps both).
    can_reuse_epoch_itr_across_epochs = False

    def size(self, index: int) -> int:
        return int(self.sizes[index])

    num_tokens = size

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        return self.sizes[indices]


@register_task("spectrogram_pretraining", dataclass=SpectrogramTaskConfig)
class SpectrogramPretrainingTask(FairseqTask):
    """Loads the datasets of a prepared folder; a split whose name begins with ``train`` is trained on.

    What the data is (recipe, mel bands, padded length) travels in the checkpoint as task state.
    """

    labelled = False

    def __init__(self, cfg: SpectrogramTaskConfig):
        super().__init__(cfg)
        _check_options(cfg)
        self.update, self._freed_memory = RunningUpdate(), FreedMemory()
        self._validated_subset = ""
        self.validations: dict[str, tuple[dict, Evaluation | None]] = {}  # since the log was written last
        # Our iterators serve one epoch. Workers that outlive it, fairseq's default, are ended by the garbage
        # collector, which closes their queues before they are told: 5 seconds lost for each, every epoch.
        with open_dict(cfg):
            cfg.persistent_workers = False

    @classmethod
    def setup_task(cls, cfg: SpectrogramTaskConfig, **kwargs):
        return cls(cfg)

    @cached_property
    def prepared(self) -> PreparedFolder:
        """The data folder.

        Raises:
            InputError: none given, or no such folder.
        """
        if OmegaConf.is_missing(self.cfg, "data"):
            raise InputError("task.data is not set; give the folder that `neupronet prepare` wrote")
        return PreparedFolder(self.cfg.data, self.cfg, self.labelled, FairseqSpectrogramDataset)

    def state_dict(self) -> dict:
        state = self.prepared.state
        if not self.cfg.profile_normalize:
            return state
        return state | {"band_statistics": self.prepared.band_statistics.to_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        self.prepared.restore(state_dict)

    def get_checkpoint_dict(self) -> dict:
        """What fairseq stores for a task beside the model, as it wants it."""
        return {type(self).__name__: {"early_stopping": early_stopping_state()}}

    def set_checkpoint_dict(self, state: dict) -> None:
        restore_early_stopping(state["early_stopping"])

    def load_dataset(self, split: str, combine: bool = False, task_cfg=None, **kwargs) -> None:
        warps = self.cfg.frequency_warp is not None and split.startswith("train")
        self.datasets[split] = self.prepared.dataset(split, warp=self._frequency_warp() if warps else None)

    def _frequency_warp(self) -> FrequencyWarp:
        recipe = self.prepared.state["recipe"]
        if recipe is None:
            raise InputError(
                f"task.frequency_warp={self.cfg.frequency_warp}: {self.prepared.train_manifest.root} has no "
                "recipe.yaml, so that the frequencies of its mel bands are unknown; prepare the data with `neupronet "
                "prepare`, or leave it unset"
            )
        return FrequencyWarp(self.cfg.frequency_warp, band_centres(FeatureRecipe.from_dict(recipe)))

    def get_batch_iterator(self, dataset, *arguments, **options):
        dataset.prepare()
        self._validated_subset = dataset.subset
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
            found, source = self.prepared.state["n_mels"], self.prepared.train_manifest.path
            cfg.n_mels = _agree(cfg.get("n_mels"), found, "n_mels", source)

    def begin_epoch(self, epoch: int, model) -> None:
        super().begin_epoch(epoch, model)
        self._freed_memory.return_at_times()

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if ignore_grad and "profile" in sample["net_input"]:
            # A batch that fairseq gives to a worker without one, and that must not count: nobody may pool over it.
            of_nobody = -1 - torch.arange(len(sample["id"]), device=sample["net_input"]["profile"].device)
            sample = sample | {"net_input": sample["net_input"] | {"profile": of_nobody}}
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
        self.validations[self._validated_subset] = dict(stats), self.validated_clips()

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


def _check_options(cfg: SpectrogramTaskConfig) -> None:
    """Refuse numbers that leave nothing to train on.

    Raises:
        InputError: naming the option.
    """
    if not 0 <= cfg.profile_normalize_prior < float("inf"):
        raise InputError(f"task.profile_normalize_prior={cfg.profile_normalize_prior}: give frames from 0 up")
    if cfg.max_sample_size is not None and cfg.max_sample_size < 1:
        raise InputError(f"task.max_sample_size={cfg.max_sample_size}: give frames from 1 up, or leave it unset")
    if cfg.profile_batches and cfg.clips_per_profile < 1:
        raise InputError(f"task.clips_per_profile={cfg.clips_per_profile}: give clips from 1 up")
