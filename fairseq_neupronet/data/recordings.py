"""Source recordings in a file beside the manifest, ``{split}.recording``: one id a line, in the order of its rows."""

from pathlib import Path

import numpy as np

from fairseq_neupronet.data.manifest import Manifest
from fairseq_neupronet.data.text_spans import first_equal, read_lines
from fairseq_neupronet.errors import InputError


def read_recordings(path: str | Path, manifest: Manifest) -> np.ndarray | None:
    """Codes of a manifest's recordings.

    Args:
        path: the ``.recording`` file.
        manifest: the manifest that it belongs to (N clips).

    Returns:
        (N,) int64, equal where two clips are cut from one recording; an empty line is a recording of its own. None
        where there is no such file.

    Raises:
        InputError: an empty or unreadable file, or another number of lines than clips.
    """
    path = Path(path)
    if not path.exists():
        return None
    names = read_lines(path, "file of recordings")
    if len(names) != len(manifest):
        raise InputError(
            f"{path}: {len(names)} recordings for the {len(manifest)} clips of {manifest.path}; one recording a clip "
            "is wanted, or no such file"
        )
    return np.where(names.starts == names.ends, np.arange(len(names)), first_equal(names))
