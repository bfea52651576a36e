"""What a features folder holds: loose ``.npy`` files, and packed ones in the zips beside them."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairseq_neupronet.arrays import NpyHeader, parse_header
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.data.packed import Place, read_directory
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.preparation.clips import SPLITS, Clip

SHARED_ARCHIVE = "clips.zip"
ARCHIVES = (*(f"{split}.zip" for split in SPLITS), SHARED_ARCHIVE)
_HEADER_BYTES = 256


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
                members = read_directory(path)
            except (OSError, ValueError):  # not there, or not whole: what it held is computed again
                continue
            self.archives[name] = {
                member.name: member.place._replace(archive=name) for member in members if not member.compressed
            }
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
