"""fairseq task ``spectrogram_finetuning``: labelled spectrograms, evaluated under a named protocol."""

import logging
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Optional  # fairseq's argument parser reads these forms only

import numpy as np
import torch
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task
from omegaconf import open_dict

from fairseq_neupronet.backbones.wav2vec2.network import ARCHITECTURE_FIELDS
from fairseq_neupronet.checkpoints.start_weights import StartWeights
from fairseq_neupronet.data.dataset import SpectrogramDataset
from fairseq_neupronet.data.labels import describe_training_data, read_classes, read_labels, read_recordings
from fairseq_neupronet.data.manifest import Manifest
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.metrics import metric_names
from fairseq_neupronet.networks.adaptive_batch_norm import adapted_to_groups, has_batch_norm
from fairseq_neupronet.networks.profile_bank import embed_split
from fairseq_neupronet.profiles.enrolment import clip_keys
from fairseq_neupronet.profiles.protocols import Protocol, group_clips
from fairseq_neupronet.profiles.shuffling import AMONG, shuffled_profiles
from fairseq_neupronet.profiles.whole_groups import WholeGroups
from fairseq_neupronet.tasks.spectrogram_pretraining import SpectrogramPretrainingTask, SpectrogramTaskConfig, _agree
from fairseq_neupronet.tasks.subset_evaluation import SubsetEvaluation

logger = logging.getLogger(__name__)
# Networks of our pretraining, whose sizes are those of the checkpoint that they start from.
_STARTS_FROM = (
    ("transformer", "backbone_path"),
    ("profile_extractor", "profile_extractor_path"),
)


@dataclass
class SpectrogramFinetuningConfig(SpectrogramTaskConfig):
    protocol: str = field(
        default="full",
        metadata={
            "help": "how clips are grouped in evaluation: single, each alone; batch, by the batch they happen to "
            "be in; batch-N, the same in batches of N, longest clips first, as the official code; full, with all "
            "clips of the profile in the split; enrol-N, with N others of them"
        },
    )
    protocol_seed: int = field(default=1, metadata={"help": "enrol-N: of the draw of the other clips"})
    normal_class: str = field(
        default="normal",
        metadata={
            "help": "the class that sensitivity, specificity and icbhi_score are relative to; without a class of "
            "that name they are left out"
        },
    )
    shuffle_profiles: Optional[int] = field(
        default=None,
        metadata={
            "help": "a seed that permutes the profiles among the clips of each split: groups of the same sizes, "
            "of the wrong clips; a control"
        },
    )
    shuffle_profiles_among: ChoiceEnum(AMONG) = field(
        default="all_clips",
        metadata={
            "help": "shuffle_profiles: among all_clips, or among the clips_of_a_class, so that every group keeps "
            "its composition, as many clips of each class, and loses only its sound"
        },
    )
    adaptive_batch_norm: Optional[float] = field(
        default=None,
        metadata={
            "help": "evaluation: each clip is batch-normalised by the statistics of its group, or under enrol-N "
            "of the N others, weighed against those of the training as if that gave so many clips; 30 is a good "
            "number, unset: those of the training alone"
        },
    )
    results_path: Optional[str] = field(
        default=None, metadata={"help": "evaluation writes predictions.tsv and metrics.json into this folder"}
    )
    path: Optional[str] = field(default=None, metadata={"help": "the checkpoint under validation; fairseq sets it"})


@register_task("spectrogram_finetuning", dataclass=SpectrogramFinetuningConfig)
class SpectrogramFinetuningTask(SpectrogramPretrainingTask):
    """Labels, model start-up weights, and metrics over all clips of an epoch."""

    def __init__(self, cfg: SpectrogramFinetuningConfig):
        super().__init__(cfg)
        Protocol.parse(cfg.protocol)
        if cfg.adaptive_batch_norm is not None and not 0 <= cfg.adaptive_batch_norm < math.inf:
            raise InputError(f"task.adaptive_batch_norm={cfg.adaptive_batch_norm}: give clips from 0 up")
        if cfg.shuffle_profiles is None and cfg.shuffle_profiles_among != AMONG[0]:
            raise InputError(
                f"task.shuffle_profiles_among={cfg.shuffle_profiles_among}: without task.shuffle_profiles "
                "nothing is shuffled; give it a seed, or leave this out"
            )
        self.evaluation = SubsetEvaluation(self)
        self._valid_steps = 0
        self._training_batches: tuple[SpectrogramDataset, tuple, dict] | None = None

    # ---- data ------------------------------------------------------------------------------------------------

    @cached_property
    def data_classes(self) -> list[str]:
        """Class names of the data folder's own dictionary."""
        return read_classes(self.folder / "dict.label.txt")

    @property
    def classes(self) -> list[str]:
        """The model's class names in index order: of the checkpoint, or of the data when training begins."""
        return self.trained_on["classes"] if self.trained_on else self.data_classes

    @property
    def normal(self) -> int | None:
        """Index of the normal class; None where the model has no class of that name."""
        return self.classes.index(self.cfg.normal_class) if self.cfg.normal_class in self.classes else None

    @property
    def figure_names(self) -> tuple[str, ...]:
        """What evaluation logs, and ``checkpoint.best_checkpoint_metric`` may name."""
        losses = ("loss", "loss_classification", *(["loss_contrastive"] if self.cfg.profiling else []))
        return losses + metric_names(len(self.classes), self.normal)

    def describe_data(self) -> dict:
        return describe_training_data(self.train_manifest, self.cfg.max_sample_size, self.data_classes)

    def load_state_dict(self, state_dict: dict) -> None:
        # Class names and counts may be unknown, as fixed_frames; the official code believes the folder at hand.
        state_dict = {"classes": self.data_classes, "train_clips": [1] * len(self.data_classes)} | state_dict
        super().load_state_dict(state_dict)
        unknown = [name for name in self.data_classes if name not in state_dict["classes"]]
        if unknown:
            raise InputError(
                f"{self.folder / 'dict.label.txt'}: class {', '.join(unknown)} is unknown to the model, whose classes "
                f"are {', '.join(state_dict['classes'])}; validate on data with these classes"
            )

    def read_targets(self, split: str, manifest: Manifest) -> np.ndarray:
        path = self.folder / f"{split}.label"
        targets = read_labels(path, manifest, self.data_classes, self.classes)
        trained = np.array(self.data_state["train_clips"])
        untrained = np.flatnonzero(trained[targets] == 0)
        if len(untrained):
            raise InputError(
                f"{path}:{untrained[0] + 1}: class {self.classes[targets[untrained[0]]]!r} has no clip in the training "
                f"split ({len(untrained)} clips here have such a class); leave the class out or train on it"
            )
        return targets

    @property
    def needs_profiles(self) -> bool:
        return super().needs_profiles or self.cfg.adaptive_batch_norm is not None

    def read_manifest(self, split: str) -> Manifest:
        manifest = super().read_manifest(split)
        seed = self.cfg.shuffle_profiles
        if seed is None:
            return manifest
        if seed < 0:
            raise InputError(f"task.shuffle_profiles={seed}: a seed is 0 or more")
        if manifest.profiles is None:
            raise InputError(f"task.shuffle_profiles={seed}: {manifest.path} has no profiles; set task.profiling=True")
        classes = None
        if self.cfg.shuffle_profiles_among == "clips_of_a_class":
            classes = read_labels(self.folder / f"{split}.label", manifest, self.data_classes, self.data_classes)
        shuffled = shuffled_profiles(manifest.profiles, seed, split, classes)
        return replace(manifest, profiles=shuffled, own_profiles=manifest.profiles)

    def group(self, dataset: SpectrogramDataset) -> None:
        """Set the groups of the protocol."""
        protocol = Protocol.parse(self.cfg.protocol)
        if protocol.kind == "batch":
            dataset.batch_clips = protocol.number
        if protocol.kind == "batch" or dataset.manifest.profiles is None:
            return
        keys = recording = None
        if protocol.kind == "enrol":
            manifest, keys = dataset.manifest, clip_keys(dataset.manifest, dataset.rows)
            recording = read_recordings(manifest.path.with_suffix(".recording"), manifest)
            recording = None if recording is None else recording[dataset.rows]
        dataset.grouping = group_clips(
            protocol, dataset.profiles, keys=keys, seed=self.cfg.protocol_seed, recording=recording
        )

    def build_dataset(self, split: str) -> SpectrogramDataset:
        dataset = super().build_dataset(split)
        adapts = self.cfg.adaptive_batch_norm is not None and not dataset.training
        heard_in_groups = adapts or (self.cfg.profiling and self.cfg.profile_normalize and not dataset.training)
        if heard_in_groups and dataset.grouping is not None and dataset.grouping.enrolment is not None:
            dataset = dataset.paired()
        if adapts:
            dataset.together = WholeGroups.of_dataset(dataset)
        return dataset

    # ---- model -----------------------------------------------------------------------------------------------

    def complete_model_config(self, cfg) -> None:
        super().complete_model_config(cfg)
        with open_dict(cfg):
            cfg.profiling = self.cfg.profiling
            source = self.folder / "dict.label.txt"
            cfg.n_classes = _agree(cfg.get("n_classes"), len(self.classes), "n_classes", source)
            for part, path_field in _STARTS_FROM:
                cfg[part].n_mels = cfg.n_mels
                path = cfg.get(path_field)
                field_name = f"model.{path_field}"
                if path and (part == "profile_extractor" or self._start.is_checkpoint(path, field_name)):
                    pretrained = self._start.pretraining(path, field_name).config["model"]
                    for name in ARCHITECTURE_FIELDS:
                        cfg[part][name] = pretrained[name]

    def build_model(self, cfg, from_checkpoint: bool = False):
        start = self._start = StartWeights()
        model = super().build_model(cfg, from_checkpoint)
        del self._start  # its files take memory
        if self.cfg.adaptive_batch_norm is not None and not has_batch_norm(model.backbone):
            raise InputError(
                f"task.adaptive_batch_norm={self.cfg.adaptive_batch_norm}: model.backbone={cfg.backbone} has no batch "
                "norm that could be adapted; take an efficientnet or a resnet, or leave it out"
            )
        model.bands_by_group = self.cfg.profile_normalize
        model.norms_by_group = self.cfg.adaptive_batch_norm is not None
        if from_checkpoint:
            return model
        paths = {f"model.{name}": cfg.get(name) for _, name in _STARTS_FROM}
        start.warn_of_other_features(paths, self.data_state["recipe"], self.cfg.normalize)
        if model.backbone is not None:
            start.load_backbone(model.backbone, cfg)
        if self.cfg.profiling and cfg.profile_extractor_path:
            field_name = "model.profile_extractor_path"
            start.load_pretraining(
                model.profile_extractor.network, cfg.profile_extractor, cfg.profile_extractor_path, field_name
            )
        elif self.cfg.profiling:
            logger.warning(
                "model.profile_extractor_path is not set: the profile extractor starts fresh; pretrain one with "
                "configs/pretraining"
            )
        return model

    # ---- training --------------------------------------------------------------------------------------------

    def get_batch_iterator(self, dataset, *arguments, **options):
        if dataset.training:
            self._training_batches = dataset, arguments, options
        return super().get_batch_iterator(dataset, *arguments, **options)

    def begin_epoch(self, epoch: int, model) -> None:
        """Fill the profile bank, where there is one; a resumed epoch goes on with what it had."""
        super().begin_epoch(epoch, model)
        if model.bank is None:
            return
        dataset, arguments, options = self._training_batches
        if not model.bank.holds(epoch, len(dataset)):
            options = options | {"skip_remainder_batch": False}
            iterator = super().get_batch_iterator(dataset.for_evaluation(), *arguments, **options)
            model.bank.fill(epoch, embed_split(model, iterator.next_epoch_itr(shuffle=False), len(dataset)))
        model.bank.codes = torch.from_numpy(dataset.profiles).to(model.bank.embedding.device)

    def optimizer_step(self, optimizer, model, update_num) -> None:
        # fairseq's DistributedDataParallel gives unused parameters gradients of zero; weight decay would move them.
        for parameter in model.frozen_parameters():
            parameter.grad = None
        super().optimizer_step(optimizer, model, update_num)

    # ---- evaluation ------------------------------------------------------------------------------------------

    def valid_step(self, sample, model, criterion):
        self.evaluation.network, self.evaluation.criterion = model, criterion
        with self._adapted(model, sample):
            loss, sample_size, log = super().valid_step(sample, model, criterion)
        if log:
            log["_step"] = self._valid_steps
        self._valid_steps += 1
        return loss, sample_size, log

    def _adapted(self, model, sample: dict) -> AbstractContextManager:
        if "together" not in sample:
            return nullcontext()
        return adapted_to_groups(model.backbone, **sample["together"], prior=self.cfg.adaptive_batch_norm)

    @staticmethod
    def logging_outputs_can_be_summed(criterion) -> bool:
        return criterion.training

    def begin_valid_epoch(self, epoch, model) -> None:
        super().begin_valid_epoch(epoch, model)
        self.evaluation.begin()

    def validated_clips(self):
        return self.evaluation.latest[1] if self.evaluation.latest else None

    def reduce_metrics(self, logging_outputs: list[dict], criterion) -> None:
        if any("_clips" in log for log in logging_outputs):
            self.evaluation.add(logging_outputs)
        else:
            super().reduce_metrics(logging_outputs, criterion)
