"""The method: a clip's embedding, its profile's, how the two are pooled, fused and classified, and the losses."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=("adaptive_batch_norm", "build", "gathering", "in_groups", "losses", "neupronet")
)
