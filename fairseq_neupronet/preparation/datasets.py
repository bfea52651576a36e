"""The data sets that ``neupronet prepare`` knows: a table entry each, and the little that is its own."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import read_metadata
from fairseq_neupronet.preparation.clips import Clip, Collection, read_table
from fairseq_neupronet.preparation.icbhi import read_icbhi

_ROOT = {"required": True, "metavar": "DIR", "help": "folder of the unpacked data set"}
_ALLOW_MISSING = {"action": "store_true", "help": "leave out rows whose audio file is missing, and say how many"}


@dataclass(frozen=True)
class Dataset:
    """One entry of :data:`DATASETS`.

    Args:
        help: one line for ``neupronet prepare --help``.
        recipe: the feature recipe used unless ``--recipe`` names another.
        read: from the options below, as keywords, to a :class:`Collection`.
        options: command-line options of its own: flag → keywords of ``add_argument``.
    """

    help: str
    recipe: str
    read: Callable[..., Collection]
    options: dict[str, dict]


# The official release's labels (class_labels_indices_vs.csv), in its order; names as in its file names.
VOCALSOUND_CLASSES = {
    "/m/01j3sz": "laughter",
    "/m/07plz5l": "sigh",
    "/m/01b_21": "cough",
    "/m/0dl9sf8": "throatclearing",
    "/m/01hsr_": "sneeze",
    "/m/07ppn3j": "sniff",
}

# In the order of classID (UrbanSound8K_README.txt).
URBANSOUND8K_CLASSES = (
    "air_conditioner",
    "car_horn",
    "children_playing",
    "dog_bark",
    "drilling",
    "engine_idling",
    "gun_shot",
    "jackhammer",
    "siren",
    "street_music",
)


def read_vocalsound(root, train_speakers_every: int = 1, allow_missing: bool = False) -> Collection:
    """VocalSound-1s (``manifest.csv``) or the official 16 kHz release (``audio_16k/`` and ``datafiles/*.json``).

    The profile is the speaker: what stands before the first ``_`` of a file name.

    Args:
        root: the unpacked folder.
        train_speakers_every: keep every N-th training speaker, in sorted order, for cut-down runs.
        allow_missing: leave out clips without an audio file.

    Raises:
        InputError: neither layout, damaged split files, unknown labels, missing audio.
    """
    root = Path(root)
    if (root / "manifest.csv").is_file():
        source = root / "manifest.csv"
        clips = read_table(source, classes=list(VOCALSOUND_CLASSES.values()), must_exist=False).clips()
        clips = [replace(clip, profile=clip.path.name.split("_")[0]) for clip in clips]
    elif (root / "datafiles").is_dir():
        source = root / "datafiles"
        splits = {"train": "tr", "valid": "val", "test": "te"}
        clips = [clip for split, name in splits.items() for clip in _read_vocalsound_json(root, name, split)]
    else:
        raise InputError(
            f"{root}: holds neither manifest.csv (VocalSound-1s) nor audio_16k/ and datafiles/ "
            "(the official release); point --root at the unpacked folder"
        )
    clips, notes = _drop_missing(clips, source, allow_missing)
    if train_speakers_every < 1:
        raise InputError(f"--train-speakers-every {train_speakers_every}: give a whole number from 1 up")
    if train_speakers_every > 1:
        speakers = sorted({clip.profile for clip in clips if clip.split == "train"})
        kept = set(speakers[::train_speakers_every])
        clips = [clip for clip in clips if clip.split != "train" or clip.profile in kept]
        notes.append(
            f"kept {len(kept)} of {len(speakers)} training speakers (--train-speakers-every {train_speakers_every})"
        )
    return Collection(source, list(VOCALSOUND_CLASSES.values()), {"": clips}, notes)


def _read_vocalsound_json(root: Path, name: str, split: str) -> list[Clip]:
    path = root / "datafiles" / f"{name}.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["data"]
        rows = [(str(entry["wav"]), str(entry["labels"])) for entry in entries]
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); restore the split file of the official release"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is not a split file of VocalSound (a list 'data' of entries with 'wav' and "
            "'labels'); restore it from the official release"
        ) from error
    clips = []
    for number, (wav, label) in enumerate(rows, start=1):
        if label not in VOCALSOUND_CLASSES:
            raise InputError(
                f"{path}, entry {number}: unknown label {label!r}; known ones: {', '.join(VOCALSOUND_CLASSES)}"
            )
        # "wav" is a path on the authors' machine: only its last part means something here.
        file = wav.rsplit("/", 1)[-1]
        clips.append(
            Clip(
                root / "audio_16k" / file,
                VOCALSOUND_CLASSES[label],
                file.split("_")[0],
                split,
                f"audio_16k/{Path(file).stem}",
            )
        )
    return clips


def read_urbansound8k(root, allow_missing: bool = False) -> Collection:
    """UrbanSound8K in its official layout, as ten partitions ``fold01`` … ``fold10``.

    Partition k tests on fold k, validates on fold k − 1 (10 when k = 1) and trains on the other eight. The profile
    is the Freesound id of the source recording.

    Args:
        root: the folder with ``metadata/UrbanSound8K.csv`` and ``audio/fold1`` … ``audio/fold10``.
        allow_missing: leave out rows without an audio file.

    Raises:
        InputError: a missing or damaged metadata file, missing audio.
    """
    root = Path(root)
    source = root / "metadata" / "UrbanSound8K.csv"
    clips, fold_of = [], {}
    for line, row in read_metadata(source, ("slice_file_name", "fsID", "fold", "classID")):
        fold, class_id = row["fold"], row["classID"]
        for name in ("slice_file_name", "fsID"):
            if not row[name]:
                raise InputError(f"{source}, line {line}: {name} is empty; restore the official metadata")
        if fold not in map(str, range(1, 11)):
            raise InputError(f"{source}, line {line}: fold is {fold!r}; give 1 to 10")
        if class_id not in map(str, range(10)):
            raise InputError(f"{source}, line {line}: classID is {class_id!r}; give 0 to 9")
        file = row["slice_file_name"]
        clips.append(
            Clip(
                root / "audio" / f"fold{fold}" / file,
                URBANSOUND8K_CLASSES[int(class_id)],
                row["fsID"],
                "train",
                f"fold{fold}/{Path(file).stem}",
            )
        )
        fold_of[clips[-1].key] = int(fold)
    clips, notes = _drop_missing(clips, source, allow_missing)
    partitions = {}
    for test in range(1, 11):
        special = {test: "test", (test - 1) or 10: "valid"}
        partitions[f"fold{test:02d}"] = [replace(clip, split=special.get(fold_of[clip.key], "train")) for clip in clips]
    return Collection(source, list(URBANSOUND8K_CLASSES), partitions, notes)


def _drop_missing(clips: list[Clip], source: Path, allow_missing: bool) -> tuple[list[Clip], list[str]]:
    found = [clip for clip in clips if clip.path.is_file()]
    if len(found) == len(clips):
        return clips, []
    first = next(clip.path for clip in clips if not clip.path.is_file())
    missing = f"{len(clips) - len(found)} of {len(clips)} audio files"
    if not allow_missing or not found:
        raise InputError(
            f"{source}: {missing} are missing, the first is {first}; restore them, or go on without "
            "them with --allow-missing"
        )
    return found, [f"left out {missing} that are missing, the first {first} (--allow-missing)"]


DATASETS = {
    "table": Dataset(
        help="your own audio: a CSV or TSV with the columns path, label, profile, split",
        recipe="official",
        read=read_table,
        options={
            "--metadata": {
                "required": True,
                "metavar": "CSV",
                "help": "the table; paths are relative to its folder, an empty profile is a group of one clip; a "
                "column recording keeps cuts of one recording apart under protocol enrol-n",
            },
        },
    ),
    "vocalsound": Dataset(
        help="VocalSound, profile = speaker: the unpacked VocalSound-1s, or the official 16 kHz release",
        recipe="kaldi_fbank",
        read=read_vocalsound,
        options={
            "--root": _ROOT,
            "--train-speakers-every": {
                "type": int,
                "default": 1,
                "metavar": "N",
                "help": "keep every N-th training speaker only, for cut-down runs (default: 1, all)",
            },
            "--allow-missing": _ALLOW_MISSING,
        },
    ),
    "urbansound8k": Dataset(
        help="UrbanSound8K, profile = Freesound id: fold01 ... fold10, each with train, valid and test",
        recipe="official",
        read=read_urbansound8k,
        options={"--root": _ROOT, "--allow-missing": _ALLOW_MISSING},
    ),
    "icbhi": Dataset(
        help="ICBHI 2017, a clip per respiratory cycle, profile = patient: the official split, validation from train",
        recipe="icbhi",
        read=read_icbhi,
        options={"--root": _ROOT, "--allow-missing": _ALLOW_MISSING},
    ),
}
