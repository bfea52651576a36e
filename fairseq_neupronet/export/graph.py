"""A trained model as one graph: from spectrograms or waveforms, and what is enrolled, to logits.

Feature recipes are layers of it: batched, of any length, convolutions and matrix products only. Everything between a
frame and its spectrum is linear, so that one convolution does it: a filter a frequency and part.

Letters: B clips, N samples, M mel bands, F frames, E enrolled clips, D embedding width, K classes, S and T sums of mel
bands and of batch norms.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks

from fairseq_neupronet.audio.features import AMIN, filter_bank
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.inference.checkpoint import Checkpoint
from fairseq_neupronet.networks.adaptive_batch_norm import adapted_to_sums
from fairseq_neupronet.networks.neupronet import NeuProNet
from fairseq_neupronet.profiles.normalization import BandStatistics, shrunk

_NORMALIZE_EPS = 1e-5  # of data.clip_files.normalize
_PREEMPHASIS, _LOWEST_FREQUENCY = 0.97, 20.0  # kaldi's
_WARP = (100.0, -500.0, 1.0)  # no vocal tract length normalisation


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


def _spectrum_filters(frame: Tensor, n_fft: int) -> Tensor:
    """(2 · bins, 1, taps): real and imaginary parts of the spectrum of ``frame`` (taps', taps) · samples."""
    frequencies = torch.arange(n_fft // 2 + 1, dtype=torch.float64).unsqueeze(1)
    angles = 2 * torch.pi / n_fft * ((frequencies * torch.arange(len(frame), dtype=torch.float64)) % n_fft)
    return (torch.cat([angles.cos(), angles.sin()]) @ frame).unsqueeze(1).float()


class GraphFeatures(nn.Module):
    """Waveforms (B, N) at the recipe's rate to spectrograms (B, M, F), as ``extract_features`` computes each.

    Attributes:
        least_samples: of two frames; a graph of free length is one of two or more.
    """

    def __init__(self, recipe: FeatureRecipe):
        super().__init__()
        self.recipe = recipe
        if recipe.kind == "mel_db":
            window = torch.hann_window(recipe.n_fft).double()
            filters, bank = _spectrum_filters(torch.diag(window), recipe.n_fft), _mel_db_bank(recipe)
            self.least_samples = recipe.hop_length
        else:
            filters, bank = _kaldi(recipe)
            self.least_samples = filters.shape[2] + recipe.hop_length
        self.register_buffer("filters", filters)
        self.register_buffer("bank", bank)

    def forward(self, waveform: Tensor) -> Tensor:
        if self.recipe.kind == "mel_db":
            half = self.recipe.n_fft // 2
            return self._decibels(self._mel(F.pad(waveform, (half, half))))
        energies = self._mel(waveform - waveform.mean(dim=1, keepdim=True))
        logarithms = energies.clamp(min=torch.finfo(torch.float32).eps).log()
        frames = self.recipe.target_frames
        if frames is not None:
            logarithms = padded(logarithms, frames)
        return (logarithms - self.recipe.mean) / self.recipe.divisor

    def _mel(self, waveform: Tensor) -> Tensor:
        parts = F.conv1d(waveform.unsqueeze(1), self.filters, stride=self.recipe.hop_length)
        real, imaginary = parts.square().chunk(2, dim=1)
        return self.bank @ (real + imaginary)

    def _decibels(self, mel: Tensor) -> Tensor:
        decibels = 10 * mel.clamp(min=AMIN).log10()
        high = decibels.amax(dim=(1, 2), keepdim=True)
        decibels = torch.maximum(decibels, high - self.recipe.top_db)
        low = decibels.amin(dim=(1, 2), keepdim=True)
        scaled = (decibels - low) / torch.where(high == low, 1.0, high - low) * self.recipe.scale
        return torch.where(high == low, 0.0, scaled)


def padded(spectrogram: Tensor, n_frames: int) -> Tensor:
    """Cut, or pad with zeros at the right, to so many frames: (B, M, F) → (B, M, n_frames)."""
    zeros = spectrogram.new_zeros(spectrogram.shape[0], spectrogram.shape[1], n_frames)
    return torch.cat([spectrogram, zeros], dim=2).narrow(2, 0, n_frames)


def _mel_db_bank(recipe: FeatureRecipe) -> Tensor:
    return filter_bank(recipe.sample_rate, recipe.n_fft, recipe.n_mels).T.contiguous()


def _kaldi(recipe: FeatureRecipe) -> tuple[Tensor, Tensor]:
    """The filters and the bank of kaldi's fbank with a hanning window: no dither, snipped edges, power spectrum."""
    taps = int(recipe.sample_rate * recipe.frame_length_ms * 0.001)
    n_fft = 1 << (taps - 1).bit_length()
    centred = torch.eye(taps, dtype=torch.float64) - 1 / taps
    emphasis = torch.eye(taps, dtype=torch.float64)
    emphasis -= _PREEMPHASIS * torch.cat([emphasis[:1], emphasis[:-1]])
    window = torch.hann_window(taps, periodic=False, dtype=torch.float64)
    filters = _spectrum_filters(window.unsqueeze(1) * (emphasis @ centred), n_fft)
    bank, _ = get_mel_banks(recipe.n_mels, n_fft, recipe.sample_rate, _LOWEST_FREQUENCY, 0.0, *_WARP)
    return filters, F.pad(bank.float(), (0, 1))
