"""Whose profile embeddings a clip's profile is pooled from when a trained model is used: the one place that says so.

Letters: B clips, E enrolled clips, D embedding width, K classes, W fused width.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_neupronet.networks.neupronet import Classified, NeuProNet
from fairseq_neupronet.networks.pooling import POOLINGS
from fairseq_neupronet.profiles.bank import Bank
from fairseq_neupronet.profiles.groups import Grouping

_MARK = 1e-4


def classify_with_enrolled(
    network: NeuProNet, clip: Tensor, profile: Tensor | None, names: Sequence[str | None], bank: Bank
) -> Classified:
    """Protocols ``single`` and ``enrol-n``: a clip's group is the clip and what is enrolled under its profile's name.

    Args:
        network: the network.
        clip: (B, D) clip embeddings.
        profile: (B, D) profile embeddings; None without profiling.
        names: of the B clips' profiles; None for a clip alone.
        bank: the enrolled profiles.

    Raises:
        InputError: a profile that is not enrolled.
    """
    if profile is None:
        return network.classify(clip, None, None)
    enrolled = {name: bank[name].embeddings for name in dict.fromkeys(names) if name is not None}
    columns = torch.cat([profile, *enrolled.values()])
    owner = np.repeat(np.arange(len(enrolled)), [len(rows) for rows in enrolled.values()])
    code = np.array([-1 if name is None else list(enrolled).index(name) for name in names])
    mask = np.concatenate([np.eye(len(names), dtype=bool), code[:, None] == owner], axis=1)
    return network.classify(clip, columns, torch.from_numpy(mask))


def classify_together(
    network: NeuProNet, clip: Tensor, profile: Tensor | None, names: Sequence[str | None]
) -> Classified:
    """Protocol ``full``: a clip's group is all clips at hand of its profile; ``None`` makes a clip a group of its own.

    Args and result as :func:`classify_with_enrolled`.
    """
    if profile is None:
        return network.classify(clip, None, None)
    numbers: dict = {}
    code = [numbers.setdefault(place if name is None else name, len(numbers)) for place, name in enumerate(names)]
    chunks = list(Grouping.partition(np.array(code)).chunks())
    outputs = [network.classify(clip[rows], profile[columns], torch.from_numpy(mask)) for rows, columns, mask in chunks]
    back = np.argsort(np.concatenate([chunk.rows for chunk in chunks]))

    def joined(name: str) -> Tensor | None:
        parts = [getattr(output, name) for output in outputs]
        return None if parts[0] is None else torch.cat(parts)[back]

    return Classified(joined("logits"), joined("fused"), clip, profile, pooled=joined("pooled"))


def attention(network: NeuProNet, clip: Tensor, profile: Tensor, enrolled: Tensor) -> Tensor | None:
    """How much each member of a clip's group counts in its pooled embedding.

    Args:
        network: the network.
        clip, profile: (D,) of the clip.
        enrolled: (E, D).

    Returns:
        (1 + E,), the clip's own first: the pooled embedding is the members' sum by these weights, up to its length
        where the pooling normalises it. None for a pooling that is no such sum, as those with a ``profile`` step.
    """
    pooling = network.pooling
    if pooling.normalize:
        clip = F.normalize(clip, dim=0)
    # Each member also carries a mark of its own, too small to change any norm; the marks are pooled by the weights.
    members = torch.cat([profile.unsqueeze(0), enrolled])
    marks = _MARK * torch.eye(len(members))
    everyone = torch.ones(1, len(members), dtype=torch.bool)
    marked_clip = torch.cat([clip, torch.zeros(len(members))]).unsqueeze(0)
    pool = POOLINGS[pooling.pooling]
    pooled = pool(marked_clip, torch.cat([members, marks], dim=1), everyone, pooling.options)
    weights = pooled[0, len(clip) :] / _MARK
    (unmarked,) = pool(clip.unsqueeze(0), members, everyone, pooling.options)
    return weights if torch.allclose(weights @ members, unmarked, rtol=1e-3, atol=1e-5) else None
