"""Negatives on 200 random batches: never the own profile, uniform over the others, never padding.

Named after what the official sampler did: a batch of one profile gave negatives of that profile only; anchors got
negatives from one side of their profile; own-clip and cross-clip negatives fell to different anchors.
"""

import pytest
import torch

from fairseq_neupronet.backbones.wav2vec2.contrast import sample_negatives

N_CLIPS, N_STEPS, N_WITHIN, N_ACROSS = 10, 14, 6, 12


def random_batch(generator: torch.Generator):
    lengths = torch.randint(1, N_STEPS + 1, (N_CLIPS,), generator=generator)
    candidate = torch.arange(N_STEPS)[None, :] < lengths[:, None]
    # Codes are neither dense nor sorted, and half of the batches are mostly one profile.
    n_profiles = int(torch.randint(2, 8, (1,), generator=generator))
    group = torch.randint(n_profiles, (N_CLIPS,), generator=generator) * 17 - 20
    anchor = candidate & (torch.rand(candidate.shape, generator=generator) < 0.4)
    return lengths, candidate, group, *anchor.nonzero(as_tuple=True)


@pytest.fixture(scope="module")
def batches():
    """200 batches with their draws: (lengths, candidate, group, anchor_clip, anchor_step, negatives)."""
    generator = torch.Generator().manual_seed(5)
    drawn = []
    for _ in range(200):
        lengths, candidate, group, clip, step = random_batch(generator)
        negatives = sample_negatives(clip, step, candidate, group, N_WITHIN, N_ACROSS, generator)
        drawn.append((lengths, candidate, group, clip, step, negatives))
    return drawn


def test_across_draws_are_of_other_profiles_and_unpadded(batches):
    n_drawn = 0
    for _, candidate, group, clip, _, negatives in batches:
        across, valid = negatives.index[:, N_WITHIN:], negatives.valid[:, N_WITHIN:]
        own = group[across // N_STEPS] == group[clip][:, None]
        assert int((own & valid).sum()) == 0
        assert candidate.flatten()[negatives.index[negatives.valid]].all()
        has_other = (group[clip][:, None] != group[None, :]).any(1)
        assert (valid == has_other[:, None]).all()
        assert int(negatives.n_without_across) == int((~has_other).sum())
        n_drawn += int(valid.sum())
    assert n_drawn > 50_000


def test_within_draws_are_other_steps_of_the_own_clip(batches):
    for lengths, _, _, clip, step, negatives in batches:
        within, valid = negatives.index[:, :N_WITHIN], negatives.valid[:, :N_WITHIN]
        assert (valid == (lengths[clip] > 1)[:, None]).all()
        assert ((within // N_STEPS == clip[:, None]) | ~valid).all()
        assert ((within % N_STEPS != step[:, None]) | ~valid).all()


def test_across_draws_are_uniform_over_eligible_clips(batches):
    observed, expected, variance = (torch.zeros(N_CLIPS, dtype=torch.float64) for _ in range(3))
    z_scores = []
    for lengths, _, group, clip, _, negatives in batches:
        drawn = negatives.index[:, N_WITHIN:] // N_STEPS
        for code in group.unique():
            rows = group[clip] == code
            eligible = group != code
            n = int(rows.sum()) * N_ACROSS
            if n == 0 or not eligible.any():
                continue
            share = torch.where(eligible, lengths, 0).double() / lengths[eligible].sum()
            count = torch.bincount(drawn[rows].flatten(), minlength=N_CLIPS).double()
            spread = n * share * (1 - share)
            assert (count[~eligible] == 0).all()
            observed, expected, variance = observed + count, expected + n * share, variance + spread
            z_scores.append(((count - n * share) / spread.sqrt())[spread > 0])
    assert ((observed - expected).abs() <= 3 * variance.sqrt()).all()
    z = torch.cat(z_scores)
    assert len(z) > 2000
    # Each clip of each batch: as often beyond 3 standard errors as chance has it (.27 %), and no wider than chance.
    assert (z.abs() > 3).double().mean() < 0.01
    assert 0.95 < z.std() < 1.05


def test_steps_are_drawn_uniformly():
    generator = torch.Generator().manual_seed(1)
    candidate = torch.tensor([[1, 1, 0, 1, 1, 0], [1, 1, 1, 0, 0, 0], [0, 1, 0, 0, 0, 1]], dtype=torch.bool)
    clip, step = torch.tensor([0, 1]), torch.tensor([3, 0])
    n = 60_000
    negatives = sample_negatives(clip, step, candidate, torch.tensor([3, 1, 3]), n, n, generator)
    for anchor, within, across in ((0, [0, 1, 4], [6, 7, 8]), (1, [7, 8], [0, 1, 3, 4, 13, 17])):
        for part, allowed in ((slice(0, n), within), (slice(n, 2 * n), across)):
            values, counts = negatives.index[anchor, part].unique(return_counts=True)
            assert values.tolist() == allowed
            share = 1 / len(allowed)
            assert ((counts / n - share).abs() <= 3 * (share * (1 - share) / n) ** 0.5).all()


def test_one_sided_negatives():
    """Each anchor of a middle profile gets negatives from before and from after it."""
    group = torch.arange(5).repeat_interleave(2)
    candidate = torch.ones(N_CLIPS, N_STEPS, dtype=torch.bool)
    clip, step = candidate.nonzero(as_tuple=True)
    generator = torch.Generator().manual_seed(0)
    index = sample_negatives(clip, step, candidate, group, 5, 80, generator).index
    drawn = group[index[:, 5:] // N_STEPS]
    middle = group[clip] == 2
    assert ((drawn < 2).any(1) & (drawn > 2).any(1))[middle].all()


def test_within_and_across_mixed():
    """Every anchor gets its share of both kinds, not some anchors one kind and the rest the other."""
    candidate = torch.ones(N_CLIPS, N_STEPS, dtype=torch.bool)
    clip, step = candidate.nonzero(as_tuple=True)
    own = sample_negatives(clip, step, candidate, torch.arange(N_CLIPS), 50, 50).index // N_STEPS == clip[:, None]
    assert (own.sum(1) == 50).all()
    assert own[:, :50].all()


def test_batch_of_one_profile():
    candidate = torch.ones(4, 6, dtype=torch.bool)
    clip, step = candidate.nonzero(as_tuple=True)
    negatives = sample_negatives(clip, step, candidate, torch.full((4,), 9), 3, 7)
    assert negatives.valid[:, :3].all() and not negatives.valid[:, 3:].any()
    assert int(negatives.n_without_across) == 24
    assert int(sample_negatives(clip, step, candidate, torch.full((4,), 9), 3, 0).n_without_across) == 0


@pytest.mark.parametrize("n_clips", [0, 1, 3])
def test_no_anchors(n_clips):
    none = torch.zeros(0, dtype=torch.int64)
    candidate = torch.ones(n_clips, 6, dtype=torch.bool)
    negatives = sample_negatives(none, none, candidate, torch.arange(n_clips), 3, 7)
    assert negatives.index.shape == negatives.valid.shape == (0, 10)
    assert int(negatives.n_without_across) == 0


def test_an_anchor_that_is_no_candidate_draws_from_all_candidates():
    candidate = torch.tensor([[1, 1, 0], [1, 0, 0]], dtype=torch.bool)
    one = torch.tensor([0])
    index = sample_negatives(one, torch.tensor([2]), candidate, torch.arange(2), 200, 0).index
    assert index.unique().tolist() == [0, 1]


def test_same_generator_same_draws():
    candidate = torch.ones(4, 6, dtype=torch.bool)
    clip, step = candidate.nonzero(as_tuple=True)
    first, second, third = (
        sample_negatives(clip, step, candidate, torch.arange(4), 3, 7, torch.Generator().manual_seed(seed)).index
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second) and not torch.equal(first, third)
