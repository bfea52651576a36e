"""fairseq criterion ``NeuProNet``: the official code's loss. Letters: B clips, M mel bands, F frames, K classes."""

from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics

from fairseq_neupronet.evaluation.outputs import ClipOutputs
from fairseq_neupronet.models.fairseq_configs import NeuProNetCriterionConfig
from fairseq_neupronet.networks.losses import NeuProNetLoss


@register_criterion("NeuProNet", dataclass=NeuProNetCriterionConfig)
class NeuProNetCriterion(FairseqCriterion):
    """:class:`~fairseq_neupronet.networks.losses.NeuProNetLoss` as fairseq's trainer wants it."""

    def __init__(self, cfg: NeuProNetCriterionConfig, task):
        super().__init__(task)
        self.loss = NeuProNetLoss(cfg, len(task.classes), task.cfg.profiling)

    @classmethod
    def build_criterion(cls, cfg: NeuProNetCriterionConfig, task):
        return cls(cfg, task)

    def forward(self, model, sample: dict, reduce: bool = True):
        """Loss (), sample size B, logging output; in evaluation the latter carries the clips' outputs."""
        terms, output = self.loss(model, sample)
        loss = self.loss.combine(terms.classification, terms.contrastive, terms.extra)
        sample_size = sample["target"].numel()
        logging_output = {
            "loss": loss.detach(),
            "classification": terms.classification.detach(),
            "contrastive": terms.contrastive.detach(),
            "extra": terms.extra.detach(),
            "n_anchors": terms.n_anchors,
            "without_across": terms.without_across,
            "n_correct": (output.logits.detach().argmax(dim=1) == sample["target"]).sum(),
            "ntokens": sample_size,
            "nsentences": sample_size,
            "sample_size": sample_size,
        }
        if not self.training:
            logging_output["_subset"] = sample["subset"]
            logging_output["_clips"] = ClipOutputs.of_batch(sample, output)
        return loss, sample_size, logging_output

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
