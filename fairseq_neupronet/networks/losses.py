"""Weighted focal cross-entropy of NeuProNet (focal factor: Lin et al. 2017, equation 5), summed over clips.

Tensor letters: B clips, K classes.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_neupronet.errors import InputError


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
