"""Weights that a network starts from: read as tensors and plain containers, matched by name, reported."""

import logging
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from fairseq_neupronet.checkpoints.contents import Contents, contents_of, model_name
from fairseq_neupronet.checkpoints.plain import check_archive
from fairseq_neupronet.config.stages import EXTRACTOR
from fairseq_neupronet.errors import InputError

logger = logging.getLogger(__name__)


class StartWeights:
    """The files that a network starts from, each read once, however many of the network's parts ask for it.

    Every method takes the config field that named the file, for messages.
    """

    def __init__(self):
        self._states: dict[Path, dict] = {}

    def is_checkpoint(self, path: str | Path, field: str) -> bool:
        """Whether a file is a checkpoint of fairseq (of any model), rather than a library's state dict.

        Raises:
            InputError: missing, damaged, or holding other classes than tensors and plain containers.
        """
        return {"cfg", "model"} <= self._read(path, field).keys()

    def pretraining(self, path: str | Path, field: str) -> Contents:
        """One of our pretraining checkpoints.

        Raises:
            InputError: see :meth:`is_checkpoint`; or a checkpoint of another model.
        """
        state = self._read(path, field)
        name = model_name(state)
        if name != EXTRACTOR:
            raise InputError(
                f"{field}={path}: a checkpoint of {name or 'an unknown model'}, where one of {EXTRACTOR} is wanted; "
                "pretrain one with configs/pretraining"
            )
        return contents_of(path, state)

    def warn_of_other_features(self, paths: dict[str, str | None], recipe: dict | None, normalize: bool) -> None:
        """Log in what the spectrograms of a pretraining differ from those at hand.

        Args:
            paths: config field → the file that it names; a library's state dict knows no spectrograms.
            recipe: of the data at hand; None where it is not known.
            normalize: ``task.normalize``.
        """
        for field, path in paths.items():
            if not path or not self.is_checkpoint(path, field):
                continue
            pretrained = self.pretraining(path, field)
            theirs, found = pretrained.data.get("recipe"), []
            if recipe and theirs:
                found = [
                    f"{name} {theirs.get(name)}, here {recipe[name]}"
                    for name in recipe
                    if name != "name" and theirs.get(name) != recipe[name]
                ]
            normalized = pretrained.config["task"]["normalize"]
            if normalized != normalize:
                found.append(f"task.normalize={normalized}, here {normalize}")
            if found:
                logger.warning(
                    f"{field}={path}: pretrained on other spectrograms ({'; '.join(found)}); pretrain on such as those "
                    "at hand, or expect less of it"
                )

    def load_pretraining(self, network: nn.Module, config, path: str | Path, field: str) -> None:
        """Load one of our pretraining checkpoints into a transformer of the same sizes.

        Raises:
            InputError: see :meth:`pretraining`; or another mel count, or sizes that do not fit.
        """
        pretrained = self.pretraining(path, field)
        n_mels = pretrained.config["model"]["n_mels"]
        if n_mels != config.n_mels:
            raise InputError(
                f"{field}={path}: pretrained on {n_mels} mel bands, the data has {config.n_mels}; pretrain on the same "
                "features"
            )
        _load(network, pretrained.weights, path, field)

    def load_backbone(self, backbone: nn.Module, config) -> None:
        """Load ``model.backbone_path``: our pretraining checkpoint or a library's state dict; nothing where unset.

        Raises:
            InputError: unreadable, of another model, or with sizes that do not fit.
        """
        field, path = "model.backbone_path", config.backbone_path
        if not path:
            return
        if self.is_checkpoint(path, field):
            if not hasattr(backbone, "network"):
                raise InputError(
                    f"{field}={path}: a fairseq checkpoint, where model.backbone={config.backbone} wants a state dict"
                )
            self.load_pretraining(backbone.network, config.transformer, path, field)
            return
        tensors = {name: value for name, value in self._read(path, field).items() if isinstance(value, Tensor)}
        _load(backbone, backbone.adapt_weights(tensors), path, field)

    def _read(self, path: str | Path, field: str) -> dict:
        key = Path(path).resolve()
        if key not in self._states:
            self._states[key] = _read(Path(path), field)
        return self._states[key]


def _read(path: Path, field: str) -> dict:
    """A file of tensors and plain containers; anything else in it is refused and nothing of it runs.

    A library may publish weights in the format of torch before 1.6, which :func:`read_plain_checkpoint` refuses.
    """
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
