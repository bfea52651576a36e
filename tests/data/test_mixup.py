"""Mixup: shares, partners and what becomes of padding."""

import numpy as np
import pytest
import tiny
import torch
from scipy import stats

from fairseq_neupronet.data.augmentation import Mixup
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.draws import uniforms


def mix(n_clips, n_mels=3, n_frames=5, alpha=0.4, seed=1):
    source = torch.from_numpy(np.random.default_rng(seed).normal(size=(n_clips, n_mels, n_frames)).astype(np.float32))
    uniform = uniforms(seed, 1, np.arange(n_clips), Mixup.DRAWS)
    return source, *Mixup(alpha)(source, uniform)


@pytest.mark.parametrize("n_clips", [2, 9])
def test_a_mixture_is_the_weighted_sum_of_a_clip_and_another(n_clips):
    source, mixed, partner, share = mix(n_clips)
    for clip, other in enumerate(partner.tolist()):
        assert other != clip
        expected = float(share[clip]) * source[clip].numpy() + (1 - float(share[clip])) * source[other].numpy()
        np.testing.assert_allclose(mixed[clip].numpy(), expected, rtol=1e-6, atol=1e-6)
    assert (share >= 0.5).all() and (share < 1).all()


def test_the_only_clip_of_a_batch_stays_as_it_is():
    source, mixed, partner, share = mix(1)
    assert partner.tolist() == [0] and share.tolist() == [1]
    torch.testing.assert_close(mixed, source, rtol=0, atol=0)


def test_every_other_clip_is_drawn_equally_often():
    counts = np.zeros((6, 6))
    source = torch.zeros(6, 1, 1)
    for epoch in range(1000):
        _, partner, _ = Mixup(1.0)(source, uniforms(3, epoch, np.arange(6), Mixup.DRAWS))
        counts[np.arange(6), partner.numpy()] += 1
    others = ~np.eye(6, dtype=bool)
    assert counts[others].sum() == 6000
    assert stats.chisquare(counts[others], np.full(30, 200.0)).pvalue > 1e-4


@pytest.mark.parametrize("alpha", [0.4, 1.0, 4.0])
def test_shares_are_the_greater_part_of_a_beta_draw(alpha):
    n_clips = 4000
    uniform = uniforms(5, 1, np.arange(n_clips), Mixup.DRAWS)
    _, _, share = Mixup(alpha)(torch.zeros(n_clips, 1, 1), uniform)

    def cumulative(value):
        return stats.beta.cdf(value, alpha, alpha) - stats.beta.cdf(1 - value, alpha, alpha)

    assert stats.kstest(share.numpy(), cumulative).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_alpha_is_refused(alpha):
    with pytest.raises(InputError, match="task.mixup"):
        Mixup(alpha)


def test_batches_of_training_are_mixed_and_those_of_evaluation_are_not(ten_clips):
    options = {"fixed_frames": 60, "mixup": Mixup(0.4)}
    training, plain = (tiny.dataset(ten_clips, training=True, **chosen) for chosen in (options, {"fixed_frames": 60}))
    batch, clips = tiny.collated(training, *range(10)), tiny.collated(plain, *range(10))["net_input"]["source"]
    partner, share = batch["mixed"]["partner"], batch["mixed"]["share"]
    assert (share < 1).any()
    for place in range(10):
        expected = share[place] * clips[place] + (1 - share[place]) * clips[partner[place]]
        torch.testing.assert_close(batch["net_input"]["source"][place], expected)
    again = tiny.collated(training, *range(10))
    torch.testing.assert_close(again["net_input"]["source"], batch["net_input"]["source"], rtol=0, atol=0)
    training.set_epoch(2)
    assert not torch.equal(tiny.collated(training, *range(10))["mixed"]["share"], share)
    for untrained in (training.for_evaluation(), tiny.dataset(ten_clips, training=False, **options)):
        assert "mixed" not in tiny.collated(untrained, 0, 1)


def test_whom_a_clip_is_mixed_with_says_nothing_of_its_share():
    """A share is symmetric about the middle of its draw; of one draw for both, a partner's place would tell it."""
    n_clips = 2000
    uniform = uniforms(7, 1, np.arange(n_clips), Mixup.DRAWS)
    _, partner, share = Mixup(1.0)(torch.zeros(n_clips, 1, 1), uniform)
    assert stats.spearmanr(np.abs(partner.numpy() - n_clips / 2), share.numpy()).pvalue > 1e-3
