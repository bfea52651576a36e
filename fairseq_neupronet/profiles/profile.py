"""What a model needs of a clip's group, and all that is ever remembered of a group.

Letters: n clips, D embedding width, S sums of mel bands, T sums of batch norms.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Needs:
    """What of its group a clip's class depends on.

    Attributes:
        embeddings: the profile embeddings of the group's clips are pooled.
        bands: mel bands are normalised over the group's frames.
        norms: batch norms take statistics of the group's clips.
    """

    embeddings: bool
    bands: bool
    norms: bool

    @property
    def any(self) -> bool:
        """Whether a clip's class depends on its group at all."""
        return self.embeddings or self.to_embed

    @property
    def to_embed(self) -> bool:
        """Whether a clip's embedding already depends on its group."""
        return self.bands or self.norms

    @classmethod
    def of(cls, task: Mapping, model: Mapping) -> "Needs":
        """The needs of a model as the sections ``task`` and ``model`` of its configuration describe it."""
        return cls(
            bool(task.get("profiling")) and str(model.get("grouping")) != "none",
            bool(task.get("profile_normalize")),
            task.get("adaptive_batch_norm") is not None,
        )


@dataclass(frozen=True)
class Profile:
    """What is remembered of a group's clips; profiles of different clips of a group add up.

    Attributes:
        embeddings: (n, D) profile embeddings; D is 0 for a model that pools none.
        bands: (S,) float64, how many frames, each mel band's sum over them, and each one's sum of squares; S is 0 for a
            model that does not normalise by them.
        norms: (T,) float64, how many clips, and sums over them of what batch norms receive (see
            :func:`~fairseq_neupronet.networks.adaptive_batch_norm.adapted_to_groups`); T is 0 for a model whose batch
            norms do not adapt.
    """

    embeddings: Tensor
    bands: np.ndarray
    norms: np.ndarray

    @classmethod
    def empty(cls, width: int, n_bands: int, n_norms: int) -> "Profile":
        """The profile of no clip, with D, S and T as given."""
        return cls(torch.zeros(0, width), np.zeros(n_bands), np.zeros(n_norms))

    @property
    def n_clips(self) -> int:
        """How many clips are remembered."""
        return len(self.embeddings)

    def __add__(self, other: "Profile") -> "Profile":
        return Profile(
            torch.cat([self.embeddings, other.embeddings]), self.bands + other.bands, self.norms + other.norms
        )
