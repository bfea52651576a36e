"""Weights that a network starts from: read as tensors and plain containers, matched by name, reported."""

import logging
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from fairseq_neupronet.checkpoints.plain import check_archive
from fairseq_neupronet.checkpoints.texts import check_texts
from fairseq_neupronet.errors import InputError

logger = logging.getLogger(__name__)
PRETRAINED_MODEL = "spectrogram_wav2vec2"


def read_checkpoint(path: str | Path, field: str) -> dict:
    """Load a file of tensors and plain containers; anything else in it is refused and nothing of it runs.

    Args:
        path: the file.
        field: the config field that named it, for messages.

    Raises:
        InputError: missing, damaged, or holding other classes.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{field}={path}: no such file; nothing is downloaded, so give a local one")
    if zipfile.is_zipfile(path):
        check_archive(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises on a file of another kind depends on the file's bytes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{field}={path}: not a checkpoint of tensors and plain containers ({reason})") from None
    if not isinstance(state, dict):
        raise InputError(f"{field}={path}: holds a {type(state).__name__}, not a state dict or checkpoint")
    return state


def is_pretraining(path: str | Path, field: str) -> bool:
    """Whether a file is a fairseq checkpoint (of any model), rather than a library's state dict."""
    return _is_fairseq(read_checkpoint(path, field))


def _is_fairseq(state: dict) -> bool:
    return {"cfg", "model"} <= state.keys()


def read_pretraining(path: str | Path, field: str) -> tuple[dict, dict[str, Tensor]]:
    """Model configuration and weights of one of our pretraining checkpoints.

    Raises:
        InputError: see :func:`read_checkpoint`; or a checkpoint of another model.
    """
    state = read_checkpoint(path, field)
    config = state.get("cfg")
    if isinstance(config, dict):
        check_texts(config, path)
    model_config = (config or {}).get("model") or {}
    name = model_config.get("_name") if isinstance(model_config, dict) else None
    if name != PRETRAINED_MODEL or "model" not in state:
        raise InputError(
            f"{field}={path}: a checkpoint of {name or 'an unknown model'}, where one of {PRETRAINED_MODEL} is wanted; "
            "pretrain one with configs/pretraining"
        )
    return model_config, state["model"]


def warn_of_other_features(paths: dict[str, str | None], recipe: dict | None, normalize: bool) -> None:
    """Log in what the spectrograms of a pretraining differ from those at hand.

    Args:
        paths: config field → the file that it names; a library's state dict knows no spectrograms.
        recipe: of the data at hand; None where it is not known.
        normalize: ``task.normalize``.
    """
    for field, path in paths.items():
        state = read_checkpoint(path, field) if path else {}
        if not _is_fairseq(state):
            continue
        theirs, task = (state.get("task_state") or {}).get("recipe"), state["cfg"].get("task") or {}
        found = []
        if recipe and theirs:
            found = [
                f"{name} {theirs.get(name)}, here {recipe[name]}"
                for name in recipe
                if name != "name" and theirs.get(name) != recipe[name]
            ]
        if task.get("normalize", normalize) != normalize:
            found.append(f"task.normalize={task['normalize']}, here {normalize}")
        if found:
            logger.warning(
                f"{field}={path}: pretrained on other spectrograms ({'; '.join(found)}); pretrain on such "
                "as those at hand, or expect less of it"
            )


def load_pretraining(network: nn.Module, config, path: str | Path, field: str) -> None:
    """Load one of our pretraining checkpoints into a transformer of the same sizes.

    Raises:
        InputError: see :func:`read_pretraining`; or another mel count, or sizes that do not fit.
    """
    pretrained_config, weights = read_pretraining(path, field)
    if pretrained_config.get("n_mels") != config.n_mels:
        raise InputError(
            f"{field}={path}: pretrained on {pretrained_config.get('n_mels')} mel bands, the data has {config.n_mels}; "
            "pretrain on the same features"
        )
    _load(network, weights, path, field)


def load_backbones(backbone: nn.Module, config) -> None:
    """Load ``model.backbone_path``, and where there are two views ``model.second_backbone_path``.

    Two views of one kind of backbone start from the same file, unless the second has its own.

    Raises:
        InputError: unreadable, of another model, or with sizes that do not fit.
    """
    first, second = "backbone", "second_backbone"
    if not config.two_views:
        return _load_backbone(backbone, config, first, config.backbone)
    kind = config.second_backbone or config.backbone
    own = second if config.second_backbone_path or kind != config.backbone else first
    _load_backbone(backbone.views[0], config, first, config.backbone)
    _load_backbone(backbone.views[1], config, own, kind)


def _load_backbone(backbone: nn.Module, config, name: str, kind: str) -> None:
    """From our pretraining checkpoint, or a library's state dict; nothing where ``model.<name>_path`` is unset."""
    field, path = f"model.{name}_path", config[f"{name}_path"]
    if not path:
        return
    state = read_checkpoint(path, field)
    if _is_fairseq(state):
        if not hasattr(backbone, "network"):
            raise InputError(f"{field}={path}: a fairseq checkpoint, where model.{name}={kind} wants a state dict")
        load_pretraining(backbone.network, config.transformer, path, field)
        return
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    _load(backbone, backbone.adapt_weights(tensors), path, field)


def _load(network: nn.Module, weights: dict[str, Tensor], path: str | Path, field: str) -> None:
    own = network.state_dict()
    used = {name: value for name, value in weights.items() if name in own}
    if not used:
        raise InputError(f"{field}={path}: none of its {len(weights)} parameters is of this network; another model?")
    for name, value in used.items():
        if value.shape != own[name].shape:
            raise InputError(
                f"{field}={path}: {name} has shape {tuple(value.shape)}, this network wants {tuple(own[name].shape)}; "
                "set the same sizes or leave the field out"
            )
    network.load_state_dict(used, strict=False)
    missing, unused = sorted(own.keys() - used.keys()), sorted(weights.keys() - used.keys())
    logger.info(f"{field}={path}: {len(used)} parameters loaded")
    logger.info(f"{field}: not in the file, left fresh: {', '.join(missing) or 'none'}")
    logger.info(f"{field}: in the file, not used: {', '.join(unused) or 'none'}")
