"""A trained model in use: labels for sound, profiles enrolled from a few clips. Nothing here imports fairseq."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=("checkpoint", "clips", "ensemble", "model", "picture", "results")
)
