"""Classifier heads.

Tensor letters: B clips, D embedding width, K classes.
"""

from torch import nn

from fairseq_neupronet.errors import InputError

HEADS = ("linear", "mlp")


def build_head(
    kind: str, in_width: int, n_classes: int, hidden: int = 64, dropout: float = 0.1, branches: int = 2
) -> nn.Sequential:
    """Build the network from a fused embedding (B, in_width) to logits (B, K).

    Args:
        kind: ``linear``, the official transformer model's head, or ``mlp``, its CNN model's:
            linear → ReLU → dropout → linear.
        in_width: width of the fused embedding (:attr:`Fusion.width`), or D without profiles.
        n_classes: K.
        hidden: the official ``clf_hidden_dim``; the hidden layer of ``mlp`` has ``branches`` times as many units.
        dropout: dropout of ``mlp``.
        branches: :attr:`Fusion.branches`: 2 gives 2D → 128 → K for ``concat``, 1 gives D → 64 → K for ``gate``.

    Raises:
        InputError: unknown kind.
    """
    if kind == "linear":
        return nn.Sequential(nn.Linear(in_width, n_classes))
    if kind == "mlp":
        units = branches * hidden
        return nn.Sequential(nn.Linear(in_width, units), nn.ReLU(), nn.Dropout(dropout), nn.Linear(units, n_classes))
    raise InputError(f"Unknown head {kind!r}; known are {', '.join(HEADS)}.")
