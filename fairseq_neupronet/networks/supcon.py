"""Supervised contrastive loss (Khosla et al. 2020, equation 2; SimCLR's where there are no labels).

Tensor letters: B clips, V views of each clip, D embedding width.
"""

import torch
from torch import Tensor

from fairseq_neupronet.errors import InputError

MODES = ("one", "all")


def supcon_loss(
    features: Tensor,
    labels: Tensor | None = None,
    temperature: float = 0.7,
    base_temperature: float = 0.7,
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
