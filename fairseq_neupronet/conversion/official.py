"""An official checkpoint: told from others, its parts taken out with their kinds checked, its sizes read off."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fairseq_neupronet.backbones.wav2vec2.convolutions import parse_conv_spec
from fairseq_neupronet.checkpoints.plain import printable, read_plain_checkpoint
from fairseq_neupronet.checkpoints.texts import check_texts
from fairseq_neupronet.conversion import CLASSIFIER, EXTRACTOR
from fairseq_neupronet.errors import InputError

OUR_TASKS = ("spectrogram_finetuning", "spectrogram_pretraining")
_CLASSIFIER_PARAMETERS = re.compile(r"encoder\.(w2v_model|effnet|model_ft)\.|profile_extractor\.w2v_model\.")
_WRAPPER = "module."
# (blocks, channels of the last convolution) of each EfficientNet, which no two share.
EFFICIENTNETS = {
    (16, 1280): "b0",
    (23, 1280): "b1",
    (23, 1408): "b2",
    (26, 1536): "b3",
    (32, 1792): "b4",
    (39, 2048): "b5",
    (45, 2304): "b6",
    (55, 2560): "b7",
}
# Blocks of the four stages, and whether a block has a third convolution.
RESNETS = {((2, 2, 2, 2), False): "18", ((3, 4, 6, 3), False): "34", ((3, 4, 6, 3), True): "50"}


@dataclass
class OfficialCheckpoint:
    """An official checkpoint's parts.

    Attributes:
        path: the file.
        kind: ``EXTRACTOR`` (spectrogram wav2vec 2.0) or ``CLASSIFIER`` (``NeuProNet`` or ``CNN_NPN``).
        config: its configuration, of plain containers.
        parameters: by official name, buffers included, in the order of the official model.
        state: everything.
    """

    path: Path
    kind: str
    config: dict
    parameters: dict[str, Tensor]
    state: dict

    @classmethod
    def read(cls, path: str | Path) -> "OfficialCheckpoint":
        """Read and recognise a file.

        Raises:
            InputError: unreadable or unsafe (see :func:`read_plain_checkpoint`), or of another kind, which is named.
        """
        path = Path(path)
        state = read_plain_checkpoint(path)
        config, parameters = state.get("cfg"), state.get("model")
        if not isinstance(config, dict) or not isinstance(parameters, dict):
            named = ", ".join(printable(str(key)) for key in list(state)[:8]) or "nothing"
            what = "the weights alone" if all(isinstance(value, Tensor) for value in state.values()) else named
            raise InputError(
                f"{path}: holds {what}, without the configuration (cfg) and model of a checkpoint of fairseq since "
                "2021; give the file that official training saved"
            )
        if not parameters or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in parameters.items()
        ):
            raise InputError(f"{path}: its model is not a collection of named parameters")
        # What a wrapper for several processes puts before every name.
        while all(name.startswith(_WRAPPER) for name in parameters):
            parameters = {name.removeprefix(_WRAPPER): value for name, value in parameters.items()}
        checkpoint = cls(path, "", config, parameters, state)
        checkpoint.kind = checkpoint._recognise()
        check_texts(config, path)
        return checkpoint

    def section(self, name: str) -> dict:
        """A section of the configuration; empty where there is none."""
        section = self.config.get(name)
        return section if isinstance(section, dict) else {}

    def _recognise(self) -> str:
        task, model = (printable(str(self.section(part).get("_name"))) for part in ("task", "model"))
        if task in OUR_TASKS:
            raise InputError(f"{self.path}: one of ours already (task {task}); it needs no conversion")
        if model == "wav2vec2" and ("num_mel" in self.section("model") or task == "stft_audio_pretraining"):
            return EXTRACTOR
        if any(_CLASSIFIER_PARAMETERS.match(name) for name in self.parameters):
            return CLASSIFIER
        if model in ("NeuProNet", "CNN_NPN"):
            raise InputError(
                f"{self.path}: named {model}, but its {len(self.parameters)} parameters (first: "
                f"{printable(next(iter(self.parameters)))}) are not those of the official network"
            )
        raise InputError(
            f"{self.path}: a checkpoint of stock fairseq or of another project (model {model}, task {task}), not of "
            "the official NeuProNet code"
        )


class Shapes:
    """Sizes read from the shapes of an official checkpoint's parameters.

    Args:
        official: the checkpoint.
        prefix: of the parameters' names.
    """

    def __init__(self, official: OfficialCheckpoint, prefix: str = ""):
        self._shapes = {
            name.removeprefix(prefix): tuple(value.shape)
            for name, value in official.parameters.items()
            if name.startswith(prefix)
        }

    def __contains__(self, name: str) -> bool:
        return name in self._shapes

    def size(self, name: str, axis: int = 0) -> int | None:
        """One size; None where there is no such parameter or axis, which is found out when all are compared."""
        shape = self._shapes.get(name, ())
        return shape[axis] if axis < len(shape) else None

    def any(self, prefix: str) -> bool:
        """Whether any parameter's name begins so."""
        return any(name.startswith(prefix) for name in self._shapes)

    def _numbers(self, before: str) -> set[str]:
        names = (name.removeprefix(before) for name in self._shapes if name.startswith(before))
        return {name.split(".", 1)[0] for name in names}

    def count(self, before: str) -> int:
        """How many numbered parts there are: different n in names ``{before}{n}.…``."""
        return len(self._numbers(before))

    def highest(self, before: str) -> int:
        """The highest number of a part; -1 where there is none."""
        return max((int(number) for number in self._numbers(before) if re.fullmatch(r"\d{1,4}", number)), default=-1)

    def convolutions(self) -> list[tuple[int, int]]:
        """(dim, kernel) of each convolution, as far as they are numbered without a gap."""
        layers = []
        while (dim := self.size(f"feature_extractor.conv_layers.{len(layers)}.0.weight")) is not None:
            layers.append((dim, self.size(f"feature_extractor.conv_layers.{len(layers)}.0.weight", 2)))
        return layers

    def has_convolutions(self, spec: str) -> bool:
        """Whether the convolutions have the dims and kernels of a specification."""
        return self.convolutions() == [layer[:2] for layer in parse_conv_spec(spec)]

    def extractor_mode(self) -> str:
        """Which norm follows the first convolution, by its parameter's name."""
        return "layer_norm" if "feature_extractor.conv_layers.0.2.1.weight" in self else "default"

    def quantizer_sizes(self) -> dict[str, bool | int]:
        """Whether targets are quantised, and the codebook's options."""
        codewords, part = self.size("quantizer.vars", 1), self.size("quantizer.vars", 2)
        width = self.size("project_q.weight", 1)
        if not (codewords and part and width and part <= width):
            return {"quantize_targets": False}
        groups = width // part
        return {
            "quantize_targets": True,
            "latent_vars": codewords // groups,
            "latent_groups": groups,
            "latent_dim": width,
        }

    def network_sizes(self) -> dict[str, int]:
        """The options of a network that its parameters decide, by our names."""
        width, groups = self.size("mask_emb"), self.size("encoder.pos_conv.0.weight_v", 1)
        sizes = {
            "n_mels": self.size("feature_extractor.conv_layers.0.0.weight", 1),
            "encoder_layers": self.count("encoder.layers."),
            "encoder_embed_dim": width,
            "encoder_ffn_embed_dim": self.size("encoder.layers.0.fc1.weight"),
            "conv_pos": self.size("encoder.pos_conv.0.weight_v", 2),
            "conv_pos_groups": width // groups if width and groups else None,
            "final_dim": self.size("final_proj.weight"),
        }
        return {name: size for name, size in sizes.items() if size is not None}


def recognise_cnn(official: OfficialCheckpoint, shapes: Shapes, told: object) -> str:
    """The backbone's name among ours, read from the parameters; ``model.cnn_arch`` (``told``) has to agree.

    Raises:
        InputError: no network that we know, or another one than the configuration names.
    """
    found = _efficientnet(official, shapes) if shapes.any("encoder.effnet.") else _resnet(official, shapes)
    named = re.search(r"(?i)(resnet|eff\w*net)\D*?(b?\d+)", told) if isinstance(told, str) else None
    if named:
        family, number = named[1].lower()[:3], named[2].lower().removeprefix("b")
        if not found.startswith(family) or number != re.search(r"\d+$", found)[0]:
            raise InputError(
                f"{official.path}: configuration and parameters disagree: model.cnn_arch is {printable(told)}, the "
                f"parameters are those of {found}"
            )
    return found


def _efficientnet(official: OfficialCheckpoint, shapes: Shapes) -> str:
    blocks = shapes.highest("encoder.effnet._blocks.") + 1
    channels = shapes.size("encoder.effnet._conv_head.weight")
    for (known_blocks, known_channels), variant in EFFICIENTNETS.items():
        if blocks == known_blocks and channels in (known_channels, None):
            return f"efficientnet-{variant}"
    raise InputError(
        f"{official.path}: its EfficientNet has {blocks} blocks and {channels} channels at its end, as none of B0 to "
        "B7; are parameters missing?"
    )


def _resnet(official: OfficialCheckpoint, shapes: Shapes) -> str:
    stages = tuple(shapes.highest(f"encoder.model_ft.layer{stage}.") + 1 for stage in (1, 2, 3, 4))
    variant = RESNETS.get((stages, shapes.any("encoder.model_ft.layer1.0.conv3.")))
    if variant is None:
        raise InputError(
            f"{official.path}: its ResNet has {stages} blocks, as none of ResNet-18, 34 and 50; are parameters missing?"
        )
    return f"resnet{variant}"


def is_number(value: object) -> bool:
    """Whether a value of a checkpoint is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)
