"""Clips classified in their groups: the one place where a model uses what it knows of a group.

A group is known by its clips at hand (:meth:`InGroups.together`), or by what is remembered of earlier clips
(:meth:`InGroups.classify`). Evaluation, which embeds clips batch by batch, enters at :func:`classify_embedded`.

Letters: B clips, N items, E remembered clips, M mel bands, F frames, D embedding width, S and T sums of mel bands and
of batch norms.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_neupronet.networks.adaptive_batch_norm import adapted_to_groups, adapted_to_sums, n_sums
from fairseq_neupronet.networks.neupronet import Classified, NeuProNet, autocast
from fairseq_neupronet.networks.pooling import POOLINGS
from fairseq_neupronet.profiles.batches import BatchMates, equal_parts
from fairseq_neupronet.profiles.enrolment import Enrolment
from fairseq_neupronet.profiles.groups import Grouping
from fairseq_neupronet.profiles.normalization import BandNormalization
from fairseq_neupronet.profiles.profile import Profile

BATCH = 32
_MARK = 1e-4


class Embedded(NamedTuple):
    """The embeddings of a clip by itself: ``clip`` (D,), and ``profile`` (D,), None without profiling."""

    clip: Tensor
    profile: Tensor | None


Clip = np.ndarray | Embedded
"""A spectrogram (M, F), or what :meth:`InGroups.gather` made of one."""


class InGroups:
    """A network in use on clips that belong to groups.

    Clips of one length share a pass, so that no padding depends on other clips. The exception are the clips of a group
    that batch norms adapt to: they share one, padded to the longest where the model has no length of its own.

    Args:
        network: in evaluation mode. Its ``needs`` say what it uses of a group.
        bands: normalises mel bands, where the network needs it.
        adaptive_prior: how many clips the training's batch norm statistics count as, where the network needs a group's.
        fixed_frames: frames that every clip is padded to; None where a clip keeps its own.
        bfloat16: embeddings are computed in bfloat16.

    Raises:
        ValueError: ``bands`` or ``adaptive_prior`` is given, and the network does not need it, or the other way round.
    """

    def __init__(
        self,
        network: NeuProNet,
        bands: BandNormalization | None = None,
        adaptive_prior: float | None = None,
        fixed_frames: int | None = None,
        bfloat16: bool = False,
    ):
        self.network, self.needs = network, network.needs
        if (bands is not None, adaptive_prior is not None) != (self.needs.bands, self.needs.norms):
            raise ValueError(f"bands {bands} and adaptive_prior {adaptive_prior} do not fit {self.needs}")
        self.bands, self.adaptive_prior = bands, adaptive_prior
        self.fixed_frames, self.bfloat16 = fixed_frames, bfloat16

    def nothing(self, width: int) -> Profile:
        """What is remembered of no clip, for embeddings of a width."""
        n_bands = self.bands.n_sums if self.needs.bands else 0
        n_norms = n_sums(self.network.backbone) if self.needs.norms else 0
        return Profile.empty(width if self.needs.embeddings else 0, n_bands, n_norms)

    def gather(self, clips: Iterable[Clip], batch_size: int = BATCH) -> list[Clip]:
        """Take clips in as they come. Where an embedding does not depend on the group, each is embedded at once, so
        that few spectrograms are in memory; otherwise they are returned as they are.

        Args:
            clips: B of them.
            batch_size: how many are embedded at a time; the result does not depend on it.
        """
        if self.needs.to_embed:
            return list(clips)
        gathered, clips = [], iter(clips)
        while batch := list(itertools.islice(clips, batch_size)):
            gathered += self._embed(batch)
        return gathered

    def remember(self, clips: Iterable[Clip]) -> Profile:
        """Embed one clip or more of a group by themselves, and keep what later clips of the group are classified by.

        Mel bands are normalised by the statistics of these clips, and batch norms adapt to them, in equal parts where
        they are more than 128, since they have to share a pass.
        """
        clips = self.gather(clips)
        bands, norms = np.zeros(0), np.zeros(0)
        if self.needs.bands:
            sums = self._band_sums(clips)
            bands = sums.sum(axis=0)
            self._normalize(clips, np.broadcast_to(bands, sums.shape))
        if self.needs.norms:
            parts = equal_parts(np.arange(len(clips)), len(clips))
            norms = sum(self._embed_group(clips, np.flatnonzero(parts == part)) for part in np.unique(parts))
        else:
            self._embed_in_batches(clips, range(len(clips)))
        kept = [clip.profile if self.needs.embeddings else torch.zeros(0) for clip in clips]
        return Profile(torch.stack(kept), bands, norms)

    def classify(self, clips: Sequence[Clip], profiles: Sequence[Profile | None]) -> Classified:
        """Classify each clip in the group of itself and what is remembered of others (protocols single and enrol-N).

        Mel bands are normalised by the remembered clips and the clip itself, batch norms adapt to the remembered ones
        only, and pooled are the clip's own embedding and the remembered ones.

        Args:
            clips: B of them, which are computed at once.
            profiles: what is remembered of each clip's group; None for a clip alone.
        """
        clips = list(clips)
        if self.needs.bands:
            sums = self._band_sums(clips)
            for row, profile in zip(sums, profiles, strict=True):
                row += 0 if profile is None else profile.bands
            self._normalize(clips, sums)
        norms = None
        if self.needs.norms and any(profile is not None for profile in profiles):
            alone = np.zeros(n_sums(self.network.backbone))
            norms = np.stack([alone if profile is None else profile.norms for profile in profiles])
        clip, profile = _stacked(self._embed(clips, norms))
        if not self.needs.embeddings:
            return classify_embedded(self.network, clip, profile, Grouping.partition(np.arange(len(clips))))
        items, places = [profile], {id(None): np.zeros(0, np.int64)}
        for each in profiles:
            if id(each) not in places:
                places[id(each)] = np.arange(each.n_clips) + sum(map(len, items))
                items.append(each.embeddings.to(profile))
        lists = [np.append(own, places[id(each)]) for own, each in enumerate(profiles)]
        offsets = np.cumsum([0, *map(len, lists)])
        grouping = Grouping(enrolment=Enrolment(offsets, np.concatenate(lists)), own_items=np.arange(len(clips)))
        return classify_embedded(self.network, clip, torch.cat(items), grouping)

    def together(self, clips: Iterable[Clip], codes: np.ndarray, keys: Callable[[], np.ndarray]) -> Classified:
        """Classify each clip in the group of all clips at hand that share its code (protocol full).

        Args:
            clips: B of them.
            codes: (B,), equal for clips of one group.
            keys: gives (B,) uint64, by which the clips of a group of more than 128 are dealt out where batch norms
                adapt to them; see :meth:`~fairseq_neupronet.profiles.batches.BatchMates.of_partition`.
        """
        clips, codes = self.gather(clips), np.unique(codes, return_inverse=True)[1]
        if self.needs.bands:
            sums = self._band_sums(clips)
            of_groups = np.zeros((codes.max() + 1, sums.shape[1]))
            np.add.at(of_groups, codes, sums)
            self._normalize(clips, of_groups[codes])
        alone = np.arange(len(clips))
        if self.needs.norms:
            groups = BatchMates.of_partition(codes, keys).group
            order, ends = np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))
            parts = np.split(order, ends[:-1])
            for part in parts:
                if len(part) > 1:
                    self._embed_group(clips, part)
            alone = [part[0] for part in parts if len(part) == 1]
        self._embed_in_batches(clips, alone)
        return classify_embedded(self.network, *_stacked(clips), Grouping.partition(codes))

    def _band_sums(self, clips: list[np.ndarray]) -> np.ndarray:
        """(B, S)."""
        return np.stack([self.bands.sums_of(clip) for clip in clips])

    def _normalize(self, clips: list[np.ndarray], group_sums: np.ndarray) -> None:
        """Replace clips by normalised ones, by the sums (B, S) of their groups."""
        for start in range(0, len(clips), BATCH):
            part = slice(start, start + BATCH)
            clips[part] = self.bands(clips[part], group_sums[part])

    def _embed_in_batches(self, clips: list[Clip], places: Sequence[int]) -> None:
        """Replace the clips at some places by their embeddings."""
        for start in range(0, len(places), BATCH):
            part = places[start : start + BATCH]
            for place, embedded in zip(part, self._embed([clips[place] for place in part]), strict=True):
                clips[place] = embedded

    @torch.no_grad()
    def _embed(self, clips: list[Clip], norms: np.ndarray | None = None) -> list[Embedded]:
        """Embed clips, those of a length at once; batch norms adapt to sums (B, T), zeros for a clip alone."""
        clips, by_length = list(clips), {}
        for place, clip in enumerate(clips):
            if not isinstance(clip, Embedded):
                by_length.setdefault(self.fixed_frames or clip.shape[1], []).append(place)
        for places in by_length.values():
            adapted = nullcontext()
            if norms is not None and norms[places].any():
                adapted = adapted_to_sums(self.network.backbone, torch.from_numpy(norms[places]), self.adaptive_prior)
            with adapted:
                self._embed_at_once(clips, places)
        return clips

    @torch.no_grad()
    def _embed_group(self, clips: list[Clip], places: np.ndarray) -> np.ndarray:
        """Replace the clips of a group by their embeddings, batch norms adapting to them; returns their sums (T,)."""
        part, members = torch.zeros(len(places), dtype=torch.long), torch.ones(1, len(places), dtype=torch.bool)
        with adapted_to_groups(self.network.backbone, part, members, self.adaptive_prior) as found:
            self._embed_at_once(clips, places)
        return torch.cat(found, dim=1)[0].numpy()

    def _embed_at_once(self, clips: list[Clip], places: Sequence[int]) -> None:
        source, padding = self._collated([clips[place] for place in places])
        with autocast(self.bfloat16, source.device):
            embeddings = self.network.embed(source, padding)
        for place, *rows in zip(places, *(each for each in embeddings if each is not None), strict=True):
            wide = [row.to(torch.promote_types(row.dtype, torch.float32)) for row in rows]
            clips[place] = Embedded(wide[0], wide[1] if len(wide) > 1 else None)

    def _collated(self, spectrograms: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Clips (M, F) padded with zeros at the right, (B, M, F), and the mask (B, F), True on padding."""
        lengths = np.array([spectrogram.shape[1] for spectrogram in spectrograms])
        n_frames = self.fixed_frames or int(lengths.max())
        source = np.zeros((len(lengths), len(spectrograms[0]), n_frames), spectrograms[0].dtype)
        for padded, spectrogram in zip(source, spectrograms, strict=True):
            padded[:, : spectrogram.shape[1]] = spectrogram
        return torch.from_numpy(source), torch.from_numpy(np.arange(n_frames) >= lengths[:, None])


def _stacked(clips: list[Embedded]) -> tuple[Tensor, Tensor | None]:
    profile = None if clips[0].profile is None else torch.stack([clip.profile for clip in clips])
    return torch.stack([clip.clip for clip in clips]), profile


@torch.no_grad()
def classify_embedded(network: NeuProNet, clip: Tensor, profile: Tensor | None, grouping: Grouping) -> Classified:
    """Pool, fuse and classify clips that are embedded, in chunks that bound memory.

    Args:
        network: the network.
        clip: (N, D) clip embeddings of items, or of the first of them: those that clips are in their own groups.
        profile: (N, D) profile embeddings of items; None without profiling.
        grouping: which items each clip is pooled with.

    Returns:
        What the network says of each clip of the grouping, on the CPU.
    """
    if not network.needs.embeddings:
        grouping = grouping.alone()
    own = torch.from_numpy(grouping.own()).to(clip.device)
    order, outputs = [np.zeros(0, np.int64)], []
    for rows, columns, mask in grouping.chunks():
        pooled = None if profile is None else profile[torch.from_numpy(columns).to(clip.device)]
        of_rows = clip[own[torch.from_numpy(rows).to(clip.device)]]
        outputs.append(network.classify(of_rows, pooled, torch.from_numpy(mask).to(clip.device)))
        order.append(rows)
    if not outputs:  # the shapes of nothing
        alone = torch.ones(1, 1, dtype=torch.bool, device=clip.device)
        outputs.append(network.classify(clip[:1], None if profile is None else profile[:1], alone))
    back = np.argsort(np.concatenate(order))

    def joined(name: str) -> Tensor | None:
        parts = [getattr(output, name) for output in outputs]
        return None if parts[0] is None else torch.cat([part.cpu() for part in parts])[back]

    own_profile = None if profile is None else profile[own].cpu()
    return Classified(joined("logits"), joined("fused"), clip[own].cpu(), own_profile, pooled=joined("pooled"))


def attention(network: NeuProNet, clip: Tensor, profile: Tensor, remembered: Tensor) -> Tensor | None:
    """How much each member of a clip's group counts in its pooled embedding.

    Args:
        network: the network.
        clip, profile: (D,) of the clip.
        remembered: (E, D).

    Returns:
        (1 + E,), the clip's own first: the pooled embedding is the members' sum by these weights, up to its length
        where the pooling normalises it. None for a pooling that is no such sum, as those with a ``profile`` step.
    """
    pooling = network.pooling
    if pooling.normalize:
        clip = F.normalize(clip, dim=0)
    # Each member also carries a mark of its own, too small to change any norm; the marks are pooled by the weights.
    members = torch.cat([profile.unsqueeze(0), remembered])
    marks = _MARK * torch.eye(len(members))
    everyone = torch.ones(1, len(members), dtype=torch.bool)
    marked_clip = torch.cat([clip, torch.zeros(len(members))]).unsqueeze(0)
    pool = POOLINGS[pooling.pooling]
    pooled = pool(marked_clip, torch.cat([members, marks], dim=1), everyone, pooling.options)
    weights = pooled[0, len(clip) :] / _MARK
    (unmarked,) = pool(clip.unsqueeze(0), members, everyone, pooling.options)
    return weights if torch.allclose(weights @ members, unmarked, rtol=1e-3, atol=1e-5) else None
