"""Files that are either whole or absent, the package's own folders, and processes that files name."""

import contextlib
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
