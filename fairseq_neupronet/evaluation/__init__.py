"""Metrics and evaluation protocols in plain numpy; nothing here imports fairseq."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=("evaluate", "floor", "intervals", "metrics", "outputs", "plan", "probe", "session")
)
