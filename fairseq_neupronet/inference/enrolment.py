"""Clips that join a profile."""

from collections.abc import Sequence

import numpy as np
import torch

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.inference.classifier import BATCH, Classifier
from fairseq_neupronet.inference.clips import choose_windows
from fairseq_neupronet.inference.hearing import Clip, Finished, Sound
from fairseq_neupronet.profiles.bank import Bank, Profile


def enrol(classifier: Classifier, bank: Bank, name: str, sounds: Sequence[Sound], sample_rate: int | None) -> int:
    """Add the clips of sounds to a profile of the bank; all of them, or none.

    Args:
        classifier: of a model with profiles.
        bank: takes them.
        name: of the profile.
        sounds: files or arrays.
        sample_rate: of arrays, in Hz; None where they have the recipe's.

    Returns:
        How many clips were added.

    Raises:
        InputError: no sound, one that cannot be read, or a bad name.
    """
    checkpoint = classifier.checkpoint
    events = classifier.embedded(sounds, choose_windows(checkpoint, None, None), sample_rate, BATCH)
    for event in events:
        if isinstance(event, Finished) and event.failure:
            raise InputError(event.failure.sentence)
    clips = [event for event in events if isinstance(event, Clip)]
    if not clips:
        raise InputError(f"profile {name!r}: no sound is given; enrol one clip at least")
    sums = sum((clip.sums for clip in clips), np.zeros(checkpoint.n_band_sums))
    of_bands = bank.get(name).sums[: checkpoint.n_band_sums] + sums
    sums = np.concatenate([sums, classifier.embed_joining(clips, of_bands)])
    embeddings = [clip.profile for clip in clips] if classifier.pools else [torch.zeros(0)] * len(clips)
    bank.add(name, Profile(torch.stack(embeddings), sums))
    return len(clips)
