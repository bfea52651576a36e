"""fairseq's trainer made restartable and exact: what is changed in fairseq, and what that stands on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=("fused_adam", "memory", "non_finite", "patches", "processes", "stopping")
)
