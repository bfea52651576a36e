"""Classified clips gathered into what a user gets. Letters: N clips."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.inference.hearing import Clip, Finished, Sound, name_of
from fairseq_neupronet.inference.results import Embeddings, Prediction, Unreadable


def gather_predictions(
    events: Iterable[Clip | Finished], sounds: Sequence[Sound], profiles: Sequence[str | None], classes: list[str]
) -> Iterator[Prediction | Unreadable]:
    """One outcome a sound, as soon as its last clip has come."""
    times: list[tuple[float, float]] = []
    logits: list[Tensor] = []
    for event in events:
        if isinstance(event, Clip):
            times.append((event.start, event.end))
            logits.append(event.logits)
            continue
        if event.failure:
            yield event.failure
        else:
            path = name_of(sounds[event.source], event.source)
            yield Prediction(path, classes, profiles[event.source], np.array(times), torch.stack(logits).numpy())
        times, logits = [], []


def gather_embeddings(
    events: Iterable[Clip | Finished], sounds: Sequence[Sound], failures: list[Unreadable] | None
) -> Embeddings:
    """The embeddings of all N clips.

    Args:
        events: the classified clips.
        sounds: what they are of.
        failures: takes the sounds that cannot be read, whose clips are left out; None raises at the first.

    Raises:
        InputError: a sound that cannot be read, or all of them.
    """
    clips = []
    for event in events:
        if isinstance(event, Clip):
            clips.append(event)
        elif event.failure:
            if failures is None:
                raise InputError(event.failure.sentence)
            failures.append(event.failure)
            clips = [clip for clip in clips if clip.source != event.source]
    if not clips:
        raise InputError(failures[0].sentence if failures else "no sound is given; name one at least")

    def stacked(name: str) -> np.ndarray | None:
        rows = [getattr(clip, name) for clip in clips]
        return None if rows[0] is None else torch.stack(rows).numpy()

    return Embeddings(
        path=np.array([name_of(sounds[clip.source], clip.source) for clip in clips]),
        times=np.array([(clip.start, clip.end) for clip in clips]),
        **{name: stacked(name) for name in ("clip", "profile", "pooled", "fused", "logits")},
    )
