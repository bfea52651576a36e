"""Sound cut into the clips that a model hears. Letters: M mel bands, F frames."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fairseq_neupronet.audio.features import extract_features
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.data.spectrogram import crop, normalize
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.inference.checkpoint import Checkpoint

_WINDOW_WITHOUT_DATA = 10.0  # seconds, where a checkpoint does not know how long its training clips were


@dataclass(frozen=True)
class Windows:
    """How a long file is cut.

    Attributes:
        length: samples of a window.
        hop: samples from one window to the next.
        longest: samples of a file that is heard whole.
    """

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


def choose_windows(checkpoint: Checkpoint, window: float | None, hop: float | None) -> Windows:
    """The windows of a model: as long as its longest training clip, one after the other, unless told otherwise.

    Args:
        checkpoint: the model.
        window: seconds of a window; None for the model's own.
        hop: seconds from one window to the next; None for the window's length.

    Raises:
        InputError: a length or hop that is not positive, or longer than the model hears at once.
    """
    recipe, most = checkpoint.recipe, checkpoint.most_frames
    length = longest = round(_WINDOW_WITHOUT_DATA * recipe.sample_rate)
    if most is not None:
        length, longest = _samples(recipe, most)
    if window is not None:
        wanted = round(window * recipe.sample_rate)
        if wanted < 1 or wanted > longest:
            raise InputError(
                f"window {window:g}: give seconds above 0 and at most {longest / recipe.sample_rate:.2f}, "
                "which is what the model hears at once"
            )
        length = longest = wanted
    step = length if hop is None else round(hop * recipe.sample_rate)
    if not 1 <= step <= length:
        raise InputError(
            f"hop {hop:g}: give seconds above 0 and at most the window's {length / recipe.sample_rate:.2f}"
        )
    return Windows(length, step, longest)


def _samples(recipe: FeatureRecipe, n_frames: int) -> tuple[int, int]:
    """Least and most samples of a clip that has so many frames."""
    if recipe.kind == "mel_db":
        least = max(1, (n_frames - 1) * recipe.hop_length)
    else:
        least = int(recipe.sample_rate * recipe.frame_length_ms * 0.001) + (n_frames - 1) * recipe.hop_length
    return least, (least + recipe.hop_length - 1 if n_frames > 1 else max(least, recipe.hop_length - 1))


def hear(checkpoint: Checkpoint, waveform: Tensor) -> np.ndarray:
    """The spectrogram (M, F) of one window, as evaluation would read it from a prepared folder."""
    return treat(checkpoint, extract_features(waveform, checkpoint.recipe))


def treat(checkpoint: Checkpoint, spectrogram: np.ndarray) -> np.ndarray:
    """Cut and normalise a spectrogram (M, F) as the model's configuration says."""
    if checkpoint.most_frames is not None:
        spectrogram = crop(spectrogram, checkpoint.most_frames)
    return normalize(spectrogram) if checkpoint.normalize else spectrogram


def collate(checkpoint: Checkpoint, spectrograms: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Pad clips (M, F) with zeros at the right: (B, M, F) and the mask (B, F), True on padding."""
    lengths = np.array([spectrogram.shape[1] for spectrogram in spectrograms])
    n_frames = checkpoint.fixed_frames or int(lengths.max())
    source = np.zeros((len(lengths), len(spectrograms[0]), n_frames), np.float32)
    for padded, spectrogram in zip(source, spectrograms, strict=True):
        padded[:, : spectrogram.shape[1]] = spectrogram
    return torch.from_numpy(source), torch.from_numpy(np.arange(n_frames) >= lengths[:, None])
