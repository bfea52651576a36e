"""Writing what training reads: manifests, labels and the dictionary, in the official layout."""

import os
from collections import Counter
from pathlib import Path

from fairseq_neupronet.files import atomic_file
from fairseq_neupronet.preparation.clips import SPLITS, Clip
from fairseq_neupronet.preparation.store import Stored, loose_name


def manifest_paths(folder) -> list[Path]:
    """The manifests that a partition may have."""
    return [Path(folder) / f"{split}.tsv" for split in SPLITS]


def write_partition(folder, features, clips: list[Clip], classes: list[str], stored: dict[str, Stored]) -> None:
    """Write ``{split}.tsv``, ``{split}.label`` and ``dict.label.txt``, each atomically, and only if it changes.

    Where clips know the recording that they were cut from there is ``{split}.recording`` too, an id a line.

    A manifest's first line is the features folder relative to the manifest's own, so that the prepared folder can be
    moved; then ``path <tab> n_mels <tab> n_frames <tab> profile``. A split without clips gets no files, and those of an
    earlier run are removed. The dictionary's line is ``label <space> training clips``; its order is ``classes``.

    Args:
        folder: where the manifests go.
        features: the features folder.
        clips: the partition's clips; manifests keep their order.
        classes: class names in their fixed order.
        stored: where and in which shape the features are, by ``Clip.key``.

    Raises:
        InputError: a file cannot be written.
    """
    folder = Path(folder)
    root = Path(os.path.relpath(features, folder)).as_posix()
    counts = Counter(clip.label for clip in clips if clip.split == "train")
    _write_lines(folder / "dict.label.txt", [f"{name} {counts[name]}" for name in classes])
    for split, manifest in zip(SPLITS, manifest_paths(folder), strict=True):
        labels, recordings = manifest.with_suffix(".label"), manifest.with_suffix(".recording")
        members = [clip for clip in clips if clip.split == split]
        if not members:
            manifest.unlink(missing_ok=True)
            labels.unlink(missing_ok=True)
            recordings.unlink(missing_ok=True)
            continue
        _write_lines(labels, [clip.label for clip in members])
        if all(clip.recording is None for clip in members):
            recordings.unlink(missing_ok=True)
        else:
            _write_lines(recordings, [clip.recording or "" for clip in members])
        _write_lines(manifest, [root, *(_row(clip, stored[clip.key]) for clip in members)])


def _row(clip: Clip, stored: Stored) -> str:
    n_mels, n_frames = stored.shape
    return f"{stored.place or loose_name(clip.key)}\t{n_mels}\t{n_frames}\t{clip.profile}"


def _write_lines(path: Path, lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    if path.is_file() and path.read_bytes() == text.encode():
        return
    with atomic_file(path) as stream:
        stream.write(text)
