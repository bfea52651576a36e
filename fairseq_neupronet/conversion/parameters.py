"""The official parameters under our names and Adam's moments in our order, every one of them accounted for.

fairseq stores Adam's moments by the index of the parameter in the model, or, where it trained in half precision, as one
vector of all parameters in their order; both are put into our model's order by name.
"""

from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from fairseq_neupronet.backbones.wav2vec2.convolutions import parse_conv_spec
from fairseq_neupronet.checkpoints.plain import printable
from fairseq_neupronet.conversion.official import CLASSIFIER, OfficialCheckpoint, is_number
from fairseq_neupronet.conversion.report import Report
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
_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


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


def convert_optimizer(official: OfficialCheckpoint, parameters: ConvertedParameters, report: Report) -> dict | None:
    """The optimiser's state in the order of our parameters; None where the checkpoint has none.

    Raises:
        InputError: a state that is not that of Adam on these parameters.
    """
    state = official.state.get("last_optimizer_state")
    if state is None:
        report.note(
            "last_optimizer_state: not in the checkpoint; training from it begins with a fresh optimiser at update 0"
        )
        return None
    moments, groups = (state.get(key) for key in ("state", "param_groups")) if isinstance(state, dict) else (None, None)
    if not isinstance(moments, dict) or not isinstance(groups, list) or len(groups) != 1:
        raise _unlike(official, "it is not one group of parameters with their moments")
    group = groups[0] if isinstance(groups[0], dict) else {}
    indices = group.get("params")
    if not isinstance(indices, list) or indices != list(range(len(indices))) or not set(moments) <= set(indices):
        raise _unlike(official, "its parameters are not numbered from 0")
    theirs, ours = parameters.official_order, parameters.our_order
    shapes = {name: parameters.weights[name].shape for name in theirs}
    if len(indices) == len(theirs):
        position = {name: index for index, name in enumerate(theirs)}
        for name, index in position.items():
            if index in moments:
                _check_moments(official, moments[index], shapes[name], name)
        reordered = {
            number: _plain_moments(moments[position[name]])
            for number, name in enumerate(ours)
            if position[name] in moments
        }
    elif len(indices) == 1:
        total = sum(shape.numel() for shape in shapes.values())
        if 0 in moments:
            _check_moments(official, moments[0], torch.Size([total]), "all of them in one vector")
        reordered = {index: _reorder_flat(value, theirs, ours, shapes) for index, value in moments.items()}
        report.note("last_optimizer_state: one vector, of training in half precision; go on with common.fp16=true")
    else:
        raise _unlike(official, f"it is of {len(indices)} parameters, the network trains {len(theirs)}")
    kept = {key: _number_or_pair(value) for key, value in group.items() if key != "params"}
    converted = {
        "state": reordered,
        "param_groups": [{k: v for k, v in kept.items() if v is not None} | {"params": list(range(len(indices)))}],
    }
    if is_number(state.get("loss_scale")):
        converted["loss_scale"] = state["loss_scale"]
    report.map("last_optimizer_state", "last_optimizer_state", f"moments of {len(reordered)} of {len(indices)}")
    return converted


def _check_moments(official: OfficialCheckpoint, moments: object, shape: torch.Size, name: str) -> None:
    if not isinstance(moments, dict) or not {"step", "exp_avg", "exp_avg_sq"} <= moments.keys():
        raise _unlike(official, f"it has no moments of Adam for {name}")
    for key, value in moments.items():
        if key == "step":
            sound = is_number(value) or (isinstance(value, Tensor) and value.numel() == 1)
        else:
            sound = key in _MOMENTS and isinstance(value, Tensor) and value.shape == shape
        if not sound:
            shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise _unlike(official, f"{printable(str(key))} of {name} is {shown}, not {tuple(shape)}")


def _plain_moments(moments: dict) -> dict:
    return {key: int(value) if key == "step" else value for key, value in moments.items()}


def _reorder_flat(moments: dict, theirs: list[str], ours: list[str], shapes: dict[str, torch.Size]) -> dict:
    def reorder(vector: Tensor) -> Tensor:
        parts = dict(zip(theirs, vector.split([shapes[name].numel() for name in theirs]), strict=True))
        return torch.cat([parts[name] for name in ours])

    plain = _plain_moments(moments)
    return {key: reorder(value) if isinstance(value, Tensor) else value for key, value in plain.items()}


def _unlike(official: OfficialCheckpoint, why: str) -> InputError:
    return InputError(
        f"{official.path}: its optimiser state cannot be taken over: {why}; leave it out with --without-optimizer"
    )


def _number_or_pair(value: object) -> object:
    if isinstance(value, bool) or is_number(value):
        return value
    if isinstance(value, list | tuple) and len(value) == 2 and all(map(is_number, value)):
        return tuple(value)
    return None
