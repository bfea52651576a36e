"""Tables of trainings and what they say: cells, results, statistics and reports."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=("benchmark", "comparison", "config", "report", "runner")
)
