"""The picture of a confusion matrix, for TensorBoard and for a benchmark's report."""

import numpy as np


def draw_confusion(axes, counts: np.ndarray, classes: list[str], per_cent: bool = False) -> None:
    """Draw a matrix: rows are targets, shaded by the share of their clips, and columns predictions.

    Args:
        axes: matplotlib's.
        counts: (K, K) clips, a row per target.
        classes: K names; none are written, and no numbers, where the list is empty.
        per_cent: write the rounded share of the target's clips in place of their number.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("prediction")
    axes.set_ylabel("target")
    names = [name.replace("$", r"\$") for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    for (row, column), share in np.ndenumerate(shares) if classes else ():
        text = f"{100 * share:.0f}" if per_cent else str(counts[row, column])
        if text != "0":
            colour = "white" if share > 0.5 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
