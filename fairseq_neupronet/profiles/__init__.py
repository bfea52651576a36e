"""Who belongs together, and what is remembered of a group: partitions, protocols, enrolment and normalization."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=("batches", "draws", "enrolment", "groups", "normalization", "profile", "protocols")
)
