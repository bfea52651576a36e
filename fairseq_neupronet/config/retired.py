"""Options that this version no longer has, each with what takes its place.

fairseq drops a field that it does not know from a checkpoint's configuration, without a word; what remains would be
another model, or the training would go on as another one. So a value that had an effect is refused in one sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fairseq_neupronet.errors import InputError


@dataclass(frozen=True)
class Retired:
    """An option that went.

    Attributes:
        default: the value that had no effect, which a configuration may still hold.
        instead: what to do instead, as the end of a sentence.
        training_only: a model that was trained with it is used like any other; only a training with it is refused.
    """

    default: object
    instead: str
    training_only: bool = False


_TWO_MODELS = "train two models and evaluate them together: --path A.pt --path B.pt"
# By section and name, as on the command line. Where several are set the first one is named.
RETIRED = {
    "task.mixup_partners": Retired(
        "any", "leave it out: task.mixup mixes with any clip of the batch", training_only=True
    ),
    "task.profiles_per_batch": Retired(
        None, "leave it out: profile batches hold as many profiles as dataset.batch_size holds", training_only=True
    ),
    "task.two_views": Retired(False, _TWO_MODELS),
    "model.second_backbone": Retired(None, _TWO_MODELS),
    "model.second_backbone_path": Retired(None, _TWO_MODELS),
}


def check_retired(config: Mapping, where: str | Path, training: bool = False) -> None:
    """Refuse a configuration that sets an option that went.

    Args:
        config: of a checkpoint or a training: section → option → value. What else is in it is not looked at.
        where: the file or command that it comes from, for the message.
        training: the training shall start or go on; otherwise the model of a checkpoint is wanted, whose options of
            training no longer matter.

    Raises:
        InputError: naming the option, its value, and what is used instead.
    """
    for option, retired in RETIRED.items():
        section, _, name = option.partition(".")
        values = config.get(section)
        if not isinstance(values, Mapping) or name not in values or (retired.training_only and not training):
            continue
        # As texts: a yaml file, a checkpoint and a dataclass hold enumerations in different ways.
        value = str(values[name])
        if value != str(retired.default):
            raise InputError(f"{where}: {option}={value:.80}, which this version no longer has; {retired.instead}")
