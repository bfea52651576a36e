"""Every option once: type, default, help and choices. Importing it loads neither torch nor fairseq."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=("criterion", "data", "model", "retired", "stages")
)
