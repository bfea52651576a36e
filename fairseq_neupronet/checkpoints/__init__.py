"""Files that hold weights: read as plain data, written whole, and what a training starts from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=("contents", "durable", "plain", "start_weights", "texts")
)
