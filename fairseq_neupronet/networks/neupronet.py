"""NeuProNet (Tran et al., Neural Computing and Applications 36, 2024): the networks put together.

Letters: B clips, B' clips that may be pooled, M mel bands, F frames, D embedding width, W fused width, K classes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fairseq_neupronet.backbones.wav2vec2.network import Encoded, Randomness
from fairseq_neupronet.networks.gathering import ProfileBank, gather_profiles
from fairseq_neupronet.networks.pooling import same_profile_mask
from fairseq_neupronet.profiles.profile import Needs


@dataclass
class Classified:
    """What the network says of a batch.

    Attributes:
        logits: (B, K).
        fused: (B, W), what the head saw.
        clip: (B, D) clip embeddings.
        profile: (B, D) profile embeddings; None without profiling.
        encoded: what the profile extractor made of the batch, where its contrastive task can use the same pass.
        pooled: (B, D) pooled profile embeddings; None without profiling.
    """

    logits: Tensor
    fused: Tensor
    clip: Tensor
    profile: Tensor | None
    encoded: object | None = None
    pooled: Tensor | None = None

    def widened(self) -> "Classified":
        """The same in float32."""
        outputs = {name: getattr(self, name) for name in ("logits", "fused", "clip", "profile", "pooled")}
        return replace(self, **{name: None if output is None else output.float() for name, output in outputs.items()})


class NeuProNet(nn.Module):
    """Classify clips, knowing the group that each belongs to.

    Without a profile extractor it is the plain backbone and head.

    Args:
        backbone: (B, M, F), (B, F) → (B, D); None for the profile branch alone, where a clip's embedding is its profile
            embedding.
        head: (B, W) → (B, K).
        profile_extractor: as the backbone, in two parts, ``encode`` and ``embed``, with a property ``masks``; None for
            no profiling.
        pooling: a :class:`~fairseq_neupronet.networks.pooling.ProfilePooling`.
        fusion: a :class:`~fairseq_neupronet.networks.fusion.Fusion`.
        freeze_backbone_updates, freeze_profile_extractor_updates: for so many updates the network is frozen: it runs in
            evaluation mode without a gradient, so that weights and running statistics stay as they are. ``math.inf``:
            for good, and its parameters require no gradient, so that no optimiser is given them.
        one_pass: in training the contrastive task uses the masked pass that the profile embeddings come from. Each
            term sees the same distribution of masks and dropout as with a pass of its own, so that the expected
            gradient is the same.
        gather_profiles: in training, pool over the clips of all worker processes.
        grouping: whose profile embeddings are pooled in training (evaluation groups by its protocol). ``in_batch``:
            those of the profile's clips in the batch, the method. ``whole_split``: of all its clips in the split, from
            ``bank`` where they are not in the batch (official ``npn_option`` 1, which embeds them anew for every
            batch). ``none``: the clip's own.
        bank: embeddings of the training split, for ``whole_split``.
        auto_encoder: an :class:`~fairseq_neupronet.networks.auto_encoder.AutoEncoderLoss`, for the loss alone.

    Attributes:
        bfloat16: :meth:`forward`, :meth:`embed_profiles` and :meth:`contrast` compute in bfloat16 and give float32.
        bands_by_group: outside training the network is given clips whose mel bands are normalised over their groups.
        norms_by_group: outside training its batch norms adapt to groups.
    """

    bfloat16 = bands_by_group = norms_by_group = False

    def __init__(
        self,
        backbone: nn.Module | None,
        head: nn.Module,
        profile_extractor: nn.Module | None = None,
        pooling: nn.Module | None = None,
        fusion: nn.Module | None = None,
        freeze_backbone_updates: float = 0,
        freeze_profile_extractor_updates: float = 0,
        one_pass: bool = True,
        gather_profiles: bool = False,
        grouping: str = "in_batch",
        bank: ProfileBank | None = None,
        auto_encoder: nn.Module | None = None,
    ):
        super().__init__()
        self.backbone, self.head = backbone, head
        self.profile_extractor, self.pooling, self.fusion = profile_extractor, pooling, fusion
        self.freeze_backbone_updates = freeze_backbone_updates
        self.freeze_profile_extractor_updates = freeze_profile_extractor_updates
        self.one_pass, self.gather_profiles = one_pass, gather_profiles
        self.grouping, self.bank, self.auto_encoder = grouping, bank, auto_encoder
        self.num_updates = 0
        for network, n_updates in (
            (backbone, freeze_backbone_updates),
            (profile_extractor, freeze_profile_extractor_updates),
        ):
            if network is not None and n_updates == math.inf:
                network.requires_grad_(False)

    def set_num_updates(self, num_updates: int) -> None:
        """Say how many updates were made: what is frozen, and temperatures that fall, depend on it."""
        self.num_updates = num_updates
        for module in self.modules():
            if module is not self and hasattr(module, "set_num_updates"):
                module.set_num_updates(num_updates)

    @property
    def profiling(self) -> bool:
        """Whether profiles are used."""
        return self.profile_extractor is not None

    @property
    def needs(self) -> Needs:
        """What of its group a clip's class depends on, outside training."""
        return Needs(self.profiling and self.grouping != "none", self.bands_by_group, self.norms_by_group)

    @property
    def backbone_frozen(self) -> bool:
        """Whether the backbone is frozen at this update."""
        return self.num_updates < self.freeze_backbone_updates

    @property
    def profile_extractor_frozen(self) -> bool:
        """Whether the extractor is frozen at this update."""
        return self.num_updates < self.freeze_profile_extractor_updates

    def frozen_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the networks that are frozen at this update."""
        if self.backbone is not None and self.backbone_frozen:
            yield from self.backbone.parameters()
        if self.profiling and self.profile_extractor_frozen:
            yield from self.profile_extractor.parameters()

    def embed(self, source: Tensor, padding_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Clip embeddings (B, D) and profile embeddings (B, D), each from its clip alone."""
        clip = self._embed_clips(source, padding_mask)
        profile = self._embed_profiles(source, padding_mask)[0] if self.profiling else None
        return profile if clip is None else clip, profile

    def embed_profiles(self, source: Tensor, padding_mask: Tensor) -> Tensor:
        """Profile embeddings (B, D) as evaluation has them, without a gradient."""
        with autocast(self.bfloat16, source.device):
            return _run(self.profile_extractor, True, source, padding_mask)

    def contrast(
        self,
        source: Tensor,
        padding_mask: Tensor,
        group: Tensor | None,
        encoded: Encoded | None = None,
        frames: np.ndarray | None = None,
    ) -> dict:
        """The extractor's contrastive task on a batch, see :meth:`SpectrogramWav2Vec2.contrast`.

        In evaluation masks and negatives come from a fixed seed.

        Args:
            source, padding_mask, frames: as for :meth:`forward`.
            group: (B,) codes; negatives across clips come from other groups. None: from any other clip.
            encoded: the pass that :meth:`forward` made; None: there is another.
        """
        network = self.profile_extractor.network
        randomness = Randomness.for_batch(self.training, source.device)
        with autocast(self.bfloat16, source.device):
            if encoded is None:
                encoded = network.encode(source, padding_mask, randomness.masks, frames=frames)
            return network.contrast(encoded, group, randomness)

    def _embed_clips(self, source: Tensor, padding_mask: Tensor) -> Tensor | None:
        if self.backbone is None:
            return None
        return _run(self.backbone, self.backbone_frozen, source, padding_mask)

    def _embed_profiles(self, source: Tensor, padding_mask: Tensor, frames=None) -> tuple[Tensor, object | None]:
        extractor = self.profile_extractor
        if self.profile_extractor_frozen:
            return _run(extractor, True, source, padding_mask), None
        if self.one_pass and extractor.masks:
            encoded = extractor.encode(source, padding_mask, frames)
            return extractor.embed(encoded), encoded
        return extractor(source, padding_mask), None

    def classify(
        self, clip: Tensor, profile: Tensor | None, same_profile: Tensor | None, codes: Tensor | None = None
    ) -> Classified:
        """Pool, fuse and classify.

        Args:
            clip: (B, D).
            profile: (B', D); None without profiling.
            same_profile: (B, B') bool, which profile embeddings each clip's group holds.
            codes: (B,) instead of ``same_profile``, where clips are pooled among themselves.
        """
        fused, pooled = clip, None
        if self.profiling:
            if codes is not None:
                attended, pooled = self.pooling.within(clip, profile, codes)
            else:
                attended, pooled = self.pooling(clip, profile, same_profile)
            fused = self.fusion(attended, pooled)
        return Classified(self.head(fused), fused, clip, profile, pooled=pooled)

    def forward(
        self,
        source: Tensor,
        padding_mask: Tensor,
        profile: Tensor | None = None,
        frames: np.ndarray | None = None,
        index: Tensor | None = None,
    ) -> Classified:
        """Classify a batch, grouped within itself; in training with the clips of all workers, or of the whole split,
        where ``gather_profiles`` or ``grouping`` says so.

        Args:
            source: (B, M, F).
            padding_mask: (B, F) bool, True on padding.
            profile: (B,) codes, equal where clips share a profile; None makes every clip a group of one.
            frames: (B,) unpadded frames, where the host knows them.
            index: (B,) positions of the clips in their split; used in training with a bank only.
        """
        with autocast(self.bfloat16, source.device):
            output = self._classified(source, padding_mask, profile, frames, index)
        return output.widened() if self.bfloat16 else output

    def _classified(self, source: Tensor, padding_mask: Tensor, profile, frames, index) -> Classified:
        clip = self._embed_clips(source, padding_mask)
        if not self.profiling:
            return self.classify(clip, None, None)
        embedding, encoded = self._embed_profiles(source, padding_mask, frames)
        if clip is None:
            clip = embedding
        if profile is None or self.grouping == "none":
            alone = torch.arange(len(clip), device=clip.device)
            return replace(self.classify(clip, embedding, None, alone), encoded=encoded)
        if self.bank is not None and self.training:
            pooled, codes = self.bank.group(index, embedding, profile)
        elif self.gather_profiles and self.training:
            pooled, codes = gather_profiles(embedding, profile)
        else:
            return replace(self.classify(clip, embedding, None, profile), encoded=encoded)
        output = self.classify(clip, pooled, same_profile_mask(profile, codes))
        return replace(output, profile=embedding, encoded=encoded)


def autocast(enabled: bool, device: torch.device) -> torch.autocast:
    """A context in which matrix products and convolutions run in bfloat16, and what needs its digits in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def _run(network: nn.Module, frozen: bool, *inputs: Tensor) -> Tensor:
    if not frozen:
        return network(*inputs)
    was_training = network.training
    network.eval()
    with torch.no_grad():
        output = network(*inputs)
    network.train(was_training)
    return output
