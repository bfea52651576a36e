"""Set options of our typed configurations from a stranger's values."""

from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fairseq_neupronet.checkpoints.plain import printable
from fairseq_neupronet.conversion.report import Report
from fairseq_neupronet.errors import InputError


class OptionSetter:
    """Copies official options into one typed section of ours, each with a line in the report.

    Args:
        file: the official checkpoint, for messages.
        target: our section, made of its dataclass, which knows every option's type and choices.
        name: what the section is called, e.g. ``model.transformer``.
        report: gets a line for each option.
    """

    def __init__(self, file, target: DictConfig, name: str, report: Report):
        self.file, self.target, self.name, self.report = file, target, name, report

    def set(self, official: str, ours: str, value: Any, note: str = "") -> None:
        """Set one option.

        Raises:
            InputError: the value is not of the option's type, or none of its choices.
        """
        try:
            self.target[ours] = value
        except OmegaConfBaseException:
            raise InputError(
                f"{self.file}: configuration key {printable(official)} is {printable(repr(value), 60)}, which "
                f"{self.name}.{ours} cannot be; its kind is wrong, or it is none of the known choices"
            ) from None
        self.report.map(official, f"{self.name}.{ours}", self.target[ours], note)

    def copy(self, section: dict, prefix: str, names: dict[str, str]) -> None:
        """Set the options that an official section has; ``names`` gives ours by official name."""
        for official, ours in names.items():
            if official in section:
                self.set(f"{prefix}.{official}", ours, section[official])
