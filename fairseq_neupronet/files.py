"""Files that are either whole or absent, metadata tables, the package's own folders, and processes that files name."""

import contextlib
import csv
import os
from pathlib import Path

from fairseq_neupronet.errors import InputError


def package_folder() -> Path:
    """The folder of this package, which is what ``common.user_dir`` names."""
    return Path(__file__).resolve().parent


def configs_folder() -> Path:
    """The folder of the shipped configs: inside an installed package, beside the package in a checkout."""
    inside = package_folder() / "configs"
    return inside if inside.is_dir() else package_folder().parent / "configs"


@contextlib.contextmanager
def atomic_file(path, mode: str = "w", synced: bool = False):
    """Open a temporary neighbour of ``path`` for writing and rename it onto ``path`` once complete.

    Args:
        path: the file to write; missing parent folders are made.
        mode: ``"w"`` (UTF-8 text, ``\\n`` line ends) or ``"wb"``.
        synced: whole or absent after a power cut too, at the price of waiting for the disk.

    Raises:
        InputError: the file cannot be written (full disk, no permission, a folder in the way).
    """
    path = Path(path)
    # The process id keeps two workers, or two runs, from sharing one temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode, **text) as stream:
            yield stream
            if synced:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, path)
        if synced:
            _sync_folder(path.parent)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); free the disk or choose a folder you may write to"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def require_regular(path, what: str) -> None:
    """Refuse to open what may never end; a file that is missing is left to whoever opens it.

    Raises:
        InputError: a folder, a pipe or a device.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path}: is a folder, a pipe or a device; give {what}, a regular file")


def read_metadata(path, columns, optional=()) -> list[tuple[int, dict[str, str]]]:
    """Read the named columns of a table, cells stripped; other columns are ignored.

    Args:
        path: a CSV file, or a TSV file if it ends in ``.tsv``; UTF-8, first line the column names.
        columns: the names that must be there.
        optional: names that are read where they are there.

    Returns:
        (line number, column → cell) per row; empty lines are skipped.

    Raises:
        InputError: a missing or unreadable file, a missing column or one named twice, a row of another length
            than the header.
    """
    path = Path(path)
    require_regular(path, "the metadata table")
    try:
        # utf-8-sig: spreadsheet programs write a byte-order mark, which would become part of the first column's name.
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
            lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of the metadata table") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a UTF-8 CSV table ({error}); save it as one") from error
    if not lines:
        raise InputError(
            f"{path}: is empty; write a header line with the columns {','.join(columns)} and a row per clip"
        )
    header = [name.strip() for name in lines[0][1]]
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(
            f"{path}, line {lines[0][0]}: no column {', '.join(missing)} in the header ({', '.join(header)}); add it"
        )
    twice = [name for name in (*columns, *optional) if header.count(name) > 1]
    if twice:
        raise InputError(
            f"{path}, line {lines[0][0]}: column {', '.join(twice)} is more than once in the header "
            f"({', '.join(header)}); rename one"
        )
    rows = []
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise InputError(
                f"{path}, line {line}: {len(cells)} cells where the header has {len(header)}; correct "
                "the row (quote cells that hold the separator)"
            )
        row = {
            name: cell.strip() for name, cell in zip(header, cells, strict=True) if name in columns or name in optional
        }
        for name, cell in row.items():
            if any(character in cell for character in "\t\r\n"):
                raise InputError(f"{path}, line {line}: {name} holds a tab or a line break; take it out")
        rows.append((line, row))
    return rows


def sweep_temporaries(folder) -> None:
    """Remove what killed processes of this machine left of :func:`atomic_file` in a folder and below."""
    for path in Path(folder).rglob(".*.tmp"):
        process = path.name.rsplit(".", 2)[1]
        if process.isdigit() and not start_time(int(process)):
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have the folder's names on the disk; a system that cannot open folders writes them with the files."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def start_time(process: int) -> str:
    """When a living process started, in the system's own count; empty for none, ``?`` where it cannot be known."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            return "?"
        return "?"
    fields = text.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    return "" if state in "ZX" else started


def lives(process: int, started: str) -> bool:
    """Whether that very process still runs."""
    return process > 0 and started != "" and start_time(process) == started
