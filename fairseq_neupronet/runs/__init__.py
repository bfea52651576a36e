"""One training: its folder, log, pictures, end and card."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=("card",))
