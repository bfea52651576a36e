"""Runs the option table over an official configuration, and reports every option: mapped, defaulted or dropped."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fairseq_neupronet.checkpoints.plain import printable
from fairseq_neupronet.checkpoints.texts import leaves
from fairseq_neupronet.conversion.option_rows import Row
from fairseq_neupronet.conversion.option_table import OPTIONS
from fairseq_neupronet.errors import InputError


class Report:
    """Collects what became of each option.

    Attributes:
        read: official options that a line stands for already.
        options: options of ours that were set.
    """

    def __init__(self):
        self._mapped: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        self.defaulted: list[str] = []
        self.dropped: dict[str, list[str]] = defaultdict(list)
        self.read: set[str] = set()
        self.options: set[str] = set()

    def map(self, official: str, ours: str, value: Any, note: str = "") -> None:
        """An official option became ours; ``official`` may be words where the official code knows no option."""
        self.read.add(official)
        self.options.add(ours)
        self._mapped[official, _shown(value), note].append(ours)

    def drop(self, official: str, value: Any, reason: str) -> None:
        """An official option has no counterpart; only the first reason counts."""
        if official in self.read:
            return
        self.read.add(official)
        self.dropped[reason].append(f"{official}={_shown(value)}")

    def note(self, sentence: str) -> None:
        """Something that is no option was left out or chosen."""
        self.dropped[sentence]

    def account(self, official: dict, kind: str, ours: dict[str, dict]) -> None:
        """Name everything that was not mapped: official options as dropped, ours as defaulted.

        Args:
            official: the whole configuration.
            kind: of the checkpoint.
            ours: our sections whose options stand for official ones, complete, by name.
        """
        counts: dict[tuple[str, str], int] = defaultdict(int)
        for key, value in leaves(official):
            if key in self.read or key.rsplit(".", 1)[-1] == "_name" or value == {}:
                continue
            reason, pattern = OPTIONS.why_left_out(key, kind)
            if pattern:
                counts[reason, pattern] += 1
            else:
                self.dropped[reason].append(f"{printable(key)}={_shown(value)}")
        for (reason, pattern), count in counts.items():
            self.dropped[reason].append(f"{pattern} ({count} options)")
        for section, values in ours.items():
            for key, value in leaves(values, section):
                if key not in self.options and not key.endswith("._name"):
                    self.defaulted.append(f"{key} = {_shown(value)}")

    def lines(self) -> list[str]:
        """The report, grouped."""
        mapped = [
            f"{official} -> {', '.join(ours)} = {value}" + (f" ({note})" if note else "")
            for (official, value, note), ours in self._mapped.items()
        ]
        dropped = [f"{reason}: {', '.join(options)}" if options else reason for reason, options in self.dropped.items()]
        groups = {
            "mapped (official -> ours = value)": mapped,
            "defaulted (ours, without an official word)": self.defaulted,
            "dropped (official, without a counterpart)": dropped,
        }
        return [line for title, lines in groups.items() for line in (f"{title}:", *(f"  {line}" for line in lines))]


class TableRun:
    """Converts one configuration by the rows of the option table: what a row ``does`` is the name of a method here.

    Args:
        file: the official checkpoint, for messages.
        kind: of the checkpoint.
        config: the official configuration, or the sections of it that are converted.
        target: our configuration, whose sections know every option's type and choices.
        report: gets a line for each option.
    """

    def __init__(self, file: Path, kind: str, config: dict, target: DictConfig, report: Report):
        self.file, self.kind, self.config, self.target, self.report = file, kind, config, target, report

    def run(self, *sections: str) -> None:
        """Convert the options of some sections of the table, row by row."""
        for row in OPTIONS.rows(self.kind, *sections):
            getattr(self, row.does)(row)

    def has(self, key: str) -> bool:
        """Whether the official configuration has an option, which the table has to list.

        Raises:
            KeyError: the table does not list it.
        """
        if OPTIONS.find(key, self.kind) is None:
            raise KeyError(f"{key} has no row in the option table")
        section, _, option = key.rpartition(".")
        return isinstance(self.config.get(section), dict) and option in self.config[section]

    def value(self, key: str, default: Any = None) -> Any:
        """An official option's value; ``default`` where the configuration lacks it. Raises as :meth:`has` does."""
        section, _, option = key.rpartition(".")
        return self.config[section][option] if self.has(key) else default

    def set(self, official: str, ours: str, value: Any, note: str = "") -> None:
        """Set one option of ours.

        Args:
            official: the official option as messages name it, or words where the official code knows none.
            ours: dotted name of ours.
            value: what it becomes.
            note: for the report.

        Raises:
            InputError: the value is not of the option's type, or none of its choices.
        """
        section, _, option = ours.rpartition(".")
        try:
            self.target[section][option] = value
        except OmegaConfBaseException:
            raise InputError(
                f"{self.file}: configuration key {printable(official)} is {printable(repr(value), 60)}, "
                f"which {self.our_name(ours)} cannot be; its kind is wrong, or it is none of the known choices"
            ) from None
        self.report.map(official, self.our_name(ours), self.target[section][option], note)

    def official_name(self, official: str) -> str:
        """An official option as messages name it."""
        return official

    def our_name(self, ours: str) -> str:
        """An option of ours as messages name it."""
        return ours

    # ---- what a row does -------------------------------------------------------------------------------------

    def kept(self, row: Row) -> None:
        """Every option that the checkpoint has is copied."""
        for key in filter(self.has, row.keys):
            for ours in row.targets(key):
                self.set(self.official_name(key), ours, self.value(key))

    def inert(self, row: Row) -> None:
        """The options are reported, with the row's reason."""
        for key in filter(self.has, row.keys):
            self.report.drop(self.official_name(key), self.value(key), row.reason)

    def left_out(self, row: Row) -> None:
        """The options are reported when all others are converted; see :meth:`Report.account`."""

    def named(self, row: Row) -> None:
        """A class's name: the kind of checkpoint decides it, and the report leaves it out."""

    def refused(self, row: Row) -> None:
        """Ours is off.

        Raises:
            InputError: the official option is on.
        """
        for key in row.keys:
            if self.value(key):
                raise InputError(f"{self.file}: {key} is set, {row.reason}")
            for ours in row.targets(key):
                self.set(key, ours, False)


def _shown(value: Any) -> str:
    return printable(value if isinstance(value, str) else repr(value))
