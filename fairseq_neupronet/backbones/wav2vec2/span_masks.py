"""Span masks in time and over channels, as wav2vec 2.0 draws them (Baevski et al. 2020, section 3.1 and appendix A).

Tensor letters: B clips, T encoder steps, C encoder width, S spans of the clip that has most.

The number of spans is int(mask_prob · steps / span + a uniform number). Two things differ from fairseq's function,
which refuses short clips: a span is never longer than steps - 1, and the last step of a clip is never masked (in
fairseq neither, when spans have a fixed length), so that each clip keeps a step to see. A clip of two steps can be
masked, a clip of one step gets no mask, and clips need not have the same number of masked steps.
"""

import numpy as np

from fairseq_neupronet.config.model import SELECTIONS
from fairseq_neupronet.errors import InputError


def _span_lengths(
    selection: str, mask_length: int, mask_other: float, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Draw (B, S) span lengths of at least 1."""
    if selection == "static":
        lengths = np.full(size, mask_length)
    elif selection == "uniform":
        lengths = rng.integers(int(mask_other), 2 * mask_length + 1, size=size)
    elif selection == "normal":
        lengths = np.rint(rng.normal(mask_length, mask_other, size=size)).astype(np.int64)
    else:
        lengths = rng.poisson(mask_length, size=size)
    return np.maximum(lengths, 1)


def _choose(available: np.ndarray, counts: np.ndarray, n_columns: int, rng: np.random.Generator) -> np.ndarray:
    """Choose counts (B,) of the numbers below available (B,), without replacement and in random order: (B, S).

    Columns past a row's count hold numbers that mean nothing.
    """
    keys = rng.random((len(available), max(int(available.max(initial=0)), n_columns)))
    keys[np.arange(keys.shape[1])[None, :] >= available[:, None]] = np.inf
    return np.argsort(keys, axis=1)[:, :n_columns]


def _free_starts(
    last: np.ndarray, lengths: np.ndarray, used: np.ndarray, min_space: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Place spans (B, S) apart from each other, all arrangements of a row being equally likely.

    Spans that do not fit before ``last`` (B,) are left out. Returns the starts and which spans are used.
    """
    n_spans = lengths.shape[1]
    ends = np.cumsum(lengths, axis=1) + min_space * np.arange(n_spans)[None, :]
    used = used & (ends <= last[:, None])
    counts = used.sum(1)
    packed = np.where(used, ends, 0).max(axis=1, initial=0)
    # Distinct sorted numbers minus their rank are the multisets of gaps before each span.
    chosen = _choose(last - packed + counts, counts, n_spans, rng)
    chosen = np.sort(np.where(used, chosen, np.iinfo(np.int64).max), axis=1)
    return np.where(used, chosen - np.arange(n_spans)[None, :] + ends - lengths, 0), used


def span_mask(
    lengths: np.ndarray,
    max_steps: int,
    mask_prob: float,
    mask_length: int,
    min_masks: int,
    rng: np.random.Generator,
    selection: str = "static",
    mask_other: float = 0.0,
    no_overlap: bool = False,
    min_space: int = 1,
    dropout: float = 0.0,
    equal_counts: bool = False,
) -> np.ndarray:
    """Draw span masks.

    Args:
        lengths: (B,) unpadded steps of each clip; anything that numpy reads, a CPU tensor included.
        max_steps: T, the padded length.
        mask_prob: share of steps to mask, were there no overlaps.
        mask_length: span length.
        min_masks: least number of spans of a clip, as far as it has room for them.
        rng: source of all randomness.
        selection: ``static``: every span has ``mask_length``; ``uniform``: lengths from [mask_other,
            2 · mask_length]; ``normal``: mean ``mask_length``, deviation ``mask_other``; ``poisson``: mean
            ``mask_length``; never below one step nor above steps - 1.
        mask_other: see ``selection``.
        no_overlap: keep spans apart; those without room are left out. Drawn uniformly among all arrangements, where
            fairseq places the longest first.
        min_space: least number of unmasked steps between spans under ``no_overlap``.
        dropout: share of each clip's masked steps that is unmasked again, at random.
        equal_counts: unmask steps at random until all clips that can be masked have as many masked as the one with
            the fewest.

    Returns:
        (B, T) bool, True where masked; never on padding, never a whole clip.

    Raises:
        InputError: unknown selection, or a number outside its range.
    """
    if selection not in SELECTIONS:
        raise InputError(f"Unknown mask selection {selection!r}; known are {', '.join(SELECTIONS)}.")
    shares = 0 <= mask_prob <= 1 and 0 <= dropout <= 1
    if not shares or mask_length < 1 or min_masks < 0 or mask_other < 0 or min_space < 0:
        raise InputError(
            "Span masks need a probability and a dropout from 0 to 1, a length of at least 1, and no negative number: "
            f"got probability {mask_prob}, dropout {dropout}, length {mask_length}, at least {min_masks} spans, other "
            f"{mask_other}, space {min_space}."
        )
    if selection == "uniform" and mask_other > 2 * mask_length:
        raise InputError(
            f"Uniform selection draws from mask_other {mask_other} to twice the mask length {mask_length}: the first "
            "may not exceed the second."
        )
    steps = np.asarray(lengths, dtype=np.int64)
    last = np.maximum(steps - 1, 0)
    span = np.minimum(mask_length, np.maximum(last, 1))
    counts = (mask_prob * steps / span + rng.random(len(steps))).astype(np.int64)
    counts = np.minimum(np.maximum(counts, min_masks), last)
    columns = np.arange(int(counts.max(initial=0)))[None, :]
    used = columns < counts[:, None]
    spans = _span_lengths(selection, mask_length, mask_other, used.shape, rng)
    spans = np.minimum(spans, np.maximum(last, 1)[:, None])
    if no_overlap:
        starts, used = _free_starts(last, spans, used, min_space, rng)
    else:
        # As in fairseq the shortest span decides where spans may start; a longer one is cut at the end.
        shortest = np.where(used, spans, max_steps).min(axis=1, initial=max_steps)
        available = np.maximum(steps - shortest, 0)
        used &= columns < available[:, None]
        starts = _choose(available, counts, used.shape[1], rng)
    # +1 where a span begins, -1 where it ends: a step is masked where the running sum is positive.
    edges = np.zeros((len(steps), max_steps + 1), dtype=np.int64)
    rows = np.broadcast_to(np.arange(len(steps))[:, None], used.shape)[used]
    ends = np.minimum(starts + spans, last[:, None])
    np.add.at(edges, (rows, starts[used]), 1)
    np.add.at(edges, (rows, ends[used]), -1)
    mask = np.cumsum(edges, axis=1)[:, :max_steps] > 0
    if equal_counts or dropout > 0:
        mask = _thinned(mask, steps >= 2, dropout, equal_counts, rng)
    return mask


def _thinned(
    mask: np.ndarray, maskable: np.ndarray, dropout: float, equal_counts: bool, rng: np.random.Generator
) -> np.ndarray:
    """Keep as many masked steps (B, T) of each clip as wanted, chosen at random."""
    kept = mask.sum(1)
    if equal_counts:
        kept = np.minimum(kept, kept[maskable].min(initial=mask.shape[1]))
    kept = kept - np.rint(kept * dropout).astype(np.int64)
    keys = np.where(mask, rng.random(mask.shape), np.inf)
    return mask & (keys.argsort(axis=1).argsort(axis=1) < kept[:, None])


def draw_masks(
    config, steps: np.ndarray, n_steps: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Draw the masks of a batch as a ``SpectrogramWav2Vec2Options`` describes them.

    Args:
        config: its fields, as attributes.
        steps: (B,) unpadded steps of each clip.
        n_steps: T.
        rng: source of all randomness.

    Returns:
        Span mask (B, T) bool, and channel mask (B, C) bool or None where channels are not masked.
    """
    # Without a probability there are no spans, not the least number of them.
    least = 2 if config.mask_prob else 0
    spans = _drawn(config, "mask", steps, n_steps, rng, min_masks=least, dropout=config.mask_dropout)
    channels = None
    if config.mask_channel_prob > 0:
        width = config.encoder_embed_dim
        channels = _drawn(config, "mask_channel", np.full(len(steps), width), width, rng)
    return spans, channels


def _drawn(
    config,
    kind: str,
    lengths: np.ndarray,
    n_columns: int,
    rng: np.random.Generator,
    min_masks: int = 0,
    dropout: float = 0.0,
) -> np.ndarray:
    """:func:`span_mask` by the options that bear a name, ``mask`` or ``mask_channel``."""
    return span_mask(
        lengths,
        n_columns,
        getattr(config, f"{kind}_prob"),
        getattr(config, f"{kind}_length"),
        min_masks,
        rng,
        selection=str(getattr(config, f"{kind}_selection")),
        mask_other=getattr(config, f"{kind}_other"),
        no_overlap=getattr(config, f"no_{kind}_overlap"),
        min_space=getattr(config, f"{kind}_min_space"),
        dropout=dropout,
        equal_counts=config.require_same_masks,
    )
