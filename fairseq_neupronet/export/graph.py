"""A trained model as one graph: from spectrograms or waveforms, and what is enrolled, to logits.

Letters: B clips, N samples, M mel bands, F frames, E enrolled clips, D embedding width, K classes, S and T sums of mel
bands and of batch norms.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from fairseq_neupronet.export.features import GraphFeatures, padded
from fairseq_neupronet.inference.checkpoint import Checkpoint
from fairseq_neupronet.networks.adaptive_batch_norm import adapted_to_sums
from fairseq_neupronet.networks.neupronet import NeuProNet
from fairseq_neupronet.profiles.normalization import BandStatistics, shrunk

_NORMALIZE_EPS = 1e-5  # of data.clip_files.normalize


class Graph(nn.Module):
    """The model in float32; the clips of a batch are of one length and of one profile.

    Args:
        checkpoint, network: the model.
        features_inside: the graph begins at waveforms.
    """

    def __init__(self, checkpoint: Checkpoint, network: NeuProNet, features_inside: bool):
        super().__init__()
        self.network, self.pools = network, network.needs.embeddings
        self.features = GraphFeatures(checkpoint.recipe) if features_inside else None
        self.fixed_frames = checkpoint.fixed_frames
        self.normalize = checkpoint.normalize
        self.prior_clips = checkpoint.adaptive_batch_norm
        self.prior_frames = None
        if checkpoint.bands:
            self.prior_frames = checkpoint.bands.prior_frames
            self.register_buffer("mean", torch.tensor(checkpoint.bands.prior.mean))
            self.register_buffer("deviation", torch.tensor(checkpoint.bands.prior.deviation))

    @property
    def input_names(self) -> list[str]:
        """Of :meth:`forward`'s arguments."""
        names = ["spectrogram" if self.features is None else "waveform"]
        names += ["enrolled"] * self.pools + ["enrolled_sums"] * (self.prior_frames is not None)
        return names + ["enrolled_norms"] * (self.prior_clips is not None)

    @property
    def output_names(self) -> list[str]:
        """Of what :meth:`forward` returns."""
        return ["logits", *["profile"] * self.pools]

    def forward(self, sound: Tensor, *group: Tensor) -> tuple[Tensor, ...]:
        """Classify clips of one profile.

        Args:
            sound: (B, M, F) or (B, N).
            group: ``enrolled`` (E, D), profile embeddings, for models that pool them; ``enrolled_sums`` (S,) float64,
                for models that normalise mel bands; ``enrolled_norms`` (T,) float64, for those whose batch norms adapt.
                No rows, and zeros, leave each clip alone.

        Returns:
            Logits (B, K); and the clips' own profile embeddings (B, D), to be enrolled, for models that pool them.
        """
        spectrogram = sound if self.features is None else self.features(sound)
        n_frames = spectrogram.shape[2]
        if self.fixed_frames is not None:
            spectrogram = padded(spectrogram, self.fixed_frames)
        # A mask, not a slice: where a clip is cut must not become a condition on its length.
        given = torch.arange(spectrogram.shape[2], device=sound.device) < n_frames
        if self.normalize:
            spectrogram = _normalized(spectrogram, given)
        if self.prior_frames is not None:
            spectrogram = self._normalize_bands(spectrogram, given, group[int(self.pools)])
        padding = (~given).unsqueeze(0).expand(spectrogram.shape[0], -1)
        with self._adapted(group):
            clip, profile = self.network.embed(spectrogram, padding)
        if not self.pools:
            same = None
            if profile is not None:
                same = _own(profile)
            return (self.network.classify(clip, profile, same).logits,)
        enrolled = group[0]
        joined = torch.cat([_own(profile), torch.ones_like(profile[:, :1] @ enrolled[:, :1].mT, dtype=torch.bool)], 1)
        return self.network.classify(clip, torch.cat([profile, enrolled]), joined).logits, profile

    def _adapted(self, group: tuple[Tensor, ...]) -> AbstractContextManager:
        if self.prior_clips is None:
            return nullcontext()
        return adapted_to_sums(self.network.backbone, group[-1].unsqueeze(0), self.prior_clips)

    def _normalize_bands(self, spectrogram: Tensor, given: Tensor, enrolled_sums: Tensor) -> Tensor:
        """As :class:`~fairseq_neupronet.profiles.normalization.BandNormalization`; padding is and stays 0."""
        wide, n_mels = spectrogram.double(), spectrogram.shape[1]
        frames = given.sum() + enrolled_sums[0]
        total = wide.sum(dim=2) + enrolled_sums[1 : 1 + n_mels]
        square = wide.square().sum(dim=2) + enrolled_sums[1 + n_mels :]
        prior = BandStatistics(self.mean, self.deviation)
        mean, deviation = shrunk(frames, total, square, prior, self.prior_frames)
        return (spectrogram - mean.float().unsqueeze(2)) / deviation.float().unsqueeze(2) * given


def _normalized(spectrogram: Tensor, given: Tensor) -> Tensor:
    """See :func:`~fairseq_neupronet.data.clip_files.normalize`; padding is and stays 0."""
    n_cells = given.sum() * spectrogram.shape[1]
    mean = spectrogram.sum(dim=(1, 2), keepdim=True) / n_cells
    centred = (spectrogram - mean) * given
    return centred / (centred.square().sum(dim=(1, 2), keepdim=True) / n_cells + _NORMALIZE_EPS).sqrt()


def _own(profile: Tensor) -> Tensor:
    """(B, B) bool: each clip with itself."""
    places = torch.arange(profile.shape[0], device=profile.device)
    return places.unsqueeze(1) == places.unsqueeze(0)
