"""Named feature recipes: every number that turns a waveform into a spectrogram."""

import dataclasses
import math
import reprlib
from pathlib import Path

import yaml

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file, configs_folder

RECIPE_FILE = "recipe.yaml"

# kind -> the fields that are its own (the others stay None) and whether each may be left out
_COMMON = {"sample_rate": int, "hop_length": int, "n_mels": int}
_OWN = {
    "mel_db": {"n_fft": int, "top_db": float, "scale": float},
    "kaldi_fbank": {"frame_length_ms": float, "mean": float, "divisor": float, "target_frames": int},
}
_OPTIONAL = {"target_frames"}
_ANY_SIGN = {"mean"}
_MOST_BYTES = 1 << 16
_LONGEST_REASON = 300
# What a recipe of unknown origin may have allocated: a filter bank of a gigabyte.
_MOST = {"n_fft": 1 << 18, "n_mels": 1 << 10, "frame_length_ms": 10_000}
_MOST_OF_OTHERS = 10**7
_LEAST_SAMPLE_RATE = 1000  # Hz; below it someone has written kHz


@dataclasses.dataclass(frozen=True)
class FeatureRecipe:
    """How spectrograms are computed. Two recipes are equal when they compute the same, whatever their names.

    Args:
        name: the recipe's name, used in messages only.
        kind: ``mel_db`` (librosa's mel spectrogram in dB, scaled per clip) or ``kaldi_fbank`` (log mel filter bank).
        sample_rate: Hz, of the waveform the features are computed from.
        hop_length: samples from one frame to the next.
        n_mels: number of mel bands.
        n_fft: ``mel_db``: samples of the Hann window and of the Fourier transform.
        top_db: ``mel_db``: decibels below the clip's maximum at which the spectrogram is cut off.
        scale: ``mel_db``: each clip's minimum becomes 0 and its maximum this.
        frame_length_ms: ``kaldi_fbank``: milliseconds of the hanning window; the transform is the next power of two.
        mean: ``kaldi_fbank``: subtracted from the log energies.
        divisor: ``kaldi_fbank``: divides them afterwards.
        target_frames: ``kaldi_fbank``: every clip is cut, or zero-padded before normalisation, to so many frames;
            None keeps each clip's own length, so that the batch pads and masks.

    Raises:
        InputError: an unknown kind, or a field that is missing, of another kind, no number, or not positive.
    """

    name: str = dataclasses.field(compare=False)
    kind: str
    sample_rate: int
    hop_length: int
    n_mels: int
    n_fft: int | None = None
    top_db: float | None = None
    scale: float | None = None
    frame_length_ms: float | None = None
    mean: float | None = None
    divisor: float | None = None
    target_frames: int | None = None

    def __post_init__(self):
        if not isinstance(self.kind, str) or self.kind not in _OWN:
            shown = reprlib.repr(self.kind)[:100]
            raise InputError(f"recipe {self.name}: kind is {shown}; known kinds: {', '.join(_OWN)}")
        wanted = _COMMON | _OWN[self.kind]
        for field in dataclasses.fields(self)[2:]:
            value = getattr(self, field.name)
            if field.name in wanted:
                object.__setattr__(self, field.name, self._number(field.name, value, wanted[field.name]))
            elif value is not None:
                raise InputError(
                    f"recipe {self.name}: {field.name} does not apply to kind {self.kind}, whose fields "
                    f"are {', '.join(wanted)}; leave it out"
                )

        if self.sample_rate < _LEAST_SAMPLE_RATE:
            raise InputError(
                f"recipe {self.name}: sample_rate is {self.sample_rate}; give it in Hz, at least {_LEAST_SAMPLE_RATE}"
            )
        if self.kind == "kaldi_fbank" and self.frame_length_ms * self.sample_rate < 2000:
            raise InputError(
                f"recipe {self.name}: frame_length_ms is {self.frame_length_ms:g}, less than two samples; "
                "give it in milliseconds, e.g. 25"
            )

    def _number(self, field: str, value, kind: type):
        if value is None:
            if field in _OPTIONAL:
                return None
            raise InputError(f"recipe {self.name}: {field} is missing; give it a number")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"recipe {self.name}: {field} is {reprlib.repr(value)[:100]}; give it a number")
        if kind(value) != value:
            raise InputError(f"recipe {self.name}: {field} is {value!r}; give it a whole number")
        if abs(value) > _MOST.get(field, _MOST_OF_OTHERS):
            raise InputError(
                f"recipe {self.name}: {field} is {value!r}; give it a number up to {_MOST.get(field, _MOST_OF_OTHERS)}"
            )
        if value <= 0 and field not in _ANY_SIGN:
            raise InputError(f"recipe {self.name}: {field} is {value!r}; give it a number above 0")
        return kind(value)

    @classmethod
    def load(cls, name_or_yaml_path, **overrides) -> "FeatureRecipe":
        """Read a named recipe of ``configs/features``, or a yaml file of the user's own.

        Args:
            name_or_yaml_path: ``official``, ``kaldi_fbank``, … or the path of a ``.yaml`` file.
            overrides: fields that replace those of the file; None leaves the file's value.

        Raises:
            InputError: no such recipe (lists the known ones), or fields that make no recipe.
        """
        folder = configs_folder() / "features"
        path = Path(name_or_yaml_path)
        if path.suffix not in (".yaml", ".yml"):
            path = folder / f"{name_or_yaml_path}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none"
            raise InputError(
                f"recipe {name_or_yaml_path}: no such feature recipe; known ones: {known} (or the path of a .yaml file)"
            )
        given = {field: value for field, value in overrides.items() if value is not None}
        return cls.from_dict({"name": path.stem} | _read_mapping(path) | given)

    @classmethod
    def from_dict(cls, fields: dict) -> "FeatureRecipe":
        """The inverse of :meth:`to_dict`. Raises InputError on unknown or missing fields."""
        name = fields.get("name", "without a name")
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = [str(field) for field in fields if field not in known]
        if unknown:
            raise InputError(f"recipe {name}: unknown field {', '.join(unknown)}; known fields: {', '.join(known)}")
        return cls(**{field: None for field in ("kind", *_COMMON)} | {"name": name} | fields)

    def to_dict(self) -> dict:
        """The fields that apply to the kind, as plain strings and numbers (they travel in checkpoints)."""
        own = {"name": str, "kind": str} | _COMMON | _OWN[self.kind]
        return {field: getattr(self, field) for field in own}

    def save(self, folder) -> None:
        """Write ``recipe.yaml`` into the features folder, atomically."""
        with atomic_file(Path(folder) / RECIPE_FILE) as stream:
            yaml.safe_dump(self.to_dict(), stream, sort_keys=False)

    @classmethod
    def read(cls, folder) -> "FeatureRecipe | None":
        """The recipe stored in a features folder; None if it holds none. Raises InputError if it is damaged."""
        path = Path(folder) / RECIPE_FILE
        return cls.from_dict(_read_mapping(path)) if path.is_file() else None

    def describe(self) -> str:
        """One short line for messages, e.g. ``official: 128 mels, 22500 Hz, n_fft 2048, hop 512``."""
        window = f"n_fft {self.n_fft}" if self.kind == "mel_db" else f"window {self.frame_length_ms:g} ms"
        parts = [f"{self.n_mels} mels", f"{self.sample_rate} Hz", window, f"hop {self.hop_length}"]
        if self.target_frames:
            parts.append(f"{self.target_frames} frames")
        return f"{self.name}: {', '.join(parts)}"

    def difference(self, other: "FeatureRecipe") -> str:
        """The fields in which two recipes differ, e.g. ``n_mels 128 or 64``; empty when they are equal."""
        fields = [field.name for field in dataclasses.fields(self) if field.compare]
        pairs = [(field, getattr(self, field), getattr(other, field)) for field in fields]
        return ", ".join(f"{field} {mine} or {theirs}" for field, mine, theirs in pairs if mine != theirs)


def _read_mapping(path: Path) -> dict:
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_BYTES + 1)
        fields = yaml.safe_load(text.decode()) if len(text) <= _MOST_BYTES else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); let it be readable") from error
    # Beside its own errors the library raises those of Python's numbers, dates and stack.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: is not a readable yaml file ({reason[:_LONGEST_REASON]}); correct it") from error
    if len(text) > _MOST_BYTES:
        raise InputError(f"{path}: is larger than any recipe; give a yaml file below {_MOST_BYTES} bytes")
    if not isinstance(fields, dict):
        raise InputError(f"{path}: holds no fields; write one 'field: value' per line")
    return fields
