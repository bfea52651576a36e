"""From an audio file to a spectrogram: decoding, feature recipes, feature extraction."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=("decode", "features", "recipe"))
