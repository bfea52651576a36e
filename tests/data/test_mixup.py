"""Mixup: shares, partners and what becomes of padding."""

import numpy as np
import pytest
import tiny
import torch
from scipy import stats

from fairseq_neupronet.data.mixup import Mixup
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.draws import uniforms


def mix(partners, profile, n_mels=3, n_frames=5, alpha=0.4, seed=1):
    n_clips = len(profile)
    source = torch.from_numpy(np.random.default_rng(seed).normal(size=(n_clips, n_mels, n_frames)).astype(np.float32))
    uniform = uniforms(seed, 1, np.arange(n_clips), Mixup.DRAWS)
    return source, *Mixup(alpha, partners)(source, np.array(profile), uniform)


@pytest.mark.parametrize("partners", ["any", "same_profile", "other_profile"])
def test_a_mixture_is_the_weighted_sum_of_a_clip_and_an_allowed_partner(partners):
    profile = [0, 0, 0, 1, 1, 2, 2, 2, 2]
    source, mixed, partner, share = mix(partners, profile)
    for clip, other in enumerate(partner.tolist()):
        assert other != clip
        if partners != "any":
            assert (profile[clip] == profile[other]) == (partners == "same_profile")
        expected = float(share[clip]) * source[clip].numpy() + (1 - float(share[clip])) * source[other].numpy()
        np.testing.assert_allclose(mixed[clip].numpy(), expected, rtol=1e-6, atol=1e-6)
    assert (share >= 0.5).all() and (share < 1).all()


@pytest.mark.parametrize(
    ("partners", "profile", "alone"),
    [
        ("same_profile", [0, 1, 1, 2], [0, 3]),
        ("other_profile", [4, 4, 4], [0, 1, 2]),
        ("any", [7], [0]),
    ],
)
def test_a_clip_without_a_partner_stays_as_it_is(partners, profile, alone):
    source, mixed, partner, share = mix(partners, profile)
    for clip in alone:
        assert partner[clip] == clip and share[clip] == 1
        torch.testing.assert_close(mixed[clip], source[clip], rtol=0, atol=0)
    assert int((share < 1).sum()) == len(profile) - len(alone)


def test_every_allowed_partner_is_drawn_equally_often():
    profile = np.repeat(np.arange(3), 4)
    counts = np.zeros((12, 12))
    source = torch.zeros(12, 1, 1)
    for epoch in range(600):
        _, partner, _ = Mixup(1.0, "same_profile")(source, profile, uniforms(3, epoch, np.arange(12), Mixup.DRAWS))
        counts[np.arange(12), partner.numpy()] += 1
    allowed = (profile[:, None] == profile) & ~np.eye(12, dtype=bool)
    assert stats.chisquare(counts[allowed], np.full(36, 200.0)).pvalue > 1e-4


@pytest.mark.parametrize("alpha", [0.4, 1.0, 4.0])
def test_shares_are_the_greater_part_of_a_beta_draw(alpha):
    n_clips = 4000
    uniform = uniforms(5, 1, np.arange(n_clips), Mixup.DRAWS)
    _, _, share = Mixup(alpha, "any")(torch.zeros(n_clips, 1, 1), None, uniform)

    def cumulative(value):
        return stats.beta.cdf(value, alpha, alpha) - stats.beta.cdf(1 - value, alpha, alpha)

    assert stats.kstest(share.numpy(), cumulative).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_alpha_is_refused(alpha):
    with pytest.raises(InputError, match="task.mixup"):
        Mixup(alpha)


def test_batches_of_training_are_mixed_and_those_of_evaluation_are_not(ten_clips):
    options = {"fixed_frames": 60, "mixup": Mixup(0.4, "same_profile")}
    training, plain = (tiny.dataset(ten_clips, training=True, **chosen) for chosen in (options, {"fixed_frames": 60}))
    batch, clips = tiny.collated(training, *range(10)), tiny.collated(plain, *range(10))["net_input"]["source"]
    partner, share = batch["mixed"]["partner"], batch["mixed"]["share"]
    assert (share < 1).any()
    for place in range(10):
        expected = share[place] * clips[place] + (1 - share[place]) * clips[partner[place]]
        torch.testing.assert_close(batch["net_input"]["source"][place], expected)
        assert ten_clips.profiles[partner[place]] == ten_clips.profiles[place]
    again = tiny.collated(training, *range(10))
    torch.testing.assert_close(again["net_input"]["source"], batch["net_input"]["source"], rtol=0, atol=0)
    training.set_epoch(2)
    assert not torch.equal(tiny.collated(training, *range(10))["mixed"]["share"], share)
    for untrained in (training.for_evaluation(), tiny.dataset(ten_clips, training=False, **options)):
        assert "mixed" not in tiny.collated(untrained, 0, 1) and untrained.repeats
    assert not training.repeats


def test_whom_a_clip_is_mixed_with_says_nothing_of_its_share():
    """A share is symmetric about the middle of its draw; of one draw for both, a partner's place would tell it."""
    n_clips = 2000
    uniform = uniforms(7, 1, np.arange(n_clips), Mixup.DRAWS)
    _, partner, share = Mixup(1.0, "any")(torch.zeros(n_clips, 1, 1), None, uniform)
    assert stats.spearmanr(np.abs(partner.numpy() - n_clips / 2), share.numpy()).pvalue > 1e-3
