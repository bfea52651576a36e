"""fairseq task ``spectrogram_finetuning``: labelled spectrograms, evaluated under a named protocol."""

import logging

import torch
from fairseq.tasks import register_task
from omegaconf import open_dict

from fairseq_neupronet.backbones.wav2vec2.network import ARCHITECTURE_FIELDS
from fairseq_neupronet.checkpoints.start_weights import StartWeights
from fairseq_neupronet.data.dataset import SpectrogramDataset
from fairseq_neupronet.data.prepared import check_evaluation_options
from fairseq_neupronet.evaluation.metrics import figure_names
from fairseq_neupronet.models.fairseq_configs import SpectrogramFinetuningConfig
from fairseq_neupronet.networks.adaptive_batch_norm import adapted_to_batch, check_batch_norm
from fairseq_neupronet.networks.gathering import embed_split
from fairseq_neupronet.tasks.spectrogram_pretraining import SpectrogramPretrainingTask, _agree
from fairseq_neupronet.tasks.subset_evaluation import SubsetEvaluation

logger = logging.getLogger(__name__)
# Networks of our pretraining, whose sizes are those of the checkpoint that they start from.
_STARTS_FROM = (
    ("transformer", "backbone_path"),
    ("profile_extractor", "profile_extractor_path"),
)


@register_task("spectrogram_finetuning", dataclass=SpectrogramFinetuningConfig)
class SpectrogramFinetuningTask(SpectrogramPretrainingTask):
    """Labels, model start-up weights, and metrics over all clips of an epoch."""

    labelled = True

    def __init__(self, cfg: SpectrogramFinetuningConfig):
        super().__init__(cfg)
        check_evaluation_options(cfg)
        self.evaluation = SubsetEvaluation(self)
        self._valid_steps = 0
        self._training_batches: tuple[SpectrogramDataset, tuple, dict] | None = None

    @property
    def classes(self) -> list[str]:
        """The model's class names in index order."""
        return self.prepared.classes

    @property
    def figure_names(self) -> tuple[str, ...]:
        """What evaluation logs, and ``checkpoint.best_checkpoint_metric`` may name."""
        return figure_names(self.cfg.profiling, len(self.classes), self.prepared.normal)

    # ---- model -----------------------------------------------------------------------------------------------

    def complete_model_config(self, cfg) -> None:
        super().complete_model_config(cfg)
        with open_dict(cfg):
            cfg.profiling = self.cfg.profiling
            source = self.prepared.folder / "dict.label.txt"
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
        check_batch_norm(model.backbone, cfg.backbone, self.cfg.adaptive_batch_norm)
        model.bands_by_group = self.cfg.profile_normalize
        model.norms_by_group = self.cfg.adaptive_batch_norm is not None
        if from_checkpoint:
            return model
        paths = {f"model.{name}": cfg.get(name) for _, name in _STARTS_FROM}
        start.warn_of_other_features(paths, self.prepared.state["recipe"], self.cfg.normalize)
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
        with adapted_to_batch(model.backbone, sample, self.cfg.adaptive_batch_norm):
            loss, sample_size, log = super().valid_step(sample, model, criterion)
        if log:
            log["_step"] = self._valid_steps
        self._valid_steps += 1
        return loss, sample_size, log

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
