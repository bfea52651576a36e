"""fairseq criterion ``NeuProNet``: the official code's loss. Letters: B clips, M mel bands, F frames, K classes."""

from dataclasses import dataclass, field
from typing import List, Optional  # fairseq's argument parser reads these forms only

import torch
import torch.nn.functional as F
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor

from fairseq_neupronet.backbones.wav2vec2.infonce import infonce_loss
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.outputs import ClipOutputs
from fairseq_neupronet.networks.losses import class_alpha, focal_loss, smoothed_targets, soft_focal_loss
from fairseq_neupronet.networks.supcon import supcon_loss


@dataclass
class NeuProNetCriterionConfig(FairseqDataclass):
    class_weights: Optional[List[float]] = field(
        default=None,
        metadata={"help": "one number a class; they act as class counts, a bigger one weighs less; unset: uniform"},
    )
    loss_weights: List[float] = field(
        default_factory=lambda: [0.9999, 0.0001],
        metadata={"help": "of the classification and the contrastive term; without profiles neither is applied"},
    )
    gamma: float = field(default=0.0, metadata={"help": "focal exponent; 0: cross-entropy"})
    label_smoothing: float = field(
        default=0.0, metadata={"help": "share of a training label that is spread evenly over the classes, below 1"}
    )
    batch_mask: bool = field(
        default=True, metadata={"help": "negatives across clips come from other profiles only, not just other clips"}
    )
    sup_contrast: bool = field(
        default=False, metadata={"help": "mix in the supervised contrastive loss of the fused embedding"}
    )
    sup_contrast_weights: List[float] = field(
        default_factory=lambda: [0.1, 0.9], metadata={"help": "of classification and supervised contrastive loss"}
    )
    sup_contrast_temperature: float = field(default=0.7, metadata={"help": "temperature and base temperature"})
    sup_contrast_per_clip: bool = field(
        default=False,
        metadata={
            "help": "multiply the supervised contrastive mean by the clips, so that it keeps its share in any "
            "batch; false as the official sum beside a mean"
        },
    )


@register_criterion("NeuProNet", dataclass=NeuProNetCriterionConfig)
class NeuProNetCriterion(FairseqCriterion):
    """Weighted focal classification, contrastive, and optional terms; all sums over clips, in nats.

    Raises:
        InputError: weights of the wrong number or value.
    """

    def __init__(self, cfg: NeuProNetCriterionConfig, task):
        super().__init__(task)
        self.cfg = cfg
        for name in ("loss_weights", "sup_contrast_weights"):
            if len(cfg[name]) != 2:
                raise InputError(f"criterion.{name} has {len(cfg[name])} number(s), two are wanted")
        if not 0 <= cfg.label_smoothing < 1:
            raise InputError(f"criterion.label_smoothing={cfg.label_smoothing}: give a number from 0 up, below 1")
        # No buffer: fairseq casts those of a criterion to half precision, which rounds the weights.
        self.alpha = class_alpha(cfg.class_weights, len(task.classes))

    @classmethod
    def build_criterion(cls, cfg: NeuProNetCriterionConfig, task):
        return cls(cfg, task)

    def classification_loss(self, logits: Tensor, target: Tensor, mixed: dict | None = None) -> Tensor:
        """Sum over clips; ``logits`` (B, K), ``target`` (B,). Labels are smoothed in training only.

        Args:
            logits, target: see above.
            mixed: ``partner`` (B,) and ``share`` (B,) of :class:`~fairseq_neupronet.data.mixup.Mixup`.
        """
        self.alpha = self.alpha.to(logits.device)
        smoothing = self.cfg.label_smoothing if self.training else 0.0
        if not smoothing and not mixed:
            return focal_loss(logits, target, self.alpha, self.cfg.gamma)
        distribution = smoothed_targets(target, logits.shape[1], smoothing, **(mixed or {}))
        return soft_focal_loss(logits, distribution, self.alpha, self.cfg.gamma)

    def forward(self, model, sample: dict, reduce: bool = True):
        """Loss (), sample size B, logging output; in evaluation the latter carries the clips' outputs."""
        net_input, target = sample["net_input"], sample["target"]
        output = model(**net_input, index=sample["id"])
        classification = self.classification_loss(output.logits, target, sample.get("mixed"))
        contrastive, without_across, n_anchors = self._contrastive(model, net_input, output.encoded)
        extra = self._extra_terms(model, net_input, output.fused, target)
        loss = self.combine(classification, contrastive, extra)
        sample_size = target.numel()
        logging_output = {
            "loss": loss.detach(),
            "classification": classification.detach(),
            "contrastive": contrastive.detach(),
            "extra": extra.detach(),
            "n_anchors": n_anchors,
            "without_across": without_across,
            "n_correct": (output.logits.detach().argmax(dim=1) == target).sum(),
            "ntokens": sample_size,
            "nsentences": sample_size,
            "sample_size": sample_size,
        }
        if not self.training:
            logging_output["_subset"] = sample["subset"]
            logging_output["_clips"] = ClipOutputs(
                *(_detached(x) for x in (sample["id"], target, output.clip, output.profile, net_input.get("profile")))
            )
        return loss, sample_size, logging_output

    def combine(self, classification, contrastive, extra):
        """The loss from its parts, tensors or numbers."""
        if self.cfg.sup_contrast:
            classification = self.cfg.sup_contrast_weights[0] * classification
        if self.task.cfg.profiling:
            classification = self.cfg.loss_weights[0] * classification + self.cfg.loss_weights[1] * contrastive
        return classification + extra

    def _contrastive(self, model, net_input: dict, encoded) -> tuple[Tensor, Tensor, int]:
        source = net_input["source"]
        # A frozen extractor has nothing to learn from it.
        idle = not self.task.cfg.profiling or self.cfg.loss_weights[1] == 0
        if idle or (self.training and model.profile_extractor_frozen):
            return source.new_zeros(()), torch.zeros((), dtype=torch.long, device=source.device), 0
        group = net_input["profile"] if self.cfg.batch_mask else None
        contrast = model.contrast(source, net_input["padding_mask"], group, encoded, net_input.get("frames"))
        return infonce_loss(contrast["logits"]), contrast["without_across"], len(contrast["logits"])

    def _extra_terms(self, model, net_input: dict, fused: Tensor, target: Tensor) -> Tensor:
        extra = fused.new_zeros(())
        if self.cfg.sup_contrast:
            temperature = self.cfg.sup_contrast_temperature
            embedding = F.normalize(fused.float(), dim=1).unsqueeze(1)
            contrast = supcon_loss(embedding, target, temperature, temperature, mode="one")
            scale = len(target) if self.cfg.sup_contrast_per_clip else 1
            extra = extra + self.cfg.sup_contrast_weights[1] * scale * contrast
        if model.auto_encoder is not None:
            kept = ~net_input["padding_mask"]
            total = (net_input["source"].float() * kept.unsqueeze(1)).sum(dim=2)
            average = total / kept.sum(dim=1, keepdim=True)
            extra = extra + model.auto_encoder(average, fused)
        return extra

    @staticmethod
    def reduce_metrics(logging_outputs: list[dict]) -> None:
        """Training figures, per clip and in nats; those of evaluation come from the task, under a protocol."""

        def total(key: str):
            return sum(log[key] for log in logging_outputs)

        n_clips = total("sample_size")
        metrics.log_scalar("loss", total("loss") / n_clips, n_clips, round=4)
        metrics.log_scalar("loss_classification", total("classification") / n_clips, n_clips, round=4)
        metrics.log_scalar("accuracy", total("n_correct") / n_clips, n_clips, round=4)
        if total("n_anchors"):
            metrics.log_scalar("loss_contrastive", total("contrastive") / n_clips, n_clips, round=4)
            metrics.log_scalar("anchors_without_other_profile", total("without_across"), round=1)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Training's are scalars; the task says no for evaluation's."""
        return True


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
