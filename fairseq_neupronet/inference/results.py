"""What a trained model says of what it was given. Letters: W windows of a file, K classes, N clips, D, U widths."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """Of one file or array.

    Attributes:
        path: the file's, or ``array 0`` and so on.
        classes: K names.
        profile: the name that its group went by; None where each window was heard alone.
        times: (W, 2) seconds at which each window begins and ends.
        logits: (W, K) float32.
    """

    path: str
    classes: list[str]
    profile: str | None
    times: np.ndarray
    logits: np.ndarray

    @cached_property
    def window_probabilities(self) -> np.ndarray:
        """(W, K) float64."""
        powers = np.exp(self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(K,), the mean over the windows."""
        return self.window_probabilities.mean(axis=0)

    @property
    def label(self) -> str:
        """The likeliest class of the whole."""
        return self.classes[int(self.probabilities.argmax())]

    @property
    def probability(self) -> float:
        """Of :attr:`label`."""
        return float(self.probabilities.max())

    def top(self, n: int, window: int | None = None) -> list[tuple[str, float]]:
        """The n likeliest classes, likeliest first, of the whole or of one window."""
        probabilities = self.probabilities if window is None else self.window_probabilities[window]
        order = np.argsort(-probabilities, kind="stable")[:n]
        return [(self.classes[number], float(probabilities[number])) for number in order]


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be heard, and the sentence that says why."""

    path: str
    sentence: str


@dataclass(frozen=True)
class Embeddings:
    """Of N clips, the windows of all files one after another.

    Attributes:
        path: (N,) texts.
        times: (N, 2) seconds.
        clip: (N, D) clip embeddings.
        profile: (N, D) profile embeddings, of each clip alone; None without profiling.
        pooled: (N, D) pooled over each clip's group; None without profiling.
        fused: (N, U), what the classifier's head sees.
        logits: (N, K).
    """

    path: np.ndarray
    times: np.ndarray
    clip: np.ndarray
    profile: np.ndarray | None
    pooled: np.ndarray | None
    fused: np.ndarray
    logits: np.ndarray
