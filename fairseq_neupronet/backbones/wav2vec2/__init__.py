"""The spectrogram wav2vec 2.0: convolutions over time, a transformer, and its contrastive task."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=("backbone", "contrast", "convolutions", "network")
)
