"""A trained model as one graph, for ONNX and torch.export."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=("export",))
