"""What a benchmark row is: two sides, the figures read from them, and what is wanted of each figure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Run = Callable[[], dict[str, float]]  # one measured run: figures by key


@dataclass(frozen=True)
class Options:
    """What the user asked for; every child gets the same.

    Args:
        scratch: a folder for the files of this benchmark, removed at its end.
        quick: smaller sizes, three runs.
        vocalsound: folder of VocalSound-1s as ``neupronet prepare`` leaves it; None without.
        audio: folder of audio files; None without.
        device: ``cpu`` or ``cuda``; what runs on the CPU alone is not measured on another.
    """

    scratch: Path
    quick: bool = False
    vocalsound: Path | None = None
    audio: Path | None = None
    device: str = "cpu"

    @property
    def runs(self) -> int:
        """Measured runs of a side, after a warm-up run."""
        return 3 if self.quick else 5

    def wanted(self, of: str, least: float | None = None, most: float | None = None) -> "Wanted | None":
        """A bound that was set for two cores of a CPU; None elsewhere."""
        return Wanted(of, least, most) if self.device == "cpu" else None


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Args:
        prepare: called once in the side's own process; imports, builds, and returns the function that does one run.
        environment: variables that the process starts with, for what must be set before Python does anything.
    """

    prepare: Callable[[], Run]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """A bound on one figure.

    Args:
        of: ``ratio``, ``ours``, or ``excess``, which is ours minus the yardstick.
        least, most: the bound; one of them is given.
    """

    of: str
    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        bound = f"≥ {self.least:g}" if self.most is None else f"≤ {self.most:g}"
        return f"{self.of} {bound}"

    def met(self, ours: float, yardstick: float | None, ratio: float | None) -> bool:
        value = {"ratio": ratio, "ours": ours, "excess": ours - (yardstick or 0.0)}[self.of]
        return value >= self.least if self.most is None else value <= self.most


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Args:
        name: what is measured, with its size.
        key: under which a run returns it.
        unit: of both sides.
        wanted: the bound; None where none is set.
        ratio: ``yardstick / ours``, how many times better where less is better, or ``ours / yardstick``.
        compared: whether the yardstick has this figure too.
    """

    name: str
    key: str
    unit: str
    wanted: Wanted | None = None
    ratio: str = "yardstick / ours"
    compared: bool = True

    def ratio_of(self, ours: float, yardstick: float | None) -> float | None:
        if yardstick is None:
            return None
        over, under = (yardstick, ours) if self.ratio == "yardstick / ours" else (ours, yardstick)
        return over / under if under else None


@dataclass(frozen=True)
class Comparison:
    """Two sides that take turns.

    Args:
        name: what ``--only`` calls it.
        figures: the lines that it gives.
        ours: our side.
        yardstick: the other; None where a figure has a bound and nothing to be compared with.
        setup: called once in the benchmark's own process before the sides start; makes files.
        fresh: a new process for every run instead of one for all, without a warm-up run: for what is measured once in
            a process's life, such as the memory that a load adds.
        runs: of a side; None for :attr:`Options.runs`.
        lacks: why it cannot be measured with the options given; empty when it can.
    """

    name: str
    figures: tuple[Figure, ...]
    ours: Side
    yardstick: Side | None = None
    setup: Callable[[], None] | None = None
    fresh: bool = False
    runs: int | None = None
    lacks: str = ""
