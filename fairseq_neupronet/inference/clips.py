"""Sound that a user names, read and cut into the clips that a model receives. Letters: M mel bands, F frames."""

import glob
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from fairseq_neupronet.audio.decode import stream_array, stream_audio
from fairseq_neupronet.audio.features import extract_features
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.data.clip_files import crop, normalize
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import read_metadata
from fairseq_neupronet.inference.checkpoint import Checkpoint
from fairseq_neupronet.inference.results import Clip, Finished, Unreadable

Sound = str | Path | np.ndarray | Tensor

_WINDOW_WITHOUT_DATA = 10.0  # seconds, where a checkpoint does not know how long its training clips were
_HAIR = 1e-6  # samples
# libsndfile's own formats, and the usual other endings of them; raw samples say nothing of themselves.
_SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"} | {
    ".aif",
    ".aifc",
    ".oga",
    ".opus",
    ".snd",
}


def find_audio(names: Iterable[str | Path]) -> list[str]:
    """The files that names stand for, in order: a file by its name, a folder for the audio in it and below, a pattern
    (``*``, ``?``, ``[…]``, ``**``) for what it matches.

    A name that stands for nothing stays as it is, so that whoever reads it says that it is missing.
    """
    found = []
    for name in map(str, names):
        if Path(name).is_dir():
            found += sorted(_audio_below(Path(name))) or [name]
        elif not Path(name).exists() and glob.has_magic(name):
            matches = sorted(glob.glob(name, recursive=True))
            found += find_audio(matches) if matches else [name]
        else:
            found.append(name)
    return found


def _audio_below(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()]


def read_profiles(table: str | Path) -> dict[str, str | None]:
    """The profile of each file of a table with the columns ``path`` (relative to the table's folder) and ``profile``.

    Raises:
        InputError: naming table and line: unreadable, without these columns, an empty or repeated path.
    """
    table = Path(table)
    profiles: dict[str, str | None] = {}
    for line, row in read_metadata(table, ("path", "profile")):
        path = str(table.parent / row["path"])
        if not row["path"] or path in profiles:
            problem = f"{row['path']} is there twice" if row["path"] else "path is empty"
            raise InputError(f"{table}, line {line}: {problem}; give every file one row")
        profiles[path] = row["profile"] or None
    return profiles


@dataclass(frozen=True)
class Windows:
    """How a long file is cut.

    Attributes:
        rate: samples a second.
        length: samples of a window.
        hop: samples from one window to the next.
        longest: samples of a file that stays whole.
    """

    rate: int
    length: int
    hop: int
    longest: int

    def cut(self, blocks: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Places (samples) and waveforms of the windows; the last one ends where the file ends.

        Args:
            blocks: the waveform, (samples,) by (samples,); no more than a block and two windows are kept.
        """
        waiting, start, total = torch.zeros(0), 0, 0
        for block in blocks:
            waiting, total = torch.cat([waiting, block]), total + len(block)
            # One window is kept back: the file may end here, and the last one reaches back from its end.
            while total > self.longest and total - start > self.length + self.hop:
                yield start, waiting[: self.length]
                waiting, start = waiting[self.hop :], start + self.hop
        if total <= self.longest:
            yield 0, waiting
            return
        begin = start
        while start + self.length <= total:
            yield start, waiting[start - begin : start - begin + self.length]
            start += self.hop
        if start - self.hop + self.length < total:
            yield total - self.length, waiting[-self.length :]


def choose_windows(
    checkpoint: Checkpoint,
    window: float | None = None,
    hop: float | None = None,
    limits: tuple[float, float] | None = None,
) -> Windows:
    """The windows of a model: as long as its longest training clip, one after the other, unless told otherwise.

    Args:
        checkpoint: the model.
        window: seconds of a window; None for the model's own.
        hop: seconds from one window to the next; None for the window's length.
        limits: seconds of a window and of a sound that stays whole, in place of the model's own.

    Raises:
        InputError: a length or hop that is not positive, or longer than the model takes at once.
    """
    rate = checkpoint.recipe.sample_rate
    limits = limits or own_limits(checkpoint.recipe, checkpoint.most_frames) or (_WINDOW_WITHOUT_DATA,) * 2
    # A limit that is a whole number of samples may come a hair beside it.
    length, longest = math.ceil(limits[0] * rate - _HAIR), math.floor(limits[1] * rate + _HAIR)
    if window is not None:
        wanted = round(window * rate)
        if wanted < 1 or wanted > longest:
            raise InputError(
                f"window {window:g}: give seconds above 0 and at most {longest / rate:.2f}, "
                "which is what the model takes at once"
            )
        length = longest = wanted
    step = length if hop is None else round(hop * rate)
    if not 1 <= step <= length:
        raise InputError(f"hop {hop:g}: give seconds above 0 and at most the window's {length / rate:.2f}")
    return Windows(rate, length, step, longest)


def own_limits(recipe: FeatureRecipe, n_frames: int | None) -> tuple[float, float] | None:
    """Least and most seconds of a clip that has so many frames; None where their number is not known."""
    if n_frames is None:
        return None
    if recipe.kind == "mel_db":
        least = max(1, (n_frames - 1) * recipe.hop_length)
    else:
        least = int(recipe.sample_rate * recipe.frame_length_ms * 0.001) + (n_frames - 1) * recipe.hop_length
    most = least + recipe.hop_length - 1 if n_frames > 1 else max(least, recipe.hop_length - 1)
    return least / recipe.sample_rate, most / recipe.sample_rate


def spectrogram_of(checkpoint: Checkpoint, waveform: Tensor) -> np.ndarray:
    """The spectrogram (M, F) of one window, as evaluation reads it from a prepared folder."""
    return treat(checkpoint, extract_features(waveform, checkpoint.recipe))


def treat(checkpoint: Checkpoint, spectrogram: np.ndarray) -> np.ndarray:
    """Cut and normalise a spectrogram (M, F) as the model's configuration says."""
    if checkpoint.most_frames is not None:
        spectrogram = crop(spectrogram, checkpoint.most_frames)
    return normalize(spectrogram) if checkpoint.normalize else spectrogram


def name_of(sound: Sound, number: int) -> str:
    """What to call an input: a file's path, or its number among the inputs."""
    return str(sound) if isinstance(sound, str | Path) else f"array {number}"


def stream_sound(rate: int, sound: Sound, number: int, array_rate: int | None) -> Iterator[Tensor]:
    """The waveform of an input, in blocks (samples,).

    Args:
        rate: of the waveform, in Hz.
        sound: the input.
        number: its number among the inputs.
        array_rate: of an array, in Hz; None where it has the waveform's.

    Raises:
        InputError: it cannot be read.
    """
    if isinstance(sound, str | Path):
        return stream_audio(sound, rate)
    return stream_array(np.asarray(sound), array_rate or rate, rate, name_of(sound, number))


def make_clip(checkpoint: Checkpoint, source: int, place: int, waveform: Tensor) -> Clip:
    """The clip of the window (samples,) that begins at sample ``place`` of its input, not yet embedded."""
    rate = checkpoint.recipe.sample_rate
    return Clip(source, place / rate, (place + len(waveform)) / rate, spectrogram_of(checkpoint, waveform))


def read_clips(
    checkpoint: Checkpoint, sounds: Sequence[Sound], windows: Sequence[Windows], array_rate: int | None
) -> Iterator[Clip | Finished]:
    """Cut every input into clips; after those of an input comes its :class:`Finished`.

    Args:
        checkpoint: the model.
        sounds: the inputs.
        windows: the model's, then those at the sample rates of other models. A last window that exists at some rates
            only, where an input ends within a sample of another window's end, is left out at all.
        array_rate: of arrays, in Hz; None where they have the recipe's.
    """
    array_rate = array_rate or checkpoint.recipe.sample_rate
    for number, sound in enumerate(sounds):
        name = name_of(sound, number)
        try:
            cuts = (each.cut(stream_sound(each.rate, sound, number, array_rate)) for each in windows)
            for (place, waveform), *_ in zip(*cuts, strict=False):
                yield make_clip(checkpoint, number, place, waveform)
        except InputError as error:
            yield Finished(number, Unreadable(name, str(error)))
        except OSError as error:
            reason = error.strerror or error
            yield Finished(number, Unreadable(name, f"{name}: cannot be read ({reason}); restore the file"))
        else:
            yield Finished(number)
