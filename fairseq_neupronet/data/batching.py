"""Which clips share a batch. Letters: N clips."""

import numpy as np

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.batches import profile_batches


def batches_by_length(
    indices: np.ndarray, lengths: np.ndarray, max_tokens: int | None, max_sentences: int | None
) -> list[np.ndarray]:
    """Cut a list of clips where a batch is full.

    Args:
        indices: (N,) the clips.
        lengths: (N,) frames of each, padded.
        max_tokens: most frames of a batch, each clip as long as the longest; None: any number.
        max_sentences: most clips of a batch; None: any number.
    """
    limit = max_sentences or len(indices)
    starts, start, longest = [], 0, 0
    if max_tokens is None:
        starts = range(limit, len(indices), limit)
    else:
        for position, length in enumerate(lengths.tolist()):
            longest = max(longest, length)
            n_clips = position - start
            if n_clips and (n_clips == limit or longest * (n_clips + 1) > max_tokens):
                starts.append(position)
                start, longest = position, length
    return np.split(indices, starts)


def batches_by_profile(
    indices: np.ndarray,
    profiles: np.ndarray,
    clips_per_profile: int,
    max_sentences: int | None,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Batches of chunks of a profile's clips, as many chunks as a batch holds.

    Args:
        indices: (N,) the clips.
        profiles: (N,) code of each.
        clips_per_profile: most clips of a chunk.
        max_sentences: most clips of a batch.
        rng: deals the clips.

    Raises:
        InputError: no number of clips, or too few for a chunk.
    """
    if max_sentences is None:
        raise InputError("task.profile_batches needs dataset.batch_size; dataset.max_tokens does not size them")
    profiles_per_batch = max_sentences // clips_per_profile
    if profiles_per_batch == 0:
        raise InputError(
            f"task.clips_per_profile={clips_per_profile}: so many clips of a profile do not fit "
            f"dataset.batch_size={max_sentences}; lower it, or raise dataset.batch_size"
        )
    return [indices[batch] for batch in profile_batches(profiles, clips_per_profile, profiles_per_batch, rng)]
