"""Draws that a (seed, epoch, row) fixes: reference numbers, uniformity, independence of neighbours."""

import numpy as np
import pytest
from scipy import stats

from fairseq_neupronet.profiles.draws import below, mix, uniforms

GOLDEN = 0x9E3779B97F4A7C15


def test_mix_is_the_published_finaliser():
    """The first outputs of SplitMix64 seeded with 1234567, as the generator's reference implementation prints them."""
    counters = np.array([(1234567 + step * GOLDEN) % 2**64 for step in range(1, 6)], np.uint64)
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert mix(counters).tolist() == expected


def test_a_draw_depends_on_seed_epoch_and_row_only():
    rows = np.array([5, 0, 999_999, 7])
    together = uniforms(3, 2, rows, 6)
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(uniforms(3, 2, np.array([row]), 6)[0], together[place])
    np.testing.assert_array_equal(uniforms(3, 2, rows, 2), together[:, :2])
    others = [uniforms(3, 3, rows, 6), uniforms(4, 2, rows, 6), uniforms(2, 3, rows, 6), uniforms(-3, 2, rows, 6)]
    for other in others:
        assert not np.isin(other, together).any()


@pytest.mark.parametrize("draw", range(6))
def test_draws_are_uniform_over_rows_and_over_epochs(draw):
    over_rows = uniforms(1, 1, np.arange(200_000), 6)[:, draw]
    over_epochs = np.concatenate([uniforms(1, epoch, np.arange(20), 6)[:, draw] for epoch in range(10_000)])
    for draws in (over_rows, over_epochs):
        assert draws.min() >= 0 and draws.max() < 1
        for bins in (10, 97):
            counts = np.bincount(below(draws, bins), minlength=bins)
            assert len(counts) == bins
            assert stats.chisquare(counts).pvalue > 1e-4


def correlation(one, other):
    return abs(np.corrcoef(one, other)[0, 1]) * np.sqrt(len(one))


def test_neighbours_are_independent():
    """Rows, epochs, seeds and the draws of one row; 4.5 standard deviations."""
    draws = uniforms(1, 1, np.arange(100_000), 6)
    for lag in (1, 2, 7, 128):
        for draw in range(6):
            assert correlation(draws[:-lag, draw], draws[lag:, draw]) < 4.5
    for one in range(6):
        for other in range(one):
            assert correlation(draws[:, one], draws[:, other]) < 4.5
    for neighbour in (uniforms(1, 2, np.arange(100_000), 6), uniforms(2, 1, np.arange(100_000), 6)):
        for draw in range(6):
            assert correlation(draws[:, draw], neighbour[:, draw]) < 4.5


def test_pairs_of_neighbouring_rows_fill_the_square():
    draws = uniforms(1, 1, np.arange(200_000), 2)
    for pairs in (draws, np.stack([draws[:-1, 0], draws[1:, 0]], axis=1)):
        cells = below(pairs[:, 0], 16) * 16 + below(pairs[:, 1], 16)
        assert stats.chisquare(np.bincount(cells, minlength=256)).pvalue > 1e-4


def test_below_reaches_both_ends_and_takes_a_limit_each():
    uniform = np.array([0.0, 0.4999, 0.5, 1 - 2.0**-53])
    assert below(uniform, 1).tolist() == [0, 0, 0, 0]
    assert below(uniform, 2).tolist() == [0, 0, 1, 1]
    assert below(uniform, np.array([5, 10, 10, 1025])).tolist() == [0, 4, 5, 1024]
