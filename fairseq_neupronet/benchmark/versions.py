"""Which code made a result."""

import subprocess
from functools import lru_cache
from pathlib import Path

from fairseq_neupronet import __version__


@lru_cache(maxsize=1)
def version() -> str:
    """The package's version, and in a checkout its commit, as ``0.1.0+1a2b3c4``."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return __version__
    command = ["git", "-C", str(root), "rev-parse", "--short=7", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{commit}"
