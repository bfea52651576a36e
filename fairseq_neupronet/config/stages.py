"""The two stages of a training, pretraining and fine-tuning: which options each has, and their defaults."""

import dataclasses
from typing import Any, NamedTuple

from fairseq_neupronet.config.criterion import CriterionOptions, PretrainingCriterionOptions
from fairseq_neupronet.config.data import DataOptions, FinetuningOptions
from fairseq_neupronet.config.model import NeuProNetOptions, SpectrogramWav2Vec2Options
from fairseq_neupronet.config.option import default_of

CLASSIFIER, EXTRACTOR = "NeuProNet", "spectrogram_wav2vec2"


class Section(NamedTuple):
    """A section of a configuration.

    Attributes:
        name: by which fairseq knows the task, criterion or model; its option ``_name``.
        options: the dataclass of its options.
    """

    name: str
    options: type


STAGES = {
    "finetuning": {
        "task": Section("spectrogram_finetuning", FinetuningOptions),
        "criterion": Section("NeuProNet", CriterionOptions),
        "model": Section(CLASSIFIER, NeuProNetOptions),
    },
    "pretraining": {
        "task": Section("spectrogram_pretraining", DataOptions),
        "criterion": Section("wav2vec", PretrainingCriterionOptions),
        "model": Section(EXTRACTOR, SpectrogramWav2Vec2Options),
    },
}
# Set by fairseq or by the task, never by a user: yaml files and pages leave them out.
NOT_WRITTEN = {"task.path", "model.profiling", "model.transformer.n_mels", "model.profile_extractor.n_mels"}


def written(options: type, section: str) -> list[dataclasses.Field]:
    """The options of a section that a user may set.

    Args:
        options: their dataclass.
        section: its dotted name, as ``model.transformer``.
    """
    return [field for field in dataclasses.fields(options) if f"{section}.{field.name}" not in NOT_WRITTEN]


def defaults(stage: str) -> dict[str, dict[str, Any]]:
    """The defaults of a stage: section → option → value, of plain containers, as its ``options.yaml`` holds them.

    Args:
        stage: a key of :data:`STAGES`.
    """
    return {name: {"_name": section.name} | _values(section.options, name) for name, section in STAGES[stage].items()}


def _values(options: type, section: str) -> dict[str, Any]:
    values = {field.name: default_of(field) for field in written(options, section)}
    return {
        name: _values(type(value), f"{section}.{name}") if dataclasses.is_dataclass(value) else value
        for name, value in values.items()
    }
