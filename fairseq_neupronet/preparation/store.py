"""What a features folder holds: loose ``.npy`` files, and packed ones in the zips beside them; the former made latter.

Whatever moment a run is killed at, nothing is lost: a zip is written aside and takes its name when it is whole, the
manifests follow, and only then the loose files go. A manifest never stands beside a zip that it was not written for.
"""

import contextlib
import io
import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fairseq_neupronet.arrays import NpyHeader, parse_header
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.data.clip_files import Place, read_directory
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file
from fairseq_neupronet.preparation.clips import SPLITS, Clip, Collection

SHARED_ARCHIVE = "clips.zip"
ARCHIVES = (*(f"{split}.zip" for split in SPLITS), SHARED_ARCHIVE)
_HEADER_BYTES = 256
_TIMELESS = (1980, 1, 1, 0, 0, 0)  # equal features make equal zips
_ORDINARY_FILE = 0o644 << 16


class Stored(NamedTuple):
    """The features of one clip.

    Attributes:
        shape: (n_mels, n_frames).
        place: where in a zip of the features folder they lie; None for a loose file.
        half: whether at half precision.
    """

    shape: tuple[int, int]
    place: Place | None = None
    half: bool = False


def loose_name(key: str) -> str:
    """The path of a clip's features below the features folder, or inside a zip."""
    return f"{key}.npy"


def claim(features: Path, recipe: FeatureRecipe) -> None:
    """Store the recipe in a features folder, so that nothing is ever added to it with another one.

    Raises:
        InputError: the folder holds features of another recipe (names both), or of an unknown one.
    """
    stored = FeatureRecipe.read(features)
    if stored is None:
        archives = (features / name for name in ARCHIVES)
        foreign = next(features.rglob("*.npy"), None) or next(filter(Path.exists, archives), None)
        if foreign is not None:
            raise InputError(
                f"{features}: holds features ({foreign.name}, …) but no recipe.yaml that says how they "
                "were computed; choose another --out, or delete that folder"
            )
        recipe.save(features)
    elif stored != recipe:
        raise InputError(
            f"{features}: holds features of another recipe ({stored.describe()}) than the one asked for "
            f"({recipe.describe()}), which differs in {stored.difference(recipe)}; choose another --out, "
            "or delete that folder"
        )


class FeatureStore(contextlib.ExitStack):
    """The features that earlier runs left; the zips stay open, also when they are replaced, until the context ends.

    Args:
        features: the features folder.
        n_mels: mel bands that every clip has.
        half: whether half precision will do.
    """

    def __init__(self, features: Path, n_mels: int, half: bool = False):
        super().__init__()
        self.features = features
        self._n_mels, self._half = n_mels, half
        self.archives: dict[str, dict[str, Place]] = {}  # name of a zip → name of a member → place
        self.changed: dict[str, int] = {}  # name of a zip → ns
        self._files: dict[str, int] = {}
        for name in ARCHIVES:
            path = features / name
            try:
                places = read_directory(path)
            except (OSError, ValueError):  # not there, or not whole: what it held is computed again
                continue
            self.archives[name] = {member: place._replace(archive=name) for member, place in places.items()}
            self._files[name] = os.open(path, os.O_RDONLY)
            self.callback(os.close, self._files[name])
            self.changed[name] = os.fstat(self._files[name]).st_mtime_ns

    def find_all(self, clips: list[Clip], archives: dict[str, str]) -> dict[str, Stored]:
        """The features that are whole and no older than their audio: loose, or in a zip.

        Args:
            clips: whose features to look for.
            archives: the zip to look into first, by ``Clip.key``.

        Returns:
            Where they are, by ``Clip.key``.

        Raises:
            InputError: some are stored at half precision, which does not do.
        """
        found = ((clip.key, self._find(clip, archives.get(clip.key))) for clip in clips)
        stored = {key: each for key, each in found if each}
        halved = next((each.place.archive for each in stored.values() if each.half), None)
        if halved and not self._half:
            raise InputError(
                f"{self.features / halved}: holds features at half precision, from which full precision "
                "cannot be made; go on with --packed --float16, or choose another --out"
            )
        return stored

    def _find(self, clip: Clip, archive: str | None) -> Stored | None:
        try:
            audio_changed = os.stat(clip.path).st_mtime_ns
        except OSError:
            return None
        stored = self._find_loose(clip.key, audio_changed)
        for name in sorted(self.archives, key=lambda name: name != archive):
            stored = stored or self._find_packed(name, clip.key, audio_changed)
        return stored

    def _find_loose(self, key: str, audio_changed: int) -> Stored | None:
        try:
            with open(f"{self.features}/{loose_name(key)}", "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                header = parse_header(file.read(_HEADER_BYTES))
        except (OSError, ValueError):
            return None
        sound = status.st_mtime_ns >= audio_changed and status.st_size == header.size and header.dtype == np.float32
        return Stored(header.shape) if sound and self._has_right_shape(header) else None

    def _find_packed(self, archive: str, key: str, audio_changed: int) -> Stored | None:
        place = self.archives[archive].get(loose_name(key))
        if place is None or self.changed[archive] < audio_changed:
            return None
        try:
            header = parse_header(self.read(place._replace(length=min(place.length, _HEADER_BYTES))))
        except ValueError:
            return None
        sound = place.length == header.size and header.dtype in (np.float32, np.float16)
        half = header.dtype == np.float16
        return Stored(header.shape, place, half) if sound and self._has_right_shape(header) else None

    def _has_right_shape(self, header: NpyHeader) -> bool:
        shape = header.shape
        return len(shape) == 2 and shape[0] == self._n_mels and shape[1] > 0 and not header.fortran_order

    def read(self, place: Place) -> bytes:
        """The bytes of a place in one of the zips."""
        return os.pread(self._files[place.archive], place.length, place.offset)


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
    keys_of: dict[str, list[str]] = {}
    for key, archive in archives.items():  # in the table's order, whichever features an earlier run had left
        if key in stored:
            keys_of.setdefault(archive, []).append(key)
    for archive, keys in keys_of.items():
        found = {key: stored[key] for key in keys}
        if any(not each.place or each.place.archive != archive or each.half != half for each in found.values()):
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
