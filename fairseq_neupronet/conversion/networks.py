"""The spectrogram wav2vec 2.0 networks of an official checkpoint: options and sizes.

Sizes come from the parameters' shapes, and what the configuration says of them has to agree: a network is never built
larger than the file is. Strides, dilations, heads and probabilities leave no trace in shapes; only the configuration
knows them.
"""

from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from fairseq_neupronet.backbones.wav2vec2.convolutions import parse_conv_spec
from fairseq_neupronet.conversion.official import OfficialCheckpoint
from fairseq_neupronet.conversion.report import OptionSetter, Report
from fairseq_neupronet.conversion.shapes import Shapes
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.fairseq_configs import SpectrogramWav2Vec2Config

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
# Networks that the official recipes build, for checkpoints that do not say how theirs is built. Strides, dilations and
# attention heads leave no trace in sizes: a network of the sizes of a known one is believed to be it, and the report
# says so. These are the settings of the authors' extractors (NEUPRONET.md, section 3) and of the reference checkpoints'
# one; what they leave out is read from shapes, or is the same in all.
_KNOWN = {
    "the official recipe of 128 mels": {
        "conv_feature_layers": "[(512, 5, 1, 2), (512, 5, 2, 2), (256, 5, 4, 2)]",
        "encoder_layers": 2,
        "encoder_embed_dim": 256,
        "encoder_ffn_embed_dim": 512,
        "encoder_attention_heads": 2,
        "num_negatives": 20,
        "cross_sample_negatives": 80,
        "dropout_features": 0.1,
    },
    "the official recipe of 192 mels": {
        "conv_feature_layers": "[(512, 5, 1, 1), (512, 5, 1, 2), (512, 5, 2, 2), (256, 5, 4, 2)]",
        "encoder_layers": 2,
        "encoder_embed_dim": 256,
        "encoder_ffn_embed_dim": 512,
        "encoder_attention_heads": 2,
        "num_negatives": 0,
        "cross_sample_negatives": 100,
        "dropout_features": 0.3,
    },
    "the reference checkpoints": {
        "conv_feature_layers": "[(64, 3, 1, 1), (64, 3, 2, 2)]",
        "encoder_layers": 2,
        "encoder_embed_dim": 64,
        "encoder_ffn_embed_dim": 128,
        "encoder_attention_heads": 4,
        "num_negatives": 5,
        "cross_sample_negatives": 5,
        "dropout_features": 0.0,
    },
}
_SIZES = ("encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim")
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


def known_network(shapes: Shapes, ours: str, overrides: dict, report: Report) -> Settings | None:
    """The settings of the known network that has these sizes; None where there is none.

    Args:
        shapes: of the network's parameters.
        ours: our section for it, e.g. ``model.profile_extractor``.
        overrides: options of the fine-tuning, as :class:`Settings` holds them.
        report: gets a line that says what is believed.
    """
    sizes, quantizer = shapes.network_sizes(), shapes.quantizer_sizes()
    for name, network in _KNOWN.items():
        alike = all(sizes.get(size) == network[size] for size in _SIZES)
        if alike and shapes.has_convolutions(network["conv_feature_layers"]):
            report.note(
                f"{ours}: OFFICIAL.pt does not say how it is built; its sizes are those of {name}, so its strides, "
                "dilations, attention heads, order of layer norms and activation are believed to be too; --extractor "
                "PRETRAINED.pt tells for certain"
            )
            return Settings(name, network | {"extractor_mode": shapes.extractor_mode()} | quantizer, overrides)
    return None
