"""Read a checkpoint of unknown origin: tensors, numbers and plain containers, or nothing.

A checkpoint of torch is a zip archive of uncompressed members: ``data.pkl``, a pickle, and one member a tensor. A
pickle is a program; everything that this one could do is checked before it runs: the archive's directory first, which
says how much there is to read, then the pickle's instructions, which name every class and function that it asks for.
"""

import pickletools
import struct
import zipfile
from pathlib import Path

import torch

from fairseq_neupronet.errors import InputError

MAX_PICKLE_BYTES = 16 * 2**20
MAX_VALUES = 1_000_000
MAX_DEPTH = 64


# ---- single numbers of numpy, read as Python's -----------------------------------------------------------------------
# A metric computed by numpy ends up so in a checkpoint. numpy's own functions for it stay out: they would make any
# dtype, objects included, from a file's bytes.

_FORMATS = {
    "b1": "?",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
    "f2": "e",
    "f4": "f",
    "f8": "d",
}


class _DType:
    """Stands in for ``numpy.dtype``: the name of a number's kind, and its byte order."""

    def __init__(self, kind: str, align: bool = False, copy: bool = True):
        self.format = _FORMATS[kind]
        self.byte_order = "<"

    def __setstate__(self, state: tuple) -> None:
        self.byte_order = {"<": "<", ">": ">", "|": "<"}[state[1]]


def _number(dtype: _DType, data: bytes) -> bool | int | float:
    """Stands in for ``numpy.core.multiarray.scalar``."""
    (value,) = struct.unpack(dtype.byte_order + dtype.format, data)
    return value


_STAND_INS = {
    "numpy.dtype": _DType,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
}


# ---- the file --------------------------------------------------------------------------------------------------------

_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_ALLOWED_NAMES = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    *(f"torch.{kind}Storage" for kind in _STORAGES),
    *_STAND_INS,
    "_codecs.encode",
}
# What torch.save writes; the other instructions reach classes by other ways, or are of later pickle protocols.
_ALLOWED_INSTRUCTIONS = """
PROTO STOP GLOBAL REDUCE BUILD BINPERSID MARK TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE EMPTY_LIST APPEND APPENDS
EMPTY_DICT SETITEM SETITEMS NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE BINGET
LONG_BINGET BINPUT LONG_BINPUT
"""
_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_ZIP = b"PK\x03\x04"


def read_plain_checkpoint(path: str | Path) -> dict:
    """Load a checkpoint of torch that holds tensors, numbers and plain containers.

    Tensors are mapped from the file, so nothing is allocated that the file does not hold.

    Raises:
        InputError: no such file; cut short or damaged; of another kind; compressed, or larger inside than outside;
            asking for any other class or function, which is named. Nothing of it has run then.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a checkpoint (.pt)")
    _check_instructions(_read_pickle(path), path)
    try:
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in _STAND_INS.items()]):
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what torch raises on a malformed pickle depends on its bytes
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"{path}: damaged, torch cannot read it ({reason}); fetch or make the file again") from None
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds a {type(state).__name__}, not a checkpoint")
    _check_values(state, path)
    return state


def check_archive(path: str | Path) -> None:
    """Refuse a zip that torch would expand: a library's weights, say, in which other classes are not looked for.

    Raises:
        InputError: compressed, or larger inside than outside.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            _check_directory(archive, path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, struct.error):
        raise _no_archive(path) from None


def printable(text: str, length: int = 80) -> str:
    """A text of unknown origin for a message: one line, of bounded length, without control characters."""
    shown = "".join(character if character.isprintable() else "?" for character in text[: length + 1])
    return shown if len(text) <= length else f"{shown[:length]}…"


def _read_pickle(path: Path) -> bytes:
    """The pickle's bytes, from an archive whose directory is sound."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickle = _check_directory(archive, path)
            broken = archive.testzip()
            if broken is None:
                return archive.read(pickle)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, struct.error):
        raise _no_archive(path) from None
    raise InputError(f"{path}: damaged at member {printable(broken)} (checksum); fetch or make the file again")


def _no_archive(path: Path) -> InputError:
    with open(path, "rb") as stream:
        head = stream.read(len(_LEGACY_TORCH))
    if head.startswith(_ZIP):
        return InputError(f"{path}: damaged or cut short, perhaps half downloaded; fetch or make the file again")
    if head.startswith(_LEGACY_TORCH):
        return InputError(
            f"{path}: written by torch before 1.6, in a format whose sizes cannot be checked before it is read; where "
            "you trust it, load it with a recent torch and save it again"
        )
    return InputError(f"{path}: not a checkpoint of torch; give a .pt file that a training saved")


def _check_directory(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    """Look at names and sizes only; the member that is the pickle."""
    members = archive.infolist()
    names = [member.filename for member in members]
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(f"{path}: a TorchScript archive, which holds code; give the checkpoint that fairseq saved")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise InputError(
                f"{path}: member {printable(member.filename)} is compressed, {member.compress_size} bytes of "
                f"{member.file_size}; torch never compresses, so this is no checkpoint of its making"
            )
    size = path.stat().st_size
    claimed = sum(member.file_size for member in members)
    if claimed > size or len(set(names)) < len(names) or any(member.flag_bits & 1 for member in members):
        raise InputError(
            f"{path}: its {len(members)} members claim {claimed} bytes in a file of {size}, or share a name, or are "
            "encrypted; this is no checkpoint of torch's making"
        )
    pickles = [member for member in members if member.filename.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise InputError(f"{path}: a zip archive without data.pkl, not a checkpoint of torch")
    if pickles[0].file_size > MAX_PICKLE_BYTES:
        raise InputError(
            f"{path}: its pickle has {pickles[0].file_size} bytes beside the tensors, more than {MAX_PICKLE_BYTES}; "
            "no checkpoint of fairseq has so many"
        )
    return pickles[0]


def _check_instructions(pickle: bytes, path: Path) -> None:
    """What the pickle asks for is named rather than how it does so."""
    instructions, names = _scan_pickle(pickle)
    for name in names:
        if name not in _ALLOWED_NAMES:
            raise InputError(
                f"{path}: asks for {printable(name)}, which is neither a tensor nor a plain container; nothing of it "
                "was run; where you trust the file, save it again without that"
            )
    allowed = set(_ALLOWED_INSTRUCTIONS.split())
    for instruction in instructions:
        if instruction not in allowed:
            raise InputError(
                f"{path}: its pickle has the instruction {instruction}, which torch.save does not write; nothing of it "
                "was run"
            )
    if instructions[-1:] != ["STOP"]:
        raise InputError(f"{path}: damaged, its pickle cannot be read; fetch or make the file again")


def _check_values(state: dict, path: Path) -> None:
    """Bound what is about to be walked through and, tensor by tensor, what is about to be copied."""
    remaining_bytes = path.stat().st_size
    n_values = 0
    stack = [(state, 0)]
    while stack:
        value, depth = stack.pop()
        n_values += 1
        if n_values > MAX_VALUES or depth > MAX_DEPTH:
            raise InputError(
                f"{path}: holds more than {MAX_VALUES} values, or {MAX_DEPTH} containers in one another; no checkpoint "
                "of fairseq does"
            )
        if isinstance(value, dict):
            if not all(isinstance(key, str | int) for key in value):
                raise InputError(f"{path}: a container in it has keys that are neither texts nor whole numbers")
            stack.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, list | tuple):
            stack.extend((item, depth + 1) for item in value)
        elif isinstance(value, torch.Tensor):
            remaining_bytes -= value.numel() * value.element_size()
            if remaining_bytes < 0:
                raise InputError(f"{path}: its tensors claim more numbers than the file holds")
        elif value is not None and not isinstance(value, bool | int | float | str):
            raise InputError(f"{path}: holds a {type(value).__name__}, which is neither a tensor nor a plain container")


# ---- a pickle's instructions -----------------------------------------------------------------------------------------


def _scan_pickle(data: bytes) -> tuple[list[str], list[str]]:
    """What a pickle would do, read without running any of it: names of its instructions, and of what it asks for.

    The last instruction is ``STOP``, unless the pickle is damaged; then the lists are of what came before.
    """
    instructions, names, texts = [], [], []
    try:
        for instruction, argument, _ in pickletools.genops(data):
            instructions.append(instruction.name)
            if instruction.name in ("GLOBAL", "INST"):
                names.append(argument.replace(" ", "."))
            elif instruction.name == "STACK_GLOBAL":
                names.append(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    except (ValueError, OverflowError, EOFError):
        pass
    return instructions, names
