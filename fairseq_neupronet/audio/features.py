"""Waveforms to spectrograms, and where their mel bands lie. Letters: M mel bands, F frames."""

import functools
import math

import numpy as np
import torch
import torchaudio

from fairseq_neupronet.audio.recipe import FeatureRecipe

_KALDI_LOWEST = 20.0  # Hz

AMIN = 1e-10  # librosa.power_to_db's floor of the power
_BANDS_A_BLOCK = 32  # of 8, 16, 32, 64 and 128, the fastest at 128 bands and 1025 bins


def extract_features(waveform: torch.Tensor, recipe: FeatureRecipe) -> np.ndarray:
    """Compute the spectrogram of one clip.

    Args:
        waveform: (samples,) float, full scale ±1, at ``recipe.sample_rate``; at least one sample.
        recipe: what to compute; its kind is one of

            - ``mel_db``: ``librosa.feature.melspectrogram`` → ``power_to_db(ref=np.max)`` → per-clip min-max ×
              ``scale``, the recipe of the official NeuProNet data; a constant (silent) clip gives zeros.
            - ``kaldi_fbank``: ``torchaudio.compliance.kaldi.fbank`` normalised as in VocalSound's baseline.

    Returns:
        (M, F) float32, finite.

    Raises:
        ValueError: the waveform is not one-dimensional or is empty.
    """
    if waveform.dim() != 1 or waveform.numel() == 0:
        raise ValueError(f"waveform must be (samples,) with at least one sample, not {tuple(waveform.shape)}")
    features = _KINDS[recipe.kind](waveform.float(), recipe)
    return np.ascontiguousarray(features.numpy(), dtype=np.float32)


def _mel_db(waveform: torch.Tensor, recipe: FeatureRecipe) -> torch.Tensor:
    window, blocks = _mel_tools(recipe.sample_rate, recipe.n_fft, recipe.n_mels)
    half = recipe.n_fft // 2
    frames = torch.nn.functional.pad(waveform, (half, half)).unfold(0, recipe.n_fft, recipe.hop_length)
    spectrum = torch.view_as_real(torch.fft.rfft(frames * window)).square_()
    power = spectrum[..., 0] + spectrum[..., 1]  # (F, bins)
    mel = torch.cat([power[:, bins] @ filters for bins, filters in blocks], dim=1)  # (F, M)
    decibels = mel.clamp_(min=AMIN).log10_().mul_(10)
    decibels.clamp_(min=float(decibels.max()) - recipe.top_db)
    low, high = decibels.min(), decibels.max()
    if high == low:
        return torch.zeros_like(decibels).T
    return ((decibels - low) / (high - low) * recipe.scale).T


@functools.lru_cache(maxsize=4)
def _mel_tools(sample_rate: int, n_fft: int, n_mels: int) -> tuple[torch.Tensor, list[tuple[slice, torch.Tensor]]]:
    """The Hann window (n_fft,), and the Slaney filter bank by blocks of bands: their bins, and weights (bins, bands).

    A filter is zero outside a few bins; blocks leave out most of the zeros, which are 98 % of the bank.
    """
    bank = filter_bank(sample_rate, n_fft, n_mels)
    blocks = []
    for filters in bank.split(_BANDS_A_BLOCK, dim=1):
        used = filters.any(dim=1).nonzero()
        bins = slice(int(used.min()), int(used.max()) + 1) if len(used) else slice(0)
        blocks.append((bins, filters[bins].contiguous()))
    return torch.hann_window(n_fft), blocks


def filter_bank(sample_rate: int, n_fft: int, n_mels: int) -> torch.Tensor:
    """Slaney's triangles of unit area, (bins, M): librosa's bank. torchaudio's puts the bins of an odd rate wrong."""
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64).unsqueeze(1) * (sample_rate / n_fft)
    corners = _slaney_corners(sample_rate, n_mels)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    triangles = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


def _slaney_corners(sample_rate: int, n_mels: int) -> torch.Tensor:
    """Where Slaney's triangles begin, peak and end, one after the other, (M + 2,) float64 in Hz."""
    # 15 mels are 1 kHz; linear below, logarithmic above.
    highest = 15 * sample_rate / 2000 if sample_rate < 2000 else 15 + 27 * math.log(sample_rate / 2000) / math.log(6.4)
    mels = torch.linspace(0, highest, n_mels + 2, dtype=torch.float64)
    return torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))


def empty_bands_notes(recipe: FeatureRecipe) -> list[str]:
    """Say how many bands of a ``mel_db`` recipe are constant, because their filters lie between two frequency bins."""
    if recipe.kind != "mel_db":
        return []
    empty = int((filter_bank(recipe.sample_rate, recipe.n_fft, recipe.n_mels) == 0).all(dim=0).sum())
    if not empty:
        return []
    return [
        f"{empty} of {recipe.n_mels} mel bands hold no frequency bin (n_fft {recipe.n_fft} at {recipe.sample_rate} "
        "Hz) and are constant in every clip; a longer n_fft or fewer mels leave none empty"
    ]


def _kaldi_fbank(waveform: torch.Tensor, recipe: FeatureRecipe) -> torch.Tensor:
    waveform = waveform - waveform.mean()
    one_window = int(recipe.sample_rate * recipe.frame_length_ms * 0.001)
    if waveform.numel() < one_window:
        waveform = torch.nn.functional.pad(waveform, (0, one_window - waveform.numel()))
    features = torchaudio.compliance.kaldi.fbank(
        waveform.unsqueeze(0),
        htk_compat=True,
        use_energy=False,
        window_type="hanning",
        dither=0.0,
        sample_frequency=recipe.sample_rate,
        num_mel_bins=recipe.n_mels,
        frame_length=recipe.frame_length_ms,
        # torchaudio truncates the shift to whole samples; half a sample more keeps rounding from losing one
        frame_shift=(recipe.hop_length + 0.5) * 1000 / recipe.sample_rate,
    )  # (F, M)
    if recipe.target_frames is not None:
        features = features[: recipe.target_frames]
        # The baseline pads the log energies, before it normalises them.
        features = torch.nn.functional.pad(features, (0, 0, 0, recipe.target_frames - len(features)))
    return ((features - recipe.mean) / recipe.divisor).T


def band_centres(recipe: FeatureRecipe) -> np.ndarray:
    """Frequencies at which the bands of a recipe peak, (M,) in Hz: Slaney's mels for ``mel_db``, else kaldi's."""
    if recipe.kind == "mel_db":
        return _slaney_corners(recipe.sample_rate, recipe.n_mels)[1:-1].numpy()
    lowest, highest = 1127 * np.log1p(np.array([_KALDI_LOWEST, recipe.sample_rate / 2]) / 700)
    return 700 * np.expm1(np.linspace(lowest, highest, recipe.n_mels + 2)[1:-1] / 1127)


_KINDS = {"mel_db": _mel_db, "kaldi_fbank": _kaldi_fbank}
