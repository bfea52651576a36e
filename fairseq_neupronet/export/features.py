"""Feature recipes as layers of a graph: batched, of any length, convolutions and matrix products only.

Everything between a frame and its spectrum is linear, so that one convolution does it: a filter a frequency and part.
Letters: B clips, N samples, F frames, M mel bands.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks

from fairseq_neupronet.audio.features import AMIN, filter_bank
from fairseq_neupronet.audio.recipe import FeatureRecipe

_PREEMPHASIS, _LOWEST_FREQUENCY = 0.97, 20.0  # kaldi's
_WARP = (100.0, -500.0, 1.0)  # no vocal tract length normalisation


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
