"""What a pickle would do, read from its instructions without running any."""

import pickletools
from dataclasses import dataclass, field

_PICKLE = b"\x80"


@dataclass
class PickleScan:
    """A pickle's instructions.

    Attributes:
        names: classes and functions that it asks for, in order, as ``module.name``.
        instructions: names of its instructions, in order.
        end: position behind it; None where it is damaged, and the others are what came before.
    """

    names: list[str] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)
    end: int | None = None


def scan_pickle(data: bytes) -> PickleScan:
    """Read the instructions of the pickle at the beginning of ``data``."""
    scan, texts = PickleScan(), []
    try:
        for instruction, argument, position in pickletools.genops(data):
            scan.instructions.append(instruction.name)
            if instruction.name in ("GLOBAL", "INST"):
                scan.names.append(argument.replace(" ", "."))
            elif instruction.name == "STACK_GLOBAL":
                scan.names.append(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
            if instruction.name == "STOP":
                scan.end = position + 1
    except (ValueError, OverflowError, EOFError):
        pass
    return scan


def names_in_pickles(data: bytes) -> list[str]:
    """The names that pickles one after another ask for, as a file of torch before 1.6 has them."""
    names: list[str] = []
    while data.startswith(_PICKLE):
        scan = scan_pickle(data)
        names += scan.names
        data = data[scan.end :] if scan.end else b""
    return names
