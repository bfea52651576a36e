"""Span masks: short clips, padding, and the distributions of wav2vec 2.0 against loops and enumerations."""

import types
from itertools import combinations

import numpy as np
import pytest
import torch
from fairseq.data import data_utils
from masks import runs

from fairseq_neupronet.backbones.wav2vec2.span_masks import SELECTIONS, span_mask
from fairseq_neupronet.errors import InputError


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("no_overlap", [False, True])
@pytest.mark.parametrize(("prob", "length"), [(0.3, 10), (0.65, 4), (1.0, 1), (1.0, 50)])
def test_from_one_step_up(selection, no_overlap, prob, length):
    rng = np.random.default_rng(0)
    steps = rng.integers(0, 40, 300)
    mask = span_mask(steps, 40, prob, length, 2, rng, selection=selection, mask_other=1, no_overlap=no_overlap)
    assert mask.shape == (300, 40) and mask.dtype == bool
    assert not mask[np.arange(40)[None, :] >= steps[:, None]].any()
    masked = mask.sum(1)
    assert (masked[steps <= 1] == 0).all()
    assert (masked < np.maximum(steps, 1)).all()
    assert (masked[steps >= 2] > 0).all()


@pytest.mark.parametrize(
    ("steps", "prob", "length", "min_masks"), [(15, 0.3, 4, 2), (60, 0.65, 10, 2), (33, 0.5, 3, 0)]
)
def test_static_spans_are_distributed_as_a_loop_draws_them(steps, prob, length, min_masks):
    n = 4000
    rng = np.random.default_rng(1)
    ours = span_mask(np.full(n, steps), steps, prob, length, min_masks, rng)
    loop = np.zeros_like(ours)
    for row in loop:
        n_spans = max(min_masks, int(prob * steps / length + rng.random()))
        for start in rng.choice(steps - length, n_spans, replace=False):
            row[start : start + length] = True
    for a, b in ((ours, loop), (ours.sum(1, keepdims=True), loop.sum(1, keepdims=True))):
        error = np.sqrt((a.var(0) + b.var(0)) / n)
        assert (np.abs(a.mean(0) - b.mean(0)) <= 4 * error).all()


@pytest.mark.parametrize(
    ("selection", "mask_other", "probabilities"),
    [
        ("static", 0, {3: 1.0}),
        ("uniform", 2, {2: 0.2, 3: 0.2, 4: 0.2, 5: 0.2, 6: 0.2}),
        ("normal", 1, {1: 0.0668, 2: 0.2417, 3: 0.3829, 4: 0.2417, 5: 0.0606, 6: 0.0060}),
        ("poisson", 0, {1: 0.1991, 2: 0.2240, 3: 0.2240, 4: 0.1680, 5: 0.1008, 6: 0.0504, 7: 0.0216}),
    ],
)
@pytest.mark.parametrize("no_overlap", [False, True])
def test_lengths_of_a_single_span(selection, mask_other, probabilities, no_overlap):
    n = 20_000
    rng = np.random.default_rng(2)
    mask = span_mask(
        np.full(n, 50), 50, 0, 3, 1, rng, selection=selection, mask_other=mask_other, no_overlap=no_overlap
    )
    lengths = mask.sum(1)
    for length, probability in probabilities.items():
        assert abs((lengths == length).mean() - probability) <= 4 * np.sqrt(probability * (1 - probability) / n) + 1e-4


def test_spans_kept_apart_are_uniform_over_arrangements():
    """Two spans of 2 with 1 step between them in the first 8 of 9 steps, each arrangement counted."""
    n = 20_000
    mask = span_mask(np.full(n, 9), 9, 0, 2, 2, np.random.default_rng(3), no_overlap=True, min_space=1)
    arrangements = [((a, 2), (b, 2)) for a, b in combinations(range(7), 2) if b - a >= 3]
    found = [tuple(runs(row)) for row in mask]
    assert set(found) == set(arrangements)
    share = 1 / len(arrangements)
    for arrangement in arrangements:
        assert abs(found.count(arrangement) / n - share) <= 4 * np.sqrt(share / n)


def test_spans_without_room_are_left_out():
    mask = span_mask(np.full(50, 9), 9, 1, 2, 8, np.random.default_rng(4), no_overlap=True, min_space=3)
    assert {tuple(length for _, length in runs(row)) for row in mask} == {(2, 2)}
    gaps = [b - a - length for row in mask for (a, length), (b, _) in [runs(row)]]
    assert min(gaps) >= 3


SHAPES = {
    "static": {},
    "uniform": {"selection": "uniform", "mask_other": 3},
    "normal": {"selection": "normal", "mask_other": 2},
    "poisson": {"selection": "poisson"},
    "static, apart": {"no_overlap": True, "min_space": 2},
    "uniform, apart": {"selection": "uniform", "mask_other": 3, "no_overlap": True, "min_space": 1},
    "normal, apart": {"selection": "normal", "mask_other": 1, "no_overlap": True, "min_space": 1},
}


@pytest.fixture
def fairseqs_mask(monkeypatch):
    """fairseq's function; some of its branches use names that numpy has no more."""
    numpy_of_then = types.SimpleNamespace(**vars(np))
    numpy_of_then.int = int
    source = np.random.RandomState(7)
    numpy_of_then.random = types.SimpleNamespace(default_rng=lambda seed: source)
    monkeypatch.setattr(data_utils, "np", numpy_of_then)
    return data_utils.compute_mask_indices


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("rest", [{}, {"dropout": 0.3}], ids=["whole", "thinned"])
def test_masks_are_distributed_as_those_of_fairseq(fairseqs_mask, shape, rest):
    """Clips of 200 steps, where the last one, which ours never masks, and the placement of spans weigh little."""
    n, steps = 3000, 200
    names = {"selection": "mask_type", "dropout": "mask_dropout"}
    theirs = fairseqs_mask(
        (n, steps),
        None,
        0.2,
        8,
        min_masks=2,
        require_same_masks=False,
        **{names.get(name, name): value for name, value in (shape | rest).items()},
    )
    ours = span_mask(np.full(n, steps), steps, 0.2, 8, 2, np.random.default_rng(8), **shape, **rest)
    for count in (lambda mask: mask.sum(1), lambda mask: np.array([len(runs(row)) for row in mask])):
        a, b = count(ours), count(theirs)
        assert abs(a.mean() - b.mean()) <= 4 * np.sqrt((a.var() + b.var()) / n) + 0.01 * b.mean()
        assert abs(a.std() - b.std()) <= 0.1 * b.std()
    found = [[length for row in mask for _, length in runs(row)] for mask in (ours, theirs)]
    lengths = [np.bincount(of_mask, minlength=64) for of_mask in found]
    shares = [counts / counts.sum() for counts in lengths]
    assert np.abs(shares[0] - shares[1]).sum() / 2 <= 0.04
    inner = slice(20, -20)
    np.testing.assert_allclose(ours.mean(0)[inner].mean(), theirs.mean(0)[inner].mean(), rtol=0.05)


@pytest.mark.parametrize("dropout", [0.0, 0.25, 1.0])
def test_the_share_that_is_unmasked_again(dropout):
    steps = np.random.default_rng(1).integers(0, 40, 300)
    mask, whole = (span_mask(steps, 40, 0.6, 5, 2, np.random.default_rng(2), dropout=share) for share in (dropout, 0))
    assert (mask <= whole).all()
    assert mask.sum(1).tolist() == [count - round(count * dropout) for count in whole.sum(1).tolist()]


def test_equal_counts_are_the_fewest_of_any_clip_that_can_be_masked():
    rng, steps = np.random.default_rng(3), np.array([1, 60, 45, 30])
    whole = span_mask(steps, 60, 0.5, 4, 2, np.random.default_rng(5))
    mask = span_mask(steps, 60, 0.5, 4, 2, np.random.default_rng(5), equal_counts=True)
    assert (mask <= whole).all()
    assert mask.sum(1).tolist() == [0, *[whole.sum(1)[1:].min()] * 3]
    assert len(set(whole.sum(1)[1:])) > 1
    assert span_mask([1, 0], 5, 0.5, 4, 2, rng, equal_counts=True).sum() == 0


def test_which_steps_are_unmasked_is_random():
    """Each of a clip's masked steps is as likely to stay as any other."""
    n = 4000
    mask = span_mask(np.full(n, 11), 11, 0, 10, 1, np.random.default_rng(6), dropout=0.5)
    assert set(mask.sum(1)) == {5}
    assert (np.abs(mask.mean(0)[:10] - 0.5) <= 4 * 0.5 / np.sqrt(n)).all()


def test_seed_decides():
    lengths = torch.tensor([20, 30])
    first, second, third = (span_mask(lengths, 30, 0.5, 3, 2, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == second).all() and (first != third).any()


def test_no_clips():
    assert span_mask([], 7, 0.5, 3, 2, np.random.default_rng(0)).shape == (0, 7)


def test_masks_over_channels():
    rng = np.random.default_rng(5)
    mask = span_mask(np.full(2000, 64), 64, 0.25, 8, 0, rng)
    assert mask.shape == (2000, 64)
    assert {length % 8 == 0 or length > 8 for row in mask for _, length in runs(row)} == {True}
    # int(.25 · 64 / 8 + u) is 2 spans, the second of which overlaps the first by the given mean.
    starts = np.arange(56)
    distance = np.abs(starts[:, None] - starts[None, :])[~np.eye(56, dtype=bool)]
    expected = 16 - np.maximum(8 - distance, 0).mean()
    assert abs(mask.sum(1).mean() - expected) <= 4 * mask.sum(1).std() / np.sqrt(2000)
    assert not span_mask(np.full(4, 64), 64, 0, 8, 0, rng).any()


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"selection": "gamma"}, "static, uniform, normal, poisson"),
        ({"mask_prob": 1.5}, "probability 1.5"),
        ({"mask_length": 0}, "length 0"),
        ({"selection": "uniform", "mask_other": 7}, "may not exceed"),
        ({"dropout": 1.5}, "dropout 1.5"),
    ],
)
def test_unusable_fields_are_named(fields, part):
    arguments = {"mask_prob": 0.3, "mask_length": 3, "min_masks": 2, "rng": np.random.default_rng(0)} | fields
    with pytest.raises(InputError, match=part):
        span_mask([10], 10, **arguments)
