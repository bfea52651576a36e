"""Batches of P profiles with up to C clips each."""

import numpy as np
import pytest
import tiny

from fairseq_neupronet.data.manifest import read_manifest
from fairseq_neupronet.profiles.batches import profile_batches


def draw(profiles, clips_per_profile, profiles_per_batch, seed=0):
    most, rng = clips_per_profile * profiles_per_batch, np.random.default_rng(seed)
    return profile_batches(np.asarray(profiles), clips_per_profile, most, rng)


def many_profiles(seed, n_profiles=40, n_clips=300):
    return np.random.default_rng(seed).zipf(1.6, size=n_clips) % n_profiles * 7 + 3  # codes with gaps


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("clips_per_profile", "profiles_per_batch"), [(1, 8), (4, 8), (8, 4), (3, 1), (50, 2)])
def test_each_clip_once_and_never_more_than_the_batch_holds(seed, clips_per_profile, profiles_per_batch):
    batches = draw(many_profiles(seed), clips_per_profile, profiles_per_batch, seed)
    assert sorted(np.concatenate(batches).tolist()) == list(range(300))
    assert all(0 < len(batch) <= clips_per_profile * profiles_per_batch for batch in batches)


@pytest.mark.parametrize("seed", range(5))
def test_at_most_c_clips_of_a_profile_in_a_batch_when_there_are_enough_batches(seed):
    profiles = np.random.default_rng(seed).integers(30, size=400)  # at most ~25 clips each: 7 chunks; 13 batches
    batches = draw(profiles, 4, 8, seed)
    assert max(np.unique(profiles[batch], return_counts=True)[1].max() for batch in batches) <= 4


def test_groups_exist_where_random_batches_have_none():
    """VocalSound by speaker at 128 in random order: 1.04 clips of one's profile, the method is idle."""
    profiles = np.repeat(np.arange(400), 6)

    def mean_group(batches):
        sizes = [np.unique(profiles[batch], return_counts=True)[1] for batch in batches]
        return sum((size**2).sum() for size in sizes) / len(profiles)

    shuffled = np.random.default_rng(0).permutation(len(profiles))
    assert mean_group(np.split(shuffled, range(128, len(profiles), 128))) < 1.6
    assert mean_group(draw(profiles, 6, 20)) == 6


def test_chunks_of_a_profile_are_as_equal_as_possible():
    batches = draw([5] * 10 + [6] * 10, 4, 1)
    assert sorted(len(batch) for batch in batches) == [3, 3, 3, 3, 4, 4]


def test_singletons_fill_batches_too():
    batches = draw(np.arange(25), 4, 8)
    assert sorted(np.concatenate(batches).tolist()) == list(range(25))
    assert len(batches) == 4
    assert max(len(batch) for batch in batches) <= 8


def test_one_dominant_profile_is_spread_evenly():
    profiles = np.array([0] * 200 + list(range(1, 11)))
    batches = draw(profiles, 4, 5)
    assert sorted(np.concatenate(batches).tolist()) == list(range(210))
    counts = [int((profiles[batch] == 0).sum()) for batch in batches]
    assert max(counts) <= 20
    assert max(counts) - min(counts) <= 8


def test_a_single_profile_is_batched():
    batches = draw([3] * 9, 4, 2)
    assert sorted(np.concatenate(batches).tolist()) == list(range(9))
    assert max(len(batch) for batch in batches) <= 8


def test_a_single_clip_is_a_batch():
    assert [batch.tolist() for batch in draw([3], 4, 2)] == [[0]]


def as_sets(batches):
    return {frozenset(batch.tolist()) for batch in batches}


def test_the_seed_repeats_batches_and_another_draws_others():
    profiles = many_profiles(0)
    first = draw(profiles, 4, 8, seed=(1, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, draw(profiles, 4, 8, seed=(1, 1)), strict=True))
    assert len(as_sets(first) & as_sets(draw(profiles, 4, 8, seed=(1, 2)))) < len(first) / 2


def batch_ids(task, epoch):
    return [batch["id"].tolist() for batch in tiny.batches(task, "train", batch_size=8, epoch=epoch)]


def test_epochs_are_reshuffled_and_repeat_by_seed_through_fairseqs_iterator(corpus):
    options = {"profiling": True, "profile_batches": True, "clips_per_profile": 4}
    task, twin = tiny.build_task(corpus, **options), tiny.build_task(corpus, **options)
    first, second = batch_ids(task, 1), batch_ids(task, 2)
    for batches in (first, second):
        assert sorted(number for batch in batches for number in batch) == list(range(tiny.CLIPS["train"]))
        assert all(len(batch) <= 8 for batch in batches)
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}
    assert batch_ids(twin, 2) == second


def test_evaluation_is_batched_by_length(corpus):
    task = tiny.build_task(corpus, profiling=True, profile_batches=True)
    lengths = [int((~batch["net_input"]["padding_mask"]).sum(1).max()) for batch in tiny.batches(task, "test")]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("options", [{}, {"clips_per_profile": 10}], ids=["ties", "profiles"])
def test_another_seed_is_another_order_and_other_batches(tmp_path, options):
    """Clips of one length, so that only the draw orders them."""
    clips = [(f"{number}.npy", 30, f"p{number // 20}") for number in range(80)]
    tiny.write_split(tmp_path, "train", clips, ["cough"] * 80)
    manifest = read_manifest(tmp_path / "train.tsv")

    def batches(seed, indices=None) -> set[frozenset]:
        data = tiny.dataset(manifest, training=True, seed=seed, **options)
        indices = data.ordered_indices() if indices is None else indices
        return {frozenset(batch.tolist()) for batch in data.batch_by_size(indices, max_sentences=20)}

    assert batches(1) == batches(1) and not batches(1) & batches(2)
    if options:  # whatever the order that they are given in
        assert not batches(1, np.arange(80)) & batches(2, np.arange(80))
