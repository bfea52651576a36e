"""What the page does with sound: uploaded files in, answers or one sentence out. Knows nothing of the page."""

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from fairseq_neupronet.audio.decode import decoding, stream_audio
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.inference.model import TrainedModel
from fairseq_neupronet.inference.picture import Heard
from fairseq_neupronet.inference.results import Prediction

MEGABYTE = 1 << 20  # as browsers and gradio count


@dataclass(frozen=True)
class Limits:
    """Of an upload.

    Attributes:
        seconds: of a clip at most.
        megabytes: of a file at most.
    """

    seconds: float
    megabytes: float

    def __post_init__(self):
        for option, value in (("--max-seconds", self.seconds), ("--max-megabytes", self.megabytes)):
            if not 0 < value < float("inf"):
                raise InputError(f"{option} {value:g}: give a number above 0")


@dataclass(frozen=True)
class Recording:
    """Sound as the model hears it.

    Attributes:
        name: of the file that it came in.
        waveform: (samples,) float32 at ``rate`` Hz.
        rate: the recipe's, in Hz.
    """

    name: str
    waveform: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.waveform) / self.rate

    def as_wav(self) -> bytes:
        """A wav file of it, 16 bits."""
        file = io.BytesIO()
        soundfile.write(file, self.waveform, self.rate, format="WAV", subtype="PCM_16")
        return file.getvalue()


@dataclass(frozen=True)
class Answer:
    """What the model says of a recording.

    Attributes:
        prediction: in the group of its profile, or alone.
        alone: without the profile; None where it has none.
        heard: what there is to show of one window.
    """

    prediction: Prediction
    alone: Prediction | None
    heard: Heard


class Session:
    """A model, its profiles and the limits of what it is given. Methods may be called from several threads.

    Args:
        model: the model.
        limits: of uploads.
        bank: file of the profiles, read where it is there, written at every change; None keeps them in memory.

    Attributes:
        why_no_profiles: a sentence where the model cannot have any; otherwise None.

    Raises:
        InputError: a bank for a model without profiles, or one that cannot be used.
    """

    def __init__(self, model: TrainedModel, limits: Limits, bank: str | Path | None = None):
        self.model, self.limits, self.bank = model, limits, bank
        self.why_no_profiles: str | None = None
        self._lock = threading.Lock()
        try:
            model.require_profiles("enrolled")
        except InputError as reason:
            if bank is not None:
                raise
            self.why_no_profiles = str(reason)
        if bank is not None and Path(bank).exists():
            model.load_bank(bank)

    @property
    def profiles(self) -> dict[str, int]:
        """How many clips each enrolled profile has, by name."""
        return {} if self.why_no_profiles else self.model.bank.clips

    def take(self, path: str | Path) -> Recording:
        """Read an uploaded file and remove it, whether or not it can be read.

        The file's size and what its header claims are looked at first; as headers err, decoding ends where the sound
        becomes too long.

        Raises:
            InputError: too large, too long, or no sound; named by the file's own name, without its folder.
        """
        path = Path(path)
        try:
            return self._read(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), path.name)) from None
        finally:
            path.unlink(missing_ok=True)

    def take_all(self, paths: Sequence[str | Path]) -> list[Recording]:
        """Read uploaded files as :meth:`take` does, and remove all of them even where one cannot be read."""
        taken, failures = [], []
        for path in paths:
            try:
                taken.append(self.take(path))
            except InputError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return taken

    def _read(self, path: Path) -> Recording:
        rate = self.model.features.sample_rate
        megabytes = path.stat().st_size / MEGABYTE
        if megabytes > self.limits.megabytes:
            raise InputError(
                f"{path}: has {megabytes:.1f} MB, and this page takes {self.limits.megabytes:g}; cut it, "
                "or use neupronet predict"
            )
        with decoding(path):
            header = soundfile.info(str(path))
        self._refuse_longer(path, header.frames / max(1, header.samplerate))
        blocks, n_samples = [], 0
        for block in stream_audio(path, rate):
            blocks.append(block)
            n_samples += len(block)
            self._refuse_longer(path, n_samples / rate)
        return Recording(path.name, torch.cat(blocks).numpy(), rate)

    def _refuse_longer(self, path: Path, seconds: float) -> None:
        if seconds > self.limits.seconds:
            raise InputError(
                f"{path}: is longer than the {self.limits.seconds:g} seconds that this page takes; cut it,"
                " or use neupronet predict, which takes any length"
            )

    def answer(self, recording: Recording, profile: str | None = None, window: int = 1) -> Answer:
        """Label a recording.

        Args:
            recording: of :meth:`take`.
            profile: whose it is; None hears it alone.
            window: which one to show, from 1.

        Raises:
            InputError: a profile that is not enrolled, or no such window.
        """
        with self._lock:
            (prediction,) = self.model.predict(recording.waveform, profile)
            alone = None if profile is None else self.model.predict(recording.waveform)[0]
            heard = self.model.inspect(recording.waveform, profile, number=window)
        return Answer(prediction, alone, replace(heard, title=heard.title.replace(prediction.path, recording.name, 1)))

    def enrol(self, name: str, recordings: Sequence[Recording]) -> int:
        """Add recordings to a profile.

        Returns:
            How many clips (windows of long recordings) were added.

        Raises:
            InputError: a model without profiles, no recording, a bad name, or a bank that cannot be written, which
                then keeps what it was.
        """
        with self._lock:
            n_clips = self.model.enrol(name, [recording.waveform for recording in recordings])
            self._save()
            return n_clips

    def forget(self, name: str) -> None:
        """Remove a profile, from the bank's file too. Raises InputError as :meth:`enrol`, or where there is none."""
        with self._lock:
            self.model.forget(name)
            self._save()

    def _save(self) -> None:
        if self.bank is not None:
            self.model.save_bank(self.bank)
