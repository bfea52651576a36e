"""Backbones: spectrograms to clip embeddings. One file and one ``@register_backbone`` line each."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=("registry", "wav2vec2"),
    submod_attrs={"registry": ["Backbone", "build_backbone", "known_backbones", "register_backbone"]},
)
