"""The spectrogram wav2vec 2.0 networks of an official checkpoint: options and sizes.

Sizes come from the parameters' shapes, and what the configuration says of them has to agree: a network is never built
larger than the file is. Strides, dilations, heads and probabilities leave no trace in shapes; only the configuration
knows them.
"""

import re
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from fairseq_neupronet.backbones.wav2vec2.conv_spec import parse_conv_spec
from fairseq_neupronet.conversion.official import OfficialCheckpoint
from fairseq_neupronet.conversion.options import OptionSetter
from fairseq_neupronet.conversion.report import Report
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.spectrogram_wav2vec2 import SpectrogramWav2Vec2Config

# What an official classifier lays over its pretrained networks' own settings, and their names there.
FINETUNING_OVERRIDES = {
    **{
        name: name
        for name in (
            "dropout",
            "attention_dropout",
            "activation_dropout",
            "dropout_input",
            "feature_grad_mult",
            "mask_prob",
            "mask_length",
            "mask_selection",
            "mask_other",
            "no_mask_overlap",
            "require_same_masks",
            "mask_channel_prob",
            "mask_channel_length",
            "mask_channel_selection",
            "mask_channel_other",
            "no_mask_channel_overlap",
            "mask_channel_before",
        )
    },
    "layerdrop": "encoder_layerdrop",
}
_BUILT_IN = {
    "conv_bias": False,
    "layer_type": "transformer",
    "quantize_input": False,
    "same_quantizer": False,
    "target_glu": False,
    "codebook_negatives": 0,
    "quantizer_depth": 1,
    "pos_conv_depth": 1,
    "pos_enc_type": "abs",
    "crop_seq_to_multiple": 1,
    "required_seq_len_multiple": 2,
}
_INERT = (
    "attn_type",
    "depthwise_conv_kernel_size",
    "quantizer_factor",
    "max_positions",
    "checkpoint_activations",
    "fp16",
)
_NAMES = {"num_mel": "n_mels"} | {
    name: name for name in SpectrogramWav2Vec2Config.__dataclass_fields__ if name not in ("_name", "n_mels")
}


@dataclass
class Settings:
    """Where a network's settings stand in the official configuration.

    Attributes:
        prefix: dotted key of the section.
        section: the section.
        overrides: options of the fine-tuning that are laid over it, by official key, as (our name, value).
    """

    prefix: str
    section: dict
    overrides: dict[str, tuple[str, object]]

    @property
    def is_extractor(self) -> bool:
        """Whether the key names the profile extractor; the official one serves both networks."""
        return "profile" in self.prefix or "npn" in self.prefix


def find_networks(section: dict, prefix: str) -> list[Settings]:
    """The sections within a section that say how a spectrogram wav2vec 2.0 is built."""
    found = []
    for key, value in section.items():
        if isinstance(value, dict):
            if {"conv_feature_layers", "encoder_attention_heads"} <= value.keys():
                found.append(Settings(f"{prefix}.{key}", value, {}))
            found += find_networks(value, f"{prefix}.{key}")
    return found


def copy_network(
    official: OfficialCheckpoint, settings: Settings, parameters: str, ours: str, report: Report
) -> DictConfig:
    """One network's configuration of ours.

    Args:
        official: the checkpoint, for messages and shapes.
        settings: its settings.
        parameters: what the network's parameter names begin with, e.g. ``encoder.w2v_model.``.
        ours: the section's name among ours.
        report: gets a line for each option.

    Raises:
        InputError: options of a wrong kind; sizes that differ from the parameters'.
    """
    target = OmegaConf.structured(SpectrogramWav2Vec2Config())
    setter = OptionSetter(official.path, target, ours, report)
    section = dict(settings.section)
    if "conv_feature_layers" in section:
        section["conv_feature_layers"] = str(parse_conv_spec(section["conv_feature_layers"]))
    setter.copy(section, settings.prefix, _NAMES)
    for key, (name, value) in settings.overrides.items():
        setter.set(key, name, value, "laid over the extractor's own")
    for name in [name for name in section if name not in _NAMES]:
        key, value = f"{settings.prefix}.{name}", section[name]
        if name in _INERT:
            report.drop(key, value, "has no effect on this network")
        elif name in _BUILT_IN:
            built_in = _BUILT_IN[name]
            same = "built into ours with this value" if value == built_in else f"differs: ours always has {built_in!r}"
            report.drop(key, value, same)
    _fit_sizes(official, settings, setter, parameters)
    return target


def _fit_sizes(official: OfficialCheckpoint, settings: Settings, setter: OptionSetter, parameters: str) -> None:
    shapes = Shapes(official, parameters)
    target = setter.target
    sizes = shapes.network_sizes()
    for name, size in sizes.items():
        key = f"{settings.prefix}.{'num_mel' if name == 'n_mels' else name}"
        given = settings.section.get("num_mel" if name == "n_mels" else name)
        if given is None or (name == "final_dim" and target.final_dim == 0):
            setter.set("the parameters' shapes", name, size)
        elif target[name] != size:
            raise InputError(
                f"{official.path}: configuration and parameters disagree: {key} is {target[name]}, the parameters have "
                f"{size}"
            )
    found = shapes.convolutions()
    if "conv_feature_layers" not in settings.section:
        raise InputError(
            f"{official.path}: its configuration has no {settings.prefix}.conv_feature_layers, and strides cannot be "
            "read from parameters"
        )
    layers = parse_conv_spec(target.conv_feature_layers)
    if found and [layer[:2] for layer in layers] != found:
        raise InputError(
            f"{official.path}: configuration and parameters disagree: {settings.prefix}.conv_feature_layers has "
            f"(dim, kernel) {[layer[:2] for layer in layers]}, the parameters have {found}"
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
