"""Batches of clips in the order given."""

import numpy as np


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
