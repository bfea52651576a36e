"""Where mel bands lie. Letters: M mel bands."""

import numpy as np

from fairseq_neupronet.audio.recipe import FeatureRecipe

_KALDI_LOWEST = 20.0  # Hz


def band_centres(recipe: FeatureRecipe) -> np.ndarray:
    """Frequencies at which the bands of a recipe peak, (M,) in Hz: Slaney's mels for ``mel_db``, else kaldi's."""
    highest = recipe.sample_rate / 2
    if recipe.kind == "mel_db":
        return _even(recipe.n_mels, 0.0, highest, _slaney_mel, _slaney_hertz)
    return _even(
        recipe.n_mels,
        _KALDI_LOWEST,
        highest,
        lambda hertz: 1127 * np.log1p(hertz / 700),
        lambda mel: 700 * np.expm1(mel / 1127),
    )


def _even(n_bands: int, lowest: float, highest: float, mel_of, hertz_of) -> np.ndarray:
    return hertz_of(np.linspace(mel_of(lowest), mel_of(highest), n_bands + 2)[1:-1])


def _slaney_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)


def _slaney_hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
