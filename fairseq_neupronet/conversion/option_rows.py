"""What a row of the option table says, how rows are found, and how the table is printed."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property

UNKNOWN = "unknown to this version"


@dataclass(frozen=True)
class Row:
    """Official options, their counterpart here, and how those of a checkpoint are converted.

    Attributes:
        official: dotted keys, parted by spaces; one without a dot is of the first one's section. ``*`` stands for
            every option that no earlier row fits.
        ours: the counterpart; names of ours in backquotes, ``*`` for the official name.
        does: the method that converts them, of :class:`fairseq_neupronet.conversion.report.TableRun` or of a class
            made of it. ``kept``: the value is copied to every option that ``ours`` names. ``left_out`` and ``inert``:
            it is not. ``refused``: a checkpoint that has it set is not converted. Others compute ours, each as its
            method says.
        note: for readers of the table; a row without one shows its reason, or else that it is the same.
        reason: why options are left out of a converted checkpoint, or why it is refused; in rows that compute ours:
            why options are left out that they had no use for.
        values: ours by official value, where the two differ.
        each: one value for each key: what a flag that is set is here, or what ours always has.
        counted: the report only counts the options that a pattern of the row fits.
    """

    official: str
    ours: str
    does: str = "kept"
    note: str = ""
    reason: str = UNKNOWN
    values: Mapping = field(default_factory=dict)
    each: tuple = ()
    counted: bool = False

    @cached_property
    def keys(self) -> list[str]:
        """Official keys, each with its section."""
        first, *others = self.official.split()
        section = first.rpartition(".")[0]
        return [first, *(key if "." in key or not section else f"{section}.{key}" for key in others)]

    def pattern_for(self, key: str) -> str | None:
        """The first of the row's patterns that fits an official key; None where none does."""
        return next((pattern for pattern in self.keys if "*" in pattern and fnmatchcase(key, pattern)), None)

    def targets(self, key: str) -> list[str]:
        """The options of ours that stand for an official key, dotted."""
        names = self.ours.split("`")[1::2]
        return [name.replace("*", key if name == "*" else key.rpartition(".")[2]) for name in names]

    @property
    def cells(self) -> tuple[list[str], str, str]:
        """What the printed table shows: official names, ours, and what became of them."""
        note = "same" if self.reason == UNKNOWN else self.reason
        if self.does in ("left_out", "inert") and all(self.targets(key) == [key] for key in self.keys):
            note = f"same; not converted: {self.reason}"
        return self.official.split(), self.ours, self.note or note


@dataclass(frozen=True)
class Section:
    """Rows that belong together and are converted one after the other.

    Attributes:
        name: what the converter calls it.
        title: what the printed table calls it.
        rows: its rows.
        kind: of the checkpoints that have such options; None for both.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    kind: str | None = None


class OptionTable(tuple[Section, ...]):
    """Sections in the order in which they are printed."""

    def rows(self, kind: str, *names: str) -> list[Row]:
        """The rows for a kind of checkpoint, in order; those of some sections where these are named."""
        sections = [section for section in self if section.kind in (None, kind)]
        return [row for section in sections if not names or section.name in names for row in section.rows]

    def find(self, key: str, kind: str) -> Row | None:
        """The row that names an official key, else the first whose pattern fits; None where there is none.

        Args:
            key: dotted, as a checkpoint's configuration has it.
            kind: of the checkpoint.
        """
        rows = self.rows(kind)
        named = next((row for row in rows if key in row.keys), None)
        return named or next((row for row in rows if row.pattern_for(key)), None)

    def why_left_out(self, key: str, kind: str) -> tuple[str, str | None]:
        """Why an official option has no counterpart in a converted checkpoint.

        Returns:
            The reason, and the pattern under which the report only counts such options; None where it lists them.
        """
        row = self.find(key, kind)
        if row is None or row.reason == UNKNOWN:
            return UNKNOWN, None
        patterns = (each.pattern_for(key) for each in self.rows(kind) if each.counted)
        return row.reason, next(filter(None, patterns), None)

    def markdown(self) -> str:
        """The table as ``examples/official_checkpoints/README.md`` shows it."""
        lines = ["| official | ours | |", "|---|---|---|"]
        for section in self:
            lines.append(f"| **{section.title}** | | |")
            for official, ours, note in (row.cells for row in section.rows):
                lines.append(f"| {', '.join(f'`{key}`' for key in official)} | {ours} | {note} |")
        return "\n".join(lines) + "\n"

    def text(self, widths: tuple[int, int, int] = (36, 41, 37)) -> str:
        """The table in columns of so many characters."""
        lines = []
        for section in self:
            lines.append(section.title)
            for official, ours, note in (row.cells for row in section.rows):
                lines += _in_columns((", ".join(official), ours.replace("`", ""), note), widths)
        return "\n".join(lines) + "\n"


def _in_columns(cells: tuple[str, ...], widths: tuple[int, ...]) -> list[str]:
    wrapped = [textwrap.wrap(cell, width, break_on_hyphens=False) for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, wrapped))
    columns = [[*lines, *[""] * (height - len(lines))] for lines in wrapped]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in zip(*columns, strict=True)
    ]
