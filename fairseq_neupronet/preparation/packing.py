"""Loose features to one uncompressed zip a split, and back. Whatever moment a run is killed at, nothing is lost.

A zip is written aside and takes its name when it is whole, the manifests follow, and only then the loose files go. A
manifest never stands beside a zip that it was not written for.
"""

import contextlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fairseq_neupronet.data.packed import Place
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file
from fairseq_neupronet.preparation.clips import Collection
from fairseq_neupronet.preparation.store import ARCHIVES, SHARED_ARCHIVE, FeatureStore, Stored, loose_name

_TIMELESS = (1980, 1, 1, 0, 0, 0)  # equal features make equal zips
_ORDINARY_FILE = 0o644 << 16


def archive_of_each(collection: Collection) -> dict[str, str]:
    """The zip that each ``Clip.key`` belongs to: one a split, or one for all where partitions share the clips."""
    partitions = collection.partitions
    return {
        clip.key: f"{clip.split}.zip" if len(partitions) == 1 else SHARED_ARCHIVE
        for clips in partitions.values()
        for clip in clips
    }


def pack(
    store: FeatureStore,
    stored: dict[str, Stored],
    archives: dict[str, str],
    half: bool,
    manifests: list[Path],
    started: int,
    progress: bool = True,
) -> dict[str, Stored]:
    """Write the zips that are missing or out of date.

    Args:
        store: the features folder.
        stored: where each clip's features are, by ``Clip.key``.
        archives: the zip that each key belongs to.
        half: store float16. Its eleven significant bits are off by at most 2⁻¹¹ of a value: by 0.0625 at 128 … 255, the
            loudest of the official recipe, and by 0.002 at 4 … 8.
        manifests: files that name places in the zips; they go before a zip is replaced.
        started: when this run began to look at the audio, in ns since the epoch: audio that changes later is newer than
            the zip.
        progress: show a progress bar.

    Returns:
        Where the features are now.

    Raises:
        InputError: a full disk; a value too large for float16.
    """
    strays = [key for key, found in stored.items() if found.place and found.place.archive != archives[key]]
    stored = stored | {key: _loosen(store, loose_name(key), stored[key]) for key in strays}
    keys_of: dict[str, list[str]] = {}
    for key, archive in archives.items():  # in the table's order, whichever features an earlier run had left
        if key in stored:
            keys_of.setdefault(archive, []).append(key)
    for archive, keys in keys_of.items():
        found = {key: stored[key] for key in keys}
        if any(each.place is None or each.half != half for each in found.values()):
            stored |= _write_archive(store, archive, found, half, manifests, started, progress)
    return stored


def _write_archive(
    store: FeatureStore,
    archive: str,
    stored: dict[str, Stored],
    half: bool,
    manifests: list[Path],
    started: int,
    progress: bool,
) -> dict[str, Stored]:
    target = store.features / archive
    for leftover in target.parent.glob(f".{archive}.*.tmp"):  # of a run that was killed
        leftover.unlink(missing_ok=True)
    names = {loose_name(key): key for key in stored}
    unlisted = {name: place for name, place in store.archives.get(archive, {}).items() if name not in names}
    packed = {}
    with atomic_file(target, "wb") as stream:
        with zipfile.ZipFile(stream, "w") as contents:

            def add(name: str, data: bytes) -> Place:
                entry = zipfile.ZipInfo(name, _TIMELESS)
                entry.external_attr = _ORDINARY_FILE
                contents.writestr(entry, data)
                return Place(archive, stream.tell() - len(data), len(data))

            for name, key in tqdm(names.items(), desc=archive, unit="clip", disable=not progress):
                shape, place, is_half = stored[key]
                data = store.read(place) if place else (store.features / name).read_bytes()
                if half and not is_half:
                    data = _halved(data, target, name)
                packed[key] = Stored(shape, add(name, data), half)
            for name, place in unlisted.items():
                add(name, store.read(place))
        stream.flush()
        os.utime(stream.name, ns=(started, started))
        if target.exists():
            for manifest in manifests:
                manifest.unlink(missing_ok=True)
    return packed


def _halved(data: bytes, target: Path, name: str) -> bytes:
    array = np.load(io.BytesIO(data))
    with np.errstate(over="ignore"):  # refused in the next line
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise InputError(
            f"{target}: {name} reaches {np.abs(array).max():g}, more than half precision holds; leave out --float16"
        )
    stream = io.BytesIO()
    np.save(stream, half)
    return stream.getvalue()


def _loosen(store: FeatureStore, name: str, stored: Stored) -> Stored:
    with atomic_file(store.features / name, "wb") as stream:
        stream.write(store.read(stored.place))
        stream.flush()
        changed = store.changed[stored.place.archive]  # so that audio that is newer than the zip is newer than the file
        os.utime(stream.name, ns=(changed, changed))
    return stored._replace(place=None)


def unpack(store: FeatureStore, stored: dict[str, Stored]) -> dict[str, Stored]:
    """Write what lies in zips, listed or not, to loose files; the zips stay until :func:`remove_archives`."""
    loose = {key: _loosen(store, loose_name(key), found) for key, found in stored.items() if found.place}
    listed = {loose_name(key) for key in stored}
    for members in store.archives.values():
        for name, place in members.items():
            path = (store.features / name).resolve()
            inside = path.suffix == ".npy" and path.is_relative_to(store.features.resolve())
            if name not in listed and inside and not path.exists():
                _loosen(store, name, Stored((), place))
    return stored | loose


def remove_archives(features: Path) -> None:
    """Remove the zips, once the manifests name loose files."""
    for archive in ARCHIVES:
        (features / archive).unlink(missing_ok=True)


def remove_loose(features: Path, keys) -> None:
    """Remove the loose files of clips, and folders left empty, once the manifests name places in zips."""
    folders = set()
    for key in keys:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{features}/{loose_name(key)}")
        while "/" in key:
            key = key.rpartition("/")[0]
            folders.add(key)
    for folder in sorted(folders, key=len, reverse=True):
        with contextlib.suppress(OSError):  # not empty, or gone
            os.rmdir(features / folder)
