"""The loss of NeuProNet and its terms.

Weighted focal cross-entropy (focal factor: Lin et al. 2017, equation 5), the profile extractor's contrastive loss,
supervised contrast (Khosla et al. 2020, equation 2; SimCLR's where there are no labels), and the auto-encoder's terms.

Tensor letters: B clips, V views of each clip, K classes, D embedding width, M mel bands, F frames.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_neupronet.backbones.wav2vec2.contrast import infonce_loss
from fairseq_neupronet.config.criterion import CriterionOptions
from fairseq_neupronet.errors import InputError

MODES = ("one", "all")


def class_alpha(class_weights: Sequence[float] | None, n_classes: int) -> Tensor:
    """Turn the official ``class_weights`` into the factors α of the loss.

    α = normalise(1 / normalise(weights)), normalise dividing by the sum. The weights act as class counts: a bigger one
    weighs less. Uniform weights give 1 / K each, not 1.

    Args:
        class_weights: K positive numbers, or None for uniform ones.
        n_classes: K.

    Returns:
        (K,) float32.

    Raises:
        InputError: another number of weights than classes, or a weight that is not positive and finite.
    """
    weights = [1.0] * n_classes if class_weights is None else [float(weight) for weight in class_weights]
    if len(weights) != n_classes:
        raise InputError(
            f"class_weights holds {len(weights)} numbers and the data has {n_classes} classes; "
            "give one number per class, or none for uniform weights."
        )
    if any(not math.isfinite(weight) or weight <= 0 for weight in weights):
        raise InputError(f"class_weights have to be positive and finite: {weights}.")
    share = torch.tensor(weights, dtype=torch.float64)
    inverse = 1 / (share / share.sum())
    return (inverse / inverse.sum()).float()


def focal_loss(logits: Tensor, targets: Tensor, alpha: Tensor, gamma: float) -> Tensor:
    """Sum over clips of -(1 - p_t)^γ · α_t · log p_t, without gradient through the focal factor.

    Args:
        logits: (B, K).
        targets: (B,) int64.
        alpha: (K,) of :func:`class_alpha`, on the device of the logits.
        gamma: γ ≥ 0; 0 is weighted cross-entropy.

    Returns:
        Scalar in float32 or wider.

    Raises:
        InputError: a negative or not finite γ.
    """
    if not 0 <= gamma < math.inf:
        raise InputError(f"gamma of the focal loss may not be below 0: {gamma}.")
    log_probability = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    log_probability = log_probability.gather(1, targets[:, None]).squeeze(1)
    # expm1 keeps the digits of 1 - p_t where p_t is close to 1.
    focal = (-torch.expm1(log_probability.detach())).pow(gamma)
    return -(focal * alpha[targets] * log_probability).sum()


def soft_focal_loss(logits: Tensor, distribution: Tensor, alpha: Tensor, gamma: float) -> Tensor:
    """The same for targets that are distributions: sum over clips and classes of -q_k (1 - p_k)^γ · α_k · log p_k.

    Args:
        logits: (B, K).
        distribution: (B, K), q; one-hot rows give :func:`focal_loss`.
        alpha, gamma: of :func:`focal_loss`.

    Returns:
        Scalar in float32 or wider.
    """
    log_probability = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    focal = (-torch.expm1(log_probability.detach())).pow(gamma)
    return -(distribution * focal * alpha * log_probability).sum()


def smoothed_targets(
    targets: Tensor, n_classes: int, smoothing: float, partner: Tensor | None = None, share: Tensor | None = None
) -> Tensor:
    """The distribution that a clip's label stands for in training.

    Args:
        targets: (B,) int64.
        n_classes: K.
        smoothing: ε, spread evenly over all classes (label smoothing: Szegedy et al., CVPR 2016, §7).
        partner: (B,) int64, the clip of the batch that each is mixed with; None without mixup.
        share: (B,) of the clip itself in the mixture.

    Returns:
        (B, K) float32, rows of sum 1.
    """
    distribution = F.one_hot(targets, n_classes).float()
    if partner is not None:
        distribution = share[:, None] * distribution + (1 - share)[:, None] * distribution[partner]
    return (1 - smoothing) * distribution + smoothing / n_classes


def supcon_loss(
    features: Tensor,
    labels: Tensor | None = None,
    temperature: float = CriterionOptions.sup_contrast_temperature,
    base_temperature: float = CriterionOptions.sup_contrast_temperature,
    mode: str = "one",
) -> Tensor:
    """Mean over the anchors of -temperature / base_temperature · mean over the anchor's positives of log p.

    An anchor without positives adds 0 and is counted in the mean, as in the official code: where every clip has a
    class of its own the loss is 0. A batch of one clip and one view, which gives NaN there, is 0 too.

    Args:
        features: (B, V, D), L2-normalised.
        labels: (B,) classes; clips of one class are positives. Without labels only a clip's other views are.
        temperature: divides the similarities.
        base_temperature: see above.
        mode: ``one``: the first view of each clip is an anchor; ``all``: every view.

    Returns:
        Scalar in float32 or wider, always with a gradient path.

    Raises:
        InputError: unknown mode, or a temperature that is not positive.
    """
    if mode not in MODES:
        raise InputError(f"Unknown contrast mode {mode!r}; known are {', '.join(MODES)}.")
    if temperature <= 0 or base_temperature <= 0:
        raise InputError(f"Temperatures have to be positive: {temperature}, {base_temperature}.")
    n_clips, n_views, _ = features.shape
    device = features.device
    with torch.autocast(device.type, enabled=False):
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        # View by view, so that the anchors of mode "one" come first and the diagonal is each anchor with itself.
        contrast = features.transpose(0, 1).flatten(0, 1)
        anchors = contrast if mode == "all" else features[:, 0]
        codes = torch.arange(n_clips, device=device) if labels is None else labels
        codes = codes.repeat(n_views)
        itself = torch.eye(len(anchors), len(contrast), dtype=torch.bool, device=device)
        positive = (codes[: len(anchors), None] == codes[None, :]) & ~itself

        similarity = anchors @ contrast.T / temperature
        # The lowest finite number, not -inf: an anchor with nothing to compare to keeps finite gradients.
        others = similarity.masked_fill(itself, torch.finfo(similarity.dtype).min)
        log_probability = similarity - others.logsumexp(dim=1, keepdim=True)
        log_probability = log_probability.masked_fill(~positive, 0).sum(1) / positive.sum(1).clamp(min=1)
        return -temperature / base_temperature * log_probability.sum() / max(1, len(anchors))


class Terms(NamedTuple):
    """The parts of a batch's loss, each a sum over its clips in nats.

    Attributes:
        classification: weighted focal cross-entropy.
        contrastive: of the profile extractor; 0 where it is not computed.
        extra: supervised contrast and the auto-encoder's terms, weighted; 0 without them.
        n_anchors: how many steps the contrastive loss is a sum over.
        without_across: () how many of them found no negatives in other clips.
    """

    classification: Tensor
    contrastive: Tensor
    extra: Tensor
    n_anchors: int
    without_across: Tensor


class NeuProNetLoss(nn.Module):
    """Weighted focal classification, contrastive, and optional terms: the official code's loss.

    Args:
        options: the fields of :class:`~fairseq_neupronet.config.criterion.CriterionOptions`, as attributes.
        n_classes: K.
        profiling: the network uses profiles; without them there is no contrastive term and ``loss_weights`` do not act.

    Raises:
        InputError: weights of the wrong number or value.
    """

    def __init__(self, options, n_classes: int, profiling: bool):
        super().__init__()
        self.options, self.profiling = options, profiling
        for name in ("loss_weights", "sup_contrast_weights"):
            if len(getattr(options, name)) != 2:
                raise InputError(f"criterion.{name} has {len(getattr(options, name))} number(s), two are wanted")
        if not 0 <= options.label_smoothing < 1:
            raise InputError(f"criterion.label_smoothing={options.label_smoothing}: give a number from 0 up, below 1")
        # No buffer: fairseq casts those of a criterion to half precision, which rounds the weights.
        self.alpha = class_alpha(options.class_weights, n_classes)

    def forward(self, network, sample: dict) -> tuple[Terms, object]:
        """The terms of a batch, and what the network says of it.

        Args:
            network: a :class:`~fairseq_neupronet.networks.neupronet.NeuProNet`.
            sample: a batch of :meth:`~fairseq_neupronet.data.dataset.SpectrogramDataset.collater`, with targets.
        """
        net_input, target = sample["net_input"], sample["target"]
        output = network(**net_input, index=sample["id"])
        classification = self.classification(output.logits, target, sample.get("mixed"))
        contrastive, n_anchors, without_across = self._contrastive(network, net_input, output.encoded)
        extra = self._extra(network, net_input, output.fused, target)
        return Terms(classification, contrastive, extra, n_anchors, without_across), output

    def combine(self, classification, contrastive, extra):
        """The loss from its parts, tensors or numbers, sums or means."""
        if self.options.sup_contrast:
            classification = self.options.sup_contrast_weights[0] * classification
        if self.profiling:
            weights = self.options.loss_weights
            classification = weights[0] * classification + weights[1] * contrastive
        return classification + extra

    def classification(self, logits: Tensor, target: Tensor, mixed: dict | None = None) -> Tensor:
        """Sum over clips; labels are smoothed in training only.

        Args:
            logits: (B, K).
            target: (B,).
            mixed: ``partner`` (B,) and ``share`` (B,) of :class:`~fairseq_neupronet.data.augmentation.Mixup`.
        """
        self.alpha = self.alpha.to(logits.device)
        smoothing = self.options.label_smoothing if self.training else 0.0
        if not smoothing and not mixed:
            return focal_loss(logits, target, self.alpha, self.options.gamma)
        distribution = smoothed_targets(target, logits.shape[1], smoothing, **(mixed or {}))
        return soft_focal_loss(logits, distribution, self.alpha, self.options.gamma)

    def _contrastive(self, network, net_input: dict, encoded) -> tuple[Tensor, int, Tensor]:
        source = net_input["source"]
        # A frozen extractor has nothing to learn from it.
        idle = not self.profiling or self.options.loss_weights[1] == 0
        if idle or (self.training and network.profile_extractor_frozen):
            return source.new_zeros(()), 0, torch.zeros((), dtype=torch.long, device=source.device)
        group = net_input["profile"] if self.options.batch_mask else None
        contrast = network.contrast(source, net_input["padding_mask"], group, encoded, net_input.get("frames"))
        return infonce_loss(contrast["logits"]), len(contrast["logits"]), contrast["without_across"]

    def _extra(self, network, net_input: dict, fused: Tensor, target: Tensor) -> Tensor:
        extra = fused.new_zeros(())
        if self.options.sup_contrast:
            temperature = self.options.sup_contrast_temperature
            embedding = F.normalize(fused.float(), dim=1).unsqueeze(1)
            contrast = supcon_loss(embedding, target, temperature, temperature, mode="one")
            scale = len(target) if self.options.sup_contrast_per_clip else 1
            extra = extra + self.options.sup_contrast_weights[1] * scale * contrast
        if network.auto_encoder is not None:
            kept = ~net_input["padding_mask"]
            total = (net_input["source"].float() * kept.unsqueeze(1)).sum(dim=2)
            average = total / kept.sum(dim=1, keepdim=True)
            extra = extra + network.auto_encoder(average, fused)
        return extra
