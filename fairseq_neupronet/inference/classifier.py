"""From sounds to classified clips: what is heard when, and in which group. Letters: B clips, S sums over frames."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fairseq_neupronet.inference import hearing
from fairseq_neupronet.inference.checkpoint import Checkpoint
from fairseq_neupronet.inference.clips import Windows
from fairseq_neupronet.inference.grouping import classify_together, classify_with_enrolled
from fairseq_neupronet.inference.hearing import Clip, Finished, Sound, name_of
from fairseq_neupronet.networks.adaptive_batch_norm import n_sums
from fairseq_neupronet.networks.neupronet import Classified, NeuProNet
from fairseq_neupronet.profiles.bank import Bank
from fairseq_neupronet.profiles.enrolment import path_keys
from fairseq_neupronet.profiles.whole_groups import MOST_TOGETHER, WholeGroups

BATCH = 32


class Classifier:
    """A network at work on clips, each of which may have a profile's name.

    Args:
        checkpoint: says how clips are treated.
        network: in evaluation mode.
    """

    def __init__(self, checkpoint: Checkpoint, network: NeuProNet):
        self.checkpoint, self.network = checkpoint, network

    @property
    def pools(self) -> bool:
        """Whether profile embeddings of a group are pooled."""
        return self.network.profiling and self.checkpoint.model.grouping != "none"

    def with_enrolled(
        self,
        sounds: Sequence[Sound],
        names: Sequence[str | None],
        bank: Bank | None,
        windows: Windows,
        sample_rate: int | None,
        batch_size: int,
    ) -> Iterator[Clip | Finished]:
        """Classify clips as they come, each in the group of what the bank holds under its sound's name.

        Args:
            sounds: files or arrays.
            names: of their profiles; None for a sound alone.
            bank: holds all of the names; may be None where there are none.
            windows: how sounds are cut.
            sample_rate: of arrays, in Hz; None where they have the recipe's.
            batch_size: clips that are computed at a time.
        """

        def compute(clips: list[Clip]) -> None:
            self.classify(clips, [names[clip.source] for clip in clips], bank)

        return self._heard(sounds, windows, sample_rate, batch_size, compute)

    def together(
        self,
        sounds: Sequence[Sound],
        names: Sequence[str | None],
        windows: Windows,
        sample_rate: int | None,
        batch_size: int,
    ) -> list[Clip | Finished]:
        """Classify clips once all are heard, each in the group of all clips of its sound's name.

        Args as :meth:`with_enrolled`; a sound that fails joins no group.
        """
        events = self.embedded(sounds, windows, sample_rate, batch_size)
        failed = {event.source for event in events if isinstance(event, Finished) and event.failure}
        clips = [event for event in events if isinstance(event, Clip) and event.source not in failed]
        if not clips:
            return [event for event in events if isinstance(event, Finished)]
        named = [names[clip.source] for clip in clips]
        if self.checkpoint.bands:
            sums: dict[str, np.ndarray] = {}
            for clip, name in zip(clips, named, strict=True):
                sums[name] = sums.get(name, 0.0) + clip.sums
            self._normalize(
                clips, [clip.sums if name is None else sums[name] for clip, name in zip(clips, named, strict=True)]
            )
        if self.adapts:
            self._embed_groups(clips, named, [name_of(sounds[clip.source], clip.source) for clip in clips])
        elif self._waits:
            self._embed_in_batches(clips)
        pooled = named if self.pools else [None] * len(clips)
        _fill(clips, classify_together(self.network, *_inputs(clips), pooled))
        return [event for event in events if isinstance(event, Finished) or event.source not in failed]

    def classify(self, clips: list[Clip], names: Sequence[str | None], bank: Bank | None) -> None:
        """Fill in everything of B clips that have a spectrogram and its sums; arguments as :meth:`with_enrolled`."""
        n_bands = self.checkpoint.n_band_sums
        if self.checkpoint.bands:
            self._normalize(
                clips,
                [
                    clip.sums if name is None else clip.sums + bank[name].sums[:n_bands]
                    for clip, name in zip(clips, names, strict=True)
                ],
            )
        if self.adapts:
            for clip, name in zip(clips, names, strict=True):
                clip.norm_sums = None if name is None else bank[name].sums[n_bands:]
        self._embed(clips)
        pooled = names if self.pools else [None] * len(clips)
        _fill(clips, classify_with_enrolled(self.network, *_inputs(clips), pooled, bank))

    def embedded(
        self, sounds: Sequence[Sound], windows: Windows, sample_rate: int | None, batch_size: int
    ) -> list[Clip | Finished]:
        """All clips at once; embedded, unless other clips have to be heard before. Args as :meth:`with_enrolled`."""
        compute = (lambda clips: None) if self._waits else self._embed
        return list(self._heard(sounds, windows, sample_rate, batch_size, compute))

    def embed_joining(self, clips: list[Clip], band_sums: np.ndarray) -> np.ndarray:
        """Embed clips that join a profile, where :meth:`embedded` left that to be done.

        Args:
            clips: the new ones.
            band_sums: (S,) of mel bands, of the profile with them.

        Returns:
            The sums of what batch norms see of them; (0,) where these do not adapt.
        """
        if self.checkpoint.bands:
            self._normalize(clips, [band_sums] * len(clips))
        if self.adapts:
            parts = np.array_split(np.arange(len(clips)), -(-len(clips) // MOST_TOGETHER))
            return sum(hearing.embed_group(self.checkpoint, self.network, [clips[n] for n in part]) for part in parts)
        if self._waits:
            self._embed_in_batches(clips)
        return np.zeros(0)

    @property
    def adapts(self) -> bool:
        """Whether batch norms adapt to a clip's group."""
        return self.checkpoint.adaptive_batch_norm is not None

    @property
    def n_sums(self) -> int:
        """Numbers that a profile keeps beside its embeddings: of mel bands, and after them of batch norms."""
        return self.checkpoint.n_band_sums + (n_sums(self.network.backbone) if self.adapts else 0)

    @property
    def _waits(self) -> bool:
        """Whether a clip can be embedded only when its whole group has been heard."""
        return self.adapts or self.checkpoint.bands is not None

    def _normalize(self, clips: list[Clip], group_sums: list[np.ndarray]) -> None:
        """Normalise mel bands by the sums of their groups, each (S,)."""
        for start in range(0, len(clips), BATCH):
            part = slice(start, start + BATCH)
            hearing.normalize_by_groups(self.checkpoint, clips[part], group_sums[part])

    def _embed_groups(self, clips: list[Clip], names: Sequence[str | None], sounds: Sequence[str]) -> None:
        """Embed clips whose batch norms adapt to all that are there of a name; ``sounds`` say whence each clip is."""
        numbers: dict = {}
        codes = [numbers.setdefault(place if name is None else name, len(numbers)) for place, name in enumerate(names)]
        groups = WholeGroups.of_partition(np.array(codes), lambda: path_keys(sounds)).group
        order, ends = np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))
        parts = [[clips[place] for place in part] for part in np.split(order, ends[:-1])]
        for part in parts:
            if len(part) > 1:
                hearing.embed_group(self.checkpoint, self.network, part)
        self._embed_in_batches([clip for part in parts if len(part) == 1 for clip in part])

    def _embed_in_batches(self, clips: list[Clip]) -> None:
        for start in range(0, len(clips), BATCH):
            self._embed(clips[start : start + BATCH])

    def _heard(
        self,
        sounds: Sequence[Sound],
        windows: Windows,
        sample_rate: int | None,
        batch_size: int,
        compute: Callable[[list[Clip]], None],
    ) -> Iterator[Clip | Finished]:
        events = hearing.read_clips(self.checkpoint, sounds, windows, sample_rate)
        return hearing.in_batches(events, batch_size, compute)

    def _embed(self, clips: list[Clip]) -> None:
        hearing.embed(self.checkpoint, self.network, clips)


def _inputs(clips: list[Clip]) -> tuple[Tensor, Tensor | None]:
    profile = None if clips[0].profile is None else torch.stack([clip.profile for clip in clips])
    return torch.stack([clip.clip for clip in clips]), profile


def _fill(clips: list[Clip], classified: Classified) -> None:
    for number, clip in enumerate(clips):
        clip.logits, clip.fused = classified.logits[number], classified.fused[number]
        clip.pooled = None if classified.pooled is None else classified.pooled[number]
