"""ICBHI 2017: recordings of breathing, cut into respiratory cycles by their annotation.

Source: the challenge's page (https://bhichallenge.med.auth.gr) and Rocha et al., "An open access database for the
evaluation of respiratory sound classification algorithms", Physiological Measurement 40, 2019.
"""

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.preparation.clips import Clip, Collection

# Index = crackles + 2 · wheezes.
ICBHI_CLASSES = ("normal", "crackle", "wheeze", "both")
SPLIT_FILE = "ICBHI_challenge_train_test.txt"
AUDIO_FOLDER = "ICBHI_final_database"
_PAGE = "https://bhichallenge.med.auth.gr/ICBHI_2017_Challenge"
_NAME = "PATIENT_INDEX_LOCATION_MODE_DEVICE"
_VALID_SHARE = 0.2  # of the patients that lie in train only
_SLACK = 0.05  # seconds that an annotated end may lie after the recording's own


class Recording(NamedTuple):
    """One line of the split file."""

    name: str
    split: str
    line: int

    @property
    def patient(self) -> str:
        return self.name.split("_")[0]


def read_icbhi(root, allow_missing: bool = False) -> Collection:
    """ICBHI 2017 in its official layout; a clip is a respiratory cycle, its profile the patient.

    The official split has no validation part: a fifth of the patients that lie in train only becomes it, in a draw that
    depends on nothing but a patient's number.

    Args:
        root: the folder with the recordings, each a ``.wav`` and a ``.txt`` of the same name with a cycle a line
            (start and end in seconds, crackles, wheezes), or the folder above it; the official 60/40 split, a line
            ``recording train|test`` each, lies in one of them.
        allow_missing: leave out recordings without a ``.wav``.

    Raises:
        InputError: no split file, missing recordings or annotations, lines that mean nothing.
    """
    root = Path(root)
    folder = root / AUDIO_FOLDER if (root / AUDIO_FOLDER).is_dir() else root
    source = next((path / SPLIT_FILE for path in (root, folder) if (path / SPLIT_FILE).is_file()), None)
    if source is None:
        raise InputError(f"{root}: holds no {SPLIT_FILE}, the official split; put the file from {_PAGE} there")
    recordings = _read_split(source)
    notes = _shared_patients(recordings)
    recordings, missing = _with_audio(recordings, folder, source, allow_missing)
    valid_patients, drawn = _draw_valid_patients(recordings)
    clips, cut = [], []
    for recording in recordings:
        split = "valid" if recording.patient in valid_patients else recording.split
        cycles, seconds = _read_cycles(folder / f"{recording.name}.txt", folder / f"{recording.name}.wav")
        for start, end, label in cycles:
            clips.append(
                Clip(
                    folder / f"{recording.name}.wav",
                    label,
                    recording.patient,
                    split,
                    f"{recording.name}/{start}-{end}",
                    start,
                    end,
                    recording.name,
                )
            )
        cut += [end - seconds for _, end, _ in cycles if end > seconds]
    if cut:
        notes.append(
            f"{len(cut)} of {len(clips)} cycles end after their recording, by {max(cut):.3f} s at most, and "
            "are cut there"
        )
    return Collection(source, list(ICBHI_CLASSES), {"": clips}, notes + drawn + missing)


def _read_split(source: Path) -> list[Recording]:
    recordings: dict[str, Recording] = {}
    for line, cells in _read_columns(source, ("recording", "train or test")):
        name, split = cells
        at = f"{source}, line {line}"
        if split not in ("train", "test"):
            raise InputError(f"{at}: the split is {split!r}; give train or test")
        if len(name.split("_")) != 5 or not all(name.split("_")) or "/" in name:
            raise InputError(f"{at}: recording {name!r} is not named {_NAME}; correct it")
        if name in recordings:
            raise InputError(f"{at}: {name} is already in line {recordings[name].line}; take one of them out")
        recordings[name] = Recording(name, split, line)
    if not recordings:
        raise InputError(f"{source}: lists no recordings; take the file from {_PAGE}")
    return list(recordings.values())


def _with_audio(
    recordings: list[Recording], folder: Path, source: Path, allow_missing: bool
) -> tuple[list[Recording], list[str]]:
    """The recordings whose audio is there, and notes of what was left out."""
    audio = {path.stem for path in folder.glob("*.wav")}
    unlisted = sorted(audio - {recording.name for recording in recordings})
    if unlisted:
        raise InputError(
            f"{folder / unlisted[0]}.wav: is not in {source} ({len(unlisted)} such recordings); add a "
            "line with its split, or move it elsewhere"
        )
    found = [recording for recording in recordings if recording.name in audio]
    if len(found) == len(recordings):
        return found, []
    first = next(recording for recording in recordings if recording.name not in audio)
    count = f"{len(recordings) - len(found)} of {len(recordings)} recordings"
    if not allow_missing or not found:
        raise InputError(
            f"{source}, line {first.line}: no recording {folder / first.name}.wav ({count} are missing); "
            "point --root at the unpacked recordings, or go on without them with --allow-missing"
        )
    return found, [f"left out {count} that are missing, the first {first.name}.wav (--allow-missing)"]


def _shared_patients(recordings: list[Recording]) -> list[str]:
    patients = {split: {each.patient for each in recordings if each.split == split} for split in ("train", "test")}
    shared = sorted(patients["train"] & patients["test"])
    if not shared:
        return []
    tested = sum(each.patient in shared and each.split == "test" for each in recordings)
    return [
        f"official split: {len(shared)} of {len(patients['test'])} test patients lie in train as well "
        f"({', '.join(shared)}), with {tested} test recordings; they are kept on both sides"
    ]


def _draw_valid_patients(recordings: list[Recording]) -> tuple[set[str], list[str]]:
    tested = {each.patient for each in recordings if each.split == "test"}
    candidates = {each.patient for each in recordings} - tested
    if len(candidates) < 2:
        return set(), []
    count = max(1, round(_VALID_SHARE * len(candidates)))
    shuffled = sorted(candidates, key=lambda patient: hashlib.sha256(f"1 {patient}".encode()).digest())
    drawn = sorted(shuffled[:count])
    return set(drawn), [
        f"validation: {count} of the {len(candidates)} patients that lie in train only: {', '.join(drawn)}"
    ]


def _read_cycles(annotation: Path, audio: Path) -> tuple[list[tuple[float, float, str]], float]:
    """(start, end, class) of every cycle, and the recording's length; all in seconds."""
    seconds, rate = _length(audio)
    cycles, seen = [], {}
    for line, cells in _read_columns(annotation, ("start", "end", "crackles", "wheezes")):
        at = f"{annotation}, line {line}"
        start, end = (_seconds(cell, at) for cell in cells[:2])
        if any(cell not in ("0", "1") for cell in cells[2:]):
            raise InputError(f"{at}: crackles and wheezes are {cells[2]!r} and {cells[3]!r}; give 0 or 1")
        if (end - start) * rate < 1:
            raise InputError(f"{at}: the cycle ends at {end:g} s and starts at {start:g} s; correct them")
        if end > seconds + _SLACK or start >= seconds:
            raise InputError(
                f"{at}: the cycle ends at {end:g} s, but {audio.name} lasts {seconds:.3f} s; correct the "
                "annotation, or restore the recording"
            )
        if (start, end) in seen:
            raise InputError(f"{at}: the cycle is already in line {seen[start, end]}; take one of them out")
        seen[start, end] = line
        cycles.append((start, end, ICBHI_CLASSES[int(cells[2]) + 2 * int(cells[3])]))
    if not cycles:
        raise InputError(f"{annotation}: holds no respiratory cycle; restore it from the official release")
    return cycles, seconds


def _seconds(cell: str, at: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"{at}: {cell!r} is no time; give seconds from the recording's start")
    return value


def _length(audio: Path) -> tuple[float, int]:
    """Seconds and samples per second of a recording, from its header."""
    import soundfile  # imports numpy, which the command line's help does without

    try:
        header = soundfile.info(str(audio))
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = " ".join(str(getattr(error, "error_string", error)).split()).rstrip(".")
        raise InputError(
            f"{audio}: does not decode as audio ({reason}); restore it from the official release"
        ) from error
    return header.frames / header.samplerate, header.samplerate


def _read_columns(path: Path, names: tuple[str, ...]) -> list[tuple[int, list[str]]]:
    """(line number, cells) of a file without header whose columns are parted by tabs or blanks."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore it from the official release") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a text file; restore it from the official release") from error
    rows = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    for number, cells in rows:
        if len(cells) != len(names):
            raise InputError(
                f"{path}, line {number}: {len(cells)} columns where {len(names)} are wanted "
                f"({', '.join(names)}); correct the line"
            )
    return rows
