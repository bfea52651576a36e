"""Options of the loss (``criterion.*``)."""

from dataclasses import dataclass

from fairseq_neupronet.config.option import option


@dataclass
class CriterionOptions:
    """Options of fine-tuning's criterion ``NeuProNet``."""

    class_weights: list[float] | None = option(
        None, "one number a class; they act as class counts, a bigger one weighs less; unset: uniform"
    )
    loss_weights: list[float] = option(
        [0.9999, 0.0001], "of the classification and the contrastive term; without profiles neither is applied"
    )
    gamma: float = option(0.0, "focal exponent; 0: cross-entropy")
    label_smoothing: float = option(0.0, "share of a training label that is spread evenly over the classes, below 1")
    batch_mask: bool = option(
        True, "negatives across clips come from other profiles only, not just other clips", advanced=True
    )
    sup_contrast: bool = option(False, "mix in the supervised contrastive loss of the fused embedding", advanced=True)
    sup_contrast_weights: list[float] = option(
        [0.1, 0.9], "of classification and supervised contrastive loss", advanced=True
    )
    sup_contrast_temperature: float = option(0.7, "temperature and base temperature", advanced=True)
    sup_contrast_per_clip: bool = option(
        False,
        "multiply the supervised contrastive mean by the clips, so that it keeps its share in any batch; false as the "
        "official sum beside a mean",
        advanced=True,
    )


@dataclass
class PretrainingCriterionOptions:
    """Options of fairseq's own criterion ``wav2vec``, with the values that pretraining has instead of its defaults."""

    infonce: bool = option(True, "cross-entropy of the true step among its negatives", advanced=True)
    loss_weights: list[float] = option(
        [0.1, 1], "of the codebook's diversity and the features' penalty, beside the contrastive loss", advanced=True
    )
    log_keys: list[str] = option(
        ["prob_perplexity", "code_perplexity", "temp", "without_across"], "what else the log shows", advanced=True
    )
