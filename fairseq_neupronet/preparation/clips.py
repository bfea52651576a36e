"""What preparation knows about clips, whichever data set they come from."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_neupronet.errors import InputError

SPLITS = ("train", "valid", "test")
# fairseq's Dictionary adds these itself, and a line that ends in the flag overwrites an entry.
_RESERVED = {"<s>", "<pad>", "</s>", "<unk>", "#fairseq:overwrite"}


@dataclass(frozen=True)
class Clip:
    """One audio file, or a part of one.

    Args:
        path: the audio file.
        label: its class, without whitespace.
        profile: what groups clips: a source recording, a speaker, a patient.
        split: ``train``, ``valid`` or ``test``.
        key: path of its features below the features folder, without ``.npy``; unique.
        start: seconds from the file's start to the part's; None for the whole file.
        end: seconds from the file's start to the part's end.
        recording: what it was cut from; None where the data set does not tell, ``""`` for one of its own.
    """

    path: Path
    label: str
    profile: str
    split: str
    key: str
    start: float | None = None
    end: float | None = None
    recording: str | None = None


@dataclass(frozen=True)
class Collection:
    """A data set, read and checked, before any audio is touched.

    Args:
        source: the metadata file or folder, as messages name it.
        classes: class names in their fixed order.
        partitions: folder below the output folder (``""`` for the output folder itself) → its clips, split by split.
            Partitions share features: equal keys are one file.
        notes: sentences to print, e.g. what was left out.

    Raises:
        InputError: see :meth:`check`.
    """

    source: Path
    classes: list[str]
    partitions: dict[str, list[Clip]]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.check()

    def clips(self) -> list[Clip]:
        """Every clip once, whatever the number of partitions it is in."""
        return list({clip.key: clip for clips in self.partitions.values() for clip in clips}.values())

    def check(self) -> None:
        """Refuse what no training could use.

        Raises:
            InputError: no clips; a clip listed twice; two audio files with one features file; a class name that a
                fairseq dictionary cannot hold; a class in valid or test that train lacks.
        """
        clips = self.clips()
        if not clips:
            raise InputError(f"{self.source}: lists no clips; add rows")
        for name in self.classes:
            if name in _RESERVED or not name or any(character.isspace() for character in name):
                raise InputError(f"{self.source}: {name!r} cannot be a class in a fairseq dictionary; rename it")
        for folder, partition in self.partitions.items():
            paths = {}
            for clip in partition:
                if clip.key in paths and paths[clip.key] == clip.path:
                    raise InputError(f"{self.source}: {clip.path} is listed twice; take one of them out")
                if clip.key in paths:
                    raise InputError(
                        f"{self.source}: {paths[clip.key]} and {clip.path} would share the features file "
                        f"{clip.key}.npy; rename one of them"
                    )
                paths[clip.key] = clip.path
            counts = {split: Counter(clip.label for clip in partition if clip.split == split) for split in SPLITS}
            for split in SPLITS[1:]:
                missing = [name for name in self.classes if counts[split][name] and not counts["train"][name]]
                if missing:
                    where = f"{self.source}, {folder}" if folder else f"{self.source}"
                    raise InputError(
                        f"{where}: class {', '.join(missing)} is in {split} ({counts[split][missing[0]]} "
                        f"clips) but not in train; add training clips of it or take it out of {split}"
                    )
