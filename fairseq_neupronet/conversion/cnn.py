"""Which CNN the parameters of an official ``CNN_NPN`` are of."""

import re

from fairseq_neupronet.checkpoints.plain import printable
from fairseq_neupronet.conversion.networks import Shapes
from fairseq_neupronet.conversion.official import OfficialCheckpoint
from fairseq_neupronet.errors import InputError

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


def recognise_cnn(official: OfficialCheckpoint, shapes: Shapes) -> str:
    """The backbone's name among ours, read from the parameters; ``model.cnn_arch`` has to agree.

    Raises:
        InputError: no network that we know, or another one than the configuration names.
    """
    found = _efficientnet(official, shapes) if shapes.any("encoder.effnet.") else _resnet(official, shapes)
    told = official.section("model").get("cnn_arch")
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
