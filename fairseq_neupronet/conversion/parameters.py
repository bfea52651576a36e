"""The official parameters under our names, every one of them accounted for."""

from dataclasses import dataclass

from omegaconf import DictConfig
from torch import Tensor, nn

from fairseq_neupronet.backbones.wav2vec2.convolutions import parse_conv_spec
from fairseq_neupronet.checkpoints.plain import printable
from fairseq_neupronet.conversion.official import CLASSIFIER, OfficialCheckpoint
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.neupronet import NeuProNetModel
from fairseq_neupronet.models.spectrogram_wav2vec2 import SpectrogramWav2Vec2Model

# Official beginning of a name, ours.
_CLASSIFIER_NAMES = (
    ("encoder.w2v_model.", "backbone.network."),
    ("encoder.proj.", "backbone.proj."),
    ("encoder.effnet.", "backbone.effnet."),
    ("encoder.attention.cla.", "backbone.projection."),
    ("encoder.model_ft.", "backbone.resnet."),
    ("decoder.", "head."),
    ("profile_extractor.w2v_model.", "profile_extractor.network."),
    ("profile_extractor.proj.", "profile_extractor.proj."),
)
_SMALL_NETWORK = 10_000_000


@dataclass
class ConvertedParameters:
    """The weights of our model.

    Attributes:
        weights: by our name, buffers included, in the order of our model.
        official_order: trainable parameters by our name, in the order of the official model.
        our_order: the same in the order of ours.
    """

    weights: dict[str, Tensor]
    official_order: list[str]
    our_order: list[str]


def convert_parameters(official: OfficialCheckpoint, config: DictConfig) -> ConvertedParameters:
    """Rename the official parameters and compare them with those of our model.

    Args:
        official: the checkpoint.
        config: our model section for it, with sizes taken from the parameters.

    Raises:
        InputError: parameters missing, extra, or of another shape: the first of each by official name, and how many.
    """
    to_ours = {name: _our_name(name, official.kind) for name in official.parameters}
    to_official = {ours: name for name, ours in to_ours.items()}
    _check_amount(official, config)
    model = _build(official, config)
    # The bank of profile embeddings is empty until an epoch of training begins.
    wanted = {name: value for name, value in model.state_dict().items() if not name.startswith("bank.")}
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    faults = []
    missing = [_official_name(name, official.kind) for name in wanted if name not in to_official]
    extra = [name for name, ours in to_ours.items() if ours not in wanted]
    unlike = [
        f"{printable(name)} {tuple(official.parameters[name].shape)} instead of {tuple(wanted[ours].shape)}"
        for name, ours in to_ours.items()
        if ours in wanted and not _alike(official.parameters[name], wanted[ours])
    ]
    for what, names in (("missing", missing), ("extra", extra), ("of the wrong shape or kind", unlike)):
        if names:
            faults.append(f"{len(names)} {what} (first: {printable(names[0], 120)})")
    if faults:
        raise InputError(
            f"{official.path}: its parameters are not those of the network that its configuration describes: "
            f"{'; '.join(faults)}"
        )
    return ConvertedParameters(
        {name: official.parameters[to_official[name]] for name in wanted},
        [ours for ours in to_ours.values() if ours in trainable],
        [name for name in wanted if name in trainable],
    )


def _our_name(name: str, kind: str) -> str:
    if kind == CLASSIFIER:
        for theirs, ours in _CLASSIFIER_NAMES:
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
        return f"unknown {name}"
    return name


def _official_name(name: str, kind: str) -> str:
    if kind == CLASSIFIER:
        for theirs, ours in _CLASSIFIER_NAMES:
            if name.startswith(ours):
                return theirs + name.removeprefix(ours)
    return name


def _alike(theirs: Tensor, ours: Tensor) -> bool:
    return theirs.shape == ours.shape and theirs.is_floating_point() == ours.is_floating_point()


def _build(official: OfficialCheckpoint, config: DictConfig) -> nn.Module:
    kind = NeuProNetModel if official.kind == CLASSIFIER else SpectrogramWav2Vec2Model
    try:
        return kind.build_model(config, None)
    except InputError as error:
        raise InputError(f"{official.path}: {error}") from None
    except (AssertionError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise InputError(
            f"{official.path}: its configuration and shapes make no network ({printable(str(error))})"
        ) from None


def _check_amount(official: OfficialCheckpoint, config: DictConfig) -> None:
    """A network that needs more numbers than the file holds is not even built.

    Raises:
        InputError: shapes that contradict one another, as damaged or hostile files have.
    """
    held = sum(value.numel() for value in official.parameters.values())
    if official.kind == CLASSIFIER:
        networks = [config.profile_extractor] if config.profiling else []
        networks += [config.transformer] if config.backbone == "spectrogram_wav2vec2" else []
        widths = [network.encoder_embed_dim for network in networks]
        needed = config.decoder_embed_dim * max(config.n_classes, *widths, config.clf_hidden_dim)
    else:
        networks, needed = [config], 0
    needed += sum(_numbers(network) for network in networks)
    # Not exact: where a few parameters are missing, their names are the better message.
    if needed > 4 * held + _SMALL_NETWORK:
        raise InputError(
            f"{official.path}: its parameters hold {held} numbers, and a network of the sizes that some of them show "
            f"has {needed} at least; their shapes contradict one another"
        )


def _numbers(network: DictConfig) -> int:
    """Numbers of the largest parts of a spectrogram wav2vec 2.0."""
    width = network.encoder_embed_dim
    layers = network.encoder_layers * (4 * width**2 + 2 * width * network.encoder_ffn_embed_dim)
    position = network.conv_pos * width * (width // max(1, network.conv_pos_groups))
    codebook = network.latent_vars * (network.latent_dim or network.final_dim) if network.quantize_targets else 0
    convolutions, channels = 0, network.n_mels
    for dim, kernel, _, _ in parse_conv_spec(network.conv_feature_layers):
        convolutions, channels = convolutions + dim * channels * kernel, dim
    return layers + position + codebook + convolutions + 2 * width * network.final_dim
