"""What a backbone is, the table of those that configs may name, and what those with batch norm share.

Letters: B clips, M mel bands, F frames, D embedding width.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from fairseq_neupronet.errors import InputError

_STRIDE = 32  # the networks halve both axes five times

# Imported on first use: most need a library of their own.
_BUILT_IN = (
    "fairseq_neupronet.backbones.image_networks",
    "fairseq_neupronet.backbones.small_cnn",
    "fairseq_neupronet.backbones.wav2vec2.backbone",
)
_REGISTRY: dict[str, Callable[..., "Backbone"]] = {}


class Backbone(nn.Module):
    """Turns clips into embeddings.

    A subclass takes ``(n_mels, embed_dim, config)``, where ``config`` is the model's configuration, and maps
    ``source`` (B, M, F) float32 and ``padding_mask`` (B, F) bool, True on padding, to (B, D).
    """

    def forward(self, source: Tensor, padding_mask: Tensor) -> Tensor:
        raise NotImplementedError

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename and reshape a library's state dict to this backbone's parameters; unknown keys stay as they are."""
        return state


def register_backbone(*names: str):
    """Decorate a :class:`Backbone` (or a function returning one) so that ``model.backbone`` may name it."""

    def register(factory: Callable[..., Backbone]):
        for name in names:
            if name in _REGISTRY:
                raise ValueError(f"backbone {name!r} is registered already, by {_REGISTRY[name]}")
            _REGISTRY[name] = factory
        return factory

    return register


def known_backbones() -> list[str]:
    """The names that ``model.backbone`` may have."""
    for module in _BUILT_IN:
        importlib.import_module(module)
    return sorted(_REGISTRY)


def build_backbone(name: str, n_mels: int, embed_dim: int, config) -> Backbone:
    """Build a backbone by name.

    Raises:
        InputError: unknown name; the sentence lists the known ones.
    """
    for module in _BUILT_IN:
        if name in _REGISTRY:
            break
        importlib.import_module(module)
    if name not in _REGISTRY:
        raise InputError(
            f"model.backbone={name!r} is not known; known are {', '.join(sorted(_REGISTRY))}, and any that your own "
            "common.user_dir registers with @register_backbone"
        )
    backbone = _REGISTRY[name](n_mels, embed_dim, config)
    backbone.name = name
    return backbone


def is_one_value(image: Tensor) -> bool:
    """Whether such networks end with one value a channel for a batch (B, …, H, W)."""
    return len(image) == 1 and max(image.shape[-2:]) <= _STRIDE


def average_from_the_first_batch(network: nn.Module) -> None:
    """Let running statistics be the plain mean over the batches so far, until each weighs as little as the momentum.

    The weight of batch t, from 1 on, is max(momentum, 1 / t), t being the layer's own count, which checkpoints hold. By
    the momentum alone they are near their initial values for the first dozens of updates, and evaluation is useless.
    """
    for norm in _batch_norms(network):
        norm.least_momentum = norm.momentum
    network.register_forward_pre_hook(_weigh_batch)


def _weigh_batch(network: nn.Module, inputs: tuple) -> None:
    for norm in _batch_norms(network):
        # A count is read until the momentum is reached, and no more: on a GPU each reading waits for the device.
        if norm.training and hasattr(norm, "least_momentum"):
            norm.momentum = max(norm.least_momentum, 1 / (int(norm.num_batches_tracked) + 1))
            if norm.momentum == norm.least_momentum:
                del norm.least_momentum


def _batch_norms(network: nn.Module) -> Iterator[nn.BatchNorm2d]:
    return (module for module in network.modules() if isinstance(module, nn.BatchNorm2d))


@contextlib.contextmanager
def running_statistics(network: nn.Module) -> Iterator[None]:
    """Normalise by the running statistics, and leave them as they are."""
    norms = [norm for norm in network.modules() if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and norm.training]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True
