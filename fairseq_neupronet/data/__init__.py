"""From a manifest row to a padded batch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=("augmentation", "clip_files", "dataset", "manifest", "prepared", "string_column")
)
