"""The network of a checkpoint, in plain torch."""

import importlib
import sys
from pathlib import Path

from torch import Tensor

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.inference.checkpoint import Checkpoint
from fairseq_neupronet.networks.adaptive_batch_norm import has_batch_norm
from fairseq_neupronet.networks.build import build_network
from fairseq_neupronet.networks.neupronet import NeuProNet


def trained_network(path: Path, config, weights: dict[str, Tensor]) -> NeuProNet:
    """Build and fill a network.

    Args:
        path: the checkpoint, for messages.
        config: of :func:`~fairseq_neupronet.networks.build.build_network`.
        weights: by name, all that the network has and no others.

    Raises:
        InputError: weights that do not fit the configuration, or an unknown backbone.
    """
    network = build_network(config)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{path}: its weights do not fit its configuration ({reason}); was it made by another version of this "
            "package?"
        ) from None
    return network


def load_network(checkpoint: Checkpoint) -> NeuProNet:
    """Build and fill the network, in evaluation mode, without gradients.

    Raises:
        InputError: weights that do not fit the configuration, or an unknown backbone.
    """
    network = trained_network(checkpoint.path, checkpoint.model, checkpoint.weights)
    if checkpoint.adaptive_batch_norm is not None and not has_batch_norm(network.backbone):
        raise InputError(
            f"{checkpoint.path}: task.adaptive_batch_norm is set, and its backbone has no batch norm; the "
            "file was not written by this package"
        )
    return network.eval().requires_grad_(False)


def import_user_dir(folder: str | Path) -> None:
    """Import a package of the user's own, which registers backbones.

    Raises:
        InputError: no such package.
    """
    folder = Path(folder).resolve()
    if not (folder / "__init__.py").is_file():
        raise InputError(f"--user-dir {folder}: no package with an __init__.py; give the folder of your own backbone")
    sys.path.insert(0, str(folder.parent))
    importlib.import_module(folder.name)
