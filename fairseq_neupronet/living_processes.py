"""Whether a process that a file names still lives: one that has ended and that nobody waited for does not."""

import os
from pathlib import Path


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
