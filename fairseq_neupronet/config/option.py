"""How an option is declared, as a field of a plain dataclass, and how it is read there."""

import dataclasses
from typing import Any

REQUIRED = "???"  # the default of an option that a user has to give, as OmegaConf writes it


def option(default: Any, help: str, choices: tuple[str, ...] = (), advanced: bool = False) -> Any:
    """Declare an option; the field's annotation is its type.

    Args:
        default: a value; a list is copied for every configuration. A dataclass of options makes the option a section
            of its own.
        help: what the option does. Users read it in the yaml files, in ``configs/README.md`` and on fairseq's command
            line, and nowhere is it written a second time.
        choices: the values that it may have; empty where the type alone decides.
        advanced: listed after the options that most trainings need.
    """
    metadata = {"help": help, "choices": choices, "advanced": advanced}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def default_of(field: dataclasses.Field) -> Any:
    """The default of an option: a value, or the dataclass of a section with its own defaults."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
