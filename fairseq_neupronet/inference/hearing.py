"""From files and arrays to embeddings, in batches of clips that may come from many files."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fairseq_neupronet.audio.decode import stream_array, stream_audio
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.inference.checkpoint import Checkpoint
from fairseq_neupronet.inference.clips import Windows, collate, hear
from fairseq_neupronet.inference.results import Unreadable
from fairseq_neupronet.networks.adaptive_batch_norm import adapted_to_groups, adapted_to_sums
from fairseq_neupronet.networks.neupronet import NeuProNet
from fairseq_neupronet.networks.precision import autocast

Sound = str | Path | np.ndarray | Tensor


@dataclass
class Clip:
    """A window of an input. Letters: M bands, F frames, D and U widths, K classes.

    Attributes:
        source: the input's number.
        start, end: seconds.
        spectrogram: (M, F); goes once it is embedded.
        sums: (S,) of its mel bands, where the model normalises by them; otherwise (0,).
        norm_sums: of what batch norms see of its group, where the model adapts to them; None for a clip alone.
        clip, profile: (D,) embeddings of the clip alone.
        pooled, fused, logits: (D,), (U,) and (K,), of the clip in its group.
    """

    source: int
    start: float
    end: float
    spectrogram: np.ndarray | None
    sums: np.ndarray
    norm_sums: np.ndarray | None = None
    clip: Tensor | None = None
    profile: Tensor | None = None
    pooled: Tensor | None = None
    fused: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True)
class Finished:
    """All clips of an input have come; with the reason where they have not."""

    source: int
    failure: Unreadable | None = None


def name_of(sound: Sound, number: int) -> str:
    """What to call an input: a file's path, or its number among the inputs."""
    return str(sound) if isinstance(sound, str | Path) else f"array {number}"


def stream_sound(checkpoint: Checkpoint, sound: Sound, number: int, array_rate: int | None) -> Iterator[Tensor]:
    """The waveform of an input at the recipe's rate, in blocks (samples,).

    Args:
        checkpoint: has the recipe.
        sound: the input.
        number: its number among the inputs.
        array_rate: of an array, in Hz; None where it has the recipe's.

    Raises:
        InputError: it cannot be read.
    """
    rate = checkpoint.recipe.sample_rate
    if isinstance(sound, str | Path):
        return stream_audio(sound, rate)
    return stream_array(np.asarray(sound), array_rate or rate, rate, name_of(sound, number))


def make_clip(checkpoint: Checkpoint, source: int, place: int, waveform: Tensor) -> Clip:
    """A clip, not yet embedded, of the window (samples,) that begins at sample ``place`` of its input."""
    rate = checkpoint.recipe.sample_rate
    spectrogram = hear(checkpoint, waveform)
    sums = checkpoint.bands.sums_of(spectrogram) if checkpoint.bands else np.zeros(0)
    return Clip(source, place / rate, (place + len(waveform)) / rate, spectrogram, sums)


def read_clips(
    checkpoint: Checkpoint, sounds: Sequence[Sound], windows: Windows, array_rate: int | None
) -> Iterator[Clip | Finished]:
    """Cut every input into clips; after those of an input comes its :class:`Finished`."""
    for number, sound in enumerate(sounds):
        name = name_of(sound, number)
        try:
            for place, waveform in windows.cut(stream_sound(checkpoint, sound, number, array_rate)):
                yield make_clip(checkpoint, number, place, waveform)
        except InputError as error:
            yield Finished(number, Unreadable(name, str(error)))
        except OSError as error:
            reason = error.strerror or error
            yield Finished(number, Unreadable(name, f"{name}: cannot be read ({reason}); restore the file"))
        else:
            yield Finished(number)


def in_batches(
    events: Iterable[Clip | Finished], size: int, compute: Callable[[list[Clip]], None]
) -> Iterator[Clip | Finished]:
    """Pass events on in their order, once ``compute`` has been given their clips, ``size`` at a time."""
    waiting: list[Clip | Finished] = []
    clips: list[Clip] = []
    for event in events:
        waiting.append(event)
        if isinstance(event, Clip):
            clips.append(event)
        if len(clips) == size:
            compute(clips)
            yield from waiting
            waiting, clips = [], []
    if clips:
        compute(clips)
    yield from waiting


def normalize_by_groups(checkpoint: Checkpoint, clips: list[Clip], group_sums: list[np.ndarray]) -> None:
    """Normalise the spectrograms in place, by the sums (S,) of each clip's group."""
    normalized = checkpoint.bands([clip.spectrogram for clip in clips], np.stack(group_sums))
    for clip, spectrogram in zip(clips, normalized, strict=True):
        clip.spectrogram = spectrogram


@torch.no_grad()
def embed(checkpoint: Checkpoint, network: NeuProNet, clips: list[Clip]) -> None:
    """Fill in clip and profile embeddings. Clips of one length share a pass, so that no padding depends on others."""
    by_length: dict[int, list[Clip]] = {}
    for clip in clips:
        by_length.setdefault(checkpoint.fixed_frames or clip.spectrogram.shape[1], []).append(clip)
    for group in by_length.values():
        with _adapted(checkpoint, network, group):
            _embed_at_once(checkpoint, network, group)


@torch.no_grad()
def embed_group(checkpoint: Checkpoint, network: NeuProNet, clips: list[Clip]) -> np.ndarray:
    """Fill in the embeddings of the clips of one group, whose batch norms adapt to them; returns their sums.

    The clips share a pass: those of other lengths are padded to the longest where the model has no length of its own.
    """
    group, counts = torch.zeros(len(clips), dtype=torch.long), torch.ones(len(clips), dtype=torch.bool)
    with adapted_to_groups(network.backbone, group, counts, checkpoint.adaptive_batch_norm) as found:
        _embed_at_once(checkpoint, network, clips)
    return torch.cat(found, dim=1)[0].numpy()


def _adapted(checkpoint: Checkpoint, network: NeuProNet, clips: list[Clip]) -> AbstractContextManager:
    known = [clip.norm_sums for clip in clips if clip.norm_sums is not None]
    if not known:
        return nullcontext()
    alone = np.zeros_like(known[0])
    sums = np.stack([alone if clip.norm_sums is None else clip.norm_sums for clip in clips])
    return adapted_to_sums(network.backbone, torch.from_numpy(sums), checkpoint.adaptive_batch_norm)


def _embed_at_once(checkpoint: Checkpoint, network: NeuProNet, clips: list[Clip]) -> None:
    source, padding = collate(checkpoint, [clip.spectrogram for clip in clips])
    with autocast(checkpoint.bfloat16, source.device):
        clip_embeddings, profile_embeddings = network.embed(source, padding)
    for number, clip in enumerate(clips):
        clip.clip, clip.spectrogram = clip_embeddings[number].float(), None
        if profile_embeddings is not None:
            clip.profile = profile_embeddings[number].float()
