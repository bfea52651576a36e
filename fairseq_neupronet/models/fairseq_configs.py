"""The options of :mod:`fairseq_neupronet.config` as fairseq's dataclasses, for its command line and Hydra's schema."""

import dataclasses
from collections.abc import Callable
from types import UnionType
from typing import List, Optional, get_origin  # fairseq's argument parser reads these forms only

from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from fairseq_neupronet.config.criterion import CriterionOptions
from fairseq_neupronet.config.data import DataOptions, FinetuningOptions
from fairseq_neupronet.config.model import NeuProNetOptions, SmallCnnOptions, SpectrogramWav2Vec2Options


def with_options(options: type) -> Callable[[type], type]:
    """Make a class a dataclass that has the options of a plain one, in its order, in fairseq's forms.

    An option with choices gets an enumeration as its type, so that Hydra refuses any other value. An option that is a
    section is annotated in the class itself, with the section's fairseq dataclass; inherited options stay.

    Args:
        options: a dataclass whose fields are made by :func:`~fairseq_neupronet.config.option.option`.
    """

    def make(kind: type) -> type:
        sections, types = kind.__dict__.get("__annotations__", {}), {}
        inherited = {name for base in kind.__mro__ for name in getattr(base, "__dataclass_fields__", ())}
        for field in dataclasses.fields(options):
            if field.name in inherited:
                continue
            default = {"default": field.default, "default_factory": field.default_factory}
            if field.name in sections:
                default = {"default_factory": sections[field.name]}
            # fairseq offers a value that is another option's under that option, unless there is help for it here.
            refers = isinstance(field.default, str) and field.default.startswith("${")
            metadata = {} if refers else {"help": field.metadata["help"]}
            types[field.name] = sections.get(field.name) or _fairseq_type(field)
            setattr(kind, field.name, dataclasses.field(metadata=metadata, **default))
        kind.__annotations__ = types
        return dataclasses.dataclass(kind)

    return make


def _fairseq_type(field: dataclasses.Field):
    if field.metadata["choices"]:
        return ChoiceEnum(list(field.metadata["choices"]))
    if isinstance(field.type, UnionType):  # with None
        return Optional[_fairseq_form(field.type.__args__[0])]
    return _fairseq_form(field.type)


def _fairseq_form(kind: type):
    return List[kind.__args__[0]] if get_origin(kind) is list else kind


@with_options(DataOptions)
class SpectrogramTaskConfig(FairseqDataclass):
    """The options of the task ``spectrogram_pretraining``."""


@with_options(FinetuningOptions)
class SpectrogramFinetuningConfig(SpectrogramTaskConfig):
    """The options of the task ``spectrogram_finetuning``."""


@with_options(CriterionOptions)
class NeuProNetCriterionConfig(FairseqDataclass):
    """The options of the criterion ``NeuProNet``."""


@with_options(SpectrogramWav2Vec2Options)
class SpectrogramWav2Vec2Config(FairseqDataclass):
    """The options of the model ``spectrogram_wav2vec2``."""


@with_options(SmallCnnOptions)
class SmallCnnConfig(FairseqDataclass):
    """The options of the backbone ``small_cnn``."""


@with_options(NeuProNetOptions)
class NeuProNetConfig(FairseqDataclass):
    """The options of the model ``NeuProNet``."""

    transformer: SpectrogramWav2Vec2Config
    small_cnn: SmallCnnConfig
    profile_extractor: SpectrogramWav2Vec2Config
