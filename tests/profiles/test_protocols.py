"""Protocols: who is pooled with whom, in chunks of bounded size, whatever the order."""

from itertools import combinations

import numpy as np
import pytest
import tiny
import torch

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.networks.pooling import ProfilePooling
from fairseq_neupronet.profiles.enrolment import Enrolment, enrol, path_keys
from fairseq_neupronet.profiles.groups import Grouping, listed_chunks, partition_chunks
from fairseq_neupronet.profiles.protocols import Protocol, group_clips

PROFILE = np.array([7, -3, 7, 7, 2, -3])
BATCH = np.array([0, 0, 1, 0, 1, 1])
SAME_GROUP = {
    "single": lambda i, j: i == j,
    "batch": lambda i, j: PROFILE[i] == PROFILE[j] and BATCH[i] == BATCH[j],
    "batch-4": lambda i, j: PROFILE[i] == PROFILE[j] and BATCH[i] == BATCH[j],
    "full": lambda i, j: PROFILE[i] == PROFILE[j],
}


def names(n_clips):
    return [f"speaker/{number}.npy" for number in range(n_clips)]


def lists(enrolment):
    return [part.tolist() for part in np.split(enrolment.members, enrolment.offsets[1:-1])]


@pytest.mark.parametrize("protocol", SAME_GROUP)
def test_groups(protocol):
    codes = group_clips(Protocol.parse(protocol), PROFILE, batch=BATCH).codes
    assert codes.dtype == np.int64
    for i in range(6):
        for j in range(6):
            assert (codes[i] == codes[j]) == SAME_GROUP[protocol](i, j)


@pytest.mark.parametrize("name", ["single", "batch", "batch-128", "full", "enrol-1", "enrol-10"])
def test_a_protocol_reads_as_it_is_written(name):
    assert str(Protocol.parse(name)) == name


@pytest.mark.parametrize("name", ["whole", "enrol", "enrol-0", "enrol-03", "enrol--1", "batch-x", "full-3", "Full", ""])
def test_another_name_is_refused_with_those_that_are_known(name):
    with pytest.raises(InputError, match="single, batch, full, batch-N and enrol-N"):
        Protocol.parse(name)


@pytest.mark.parametrize("protocol", SAME_GROUP)
def test_no_clips(protocol):
    none = np.zeros(0, dtype=int)
    grouping = group_clips(Protocol.parse(protocol), none, batch=none)
    assert len(grouping) == 0 and list(grouping.chunks()) == []


# ---- enrolment -----------------------------------------------------------------------------------------------------


def test_a_clip_comes_first_and_others_are_distinct_clips_of_its_profile():
    profile = np.random.default_rng(0).integers(0, 9, 200)
    sizes = np.bincount(profile)
    for clip, (own, *others) in enumerate(lists(enrol(profile, path_keys(names(200)), 12, seed=1))):
        assert own == clip and clip not in others
        assert len(set(others)) == len(others) == min(12, sizes[profile[clip]] - 1)
        assert set(profile[others]) <= {profile[clip]}


def test_draws_are_nested_and_differ_by_seed():
    profile, keys = np.repeat([0, 1], 40), path_keys(names(80))
    many = lists(enrol(profile, keys, 10, seed=1))
    assert lists(enrol(profile, keys, 3, seed=1)) == [members[:4] for members in many]
    assert lists(enrol(profile, keys, 10, seed=2)) != many


def test_a_draw_depends_on_seed_and_path_and_not_on_the_order_of_the_manifest():
    rng = np.random.default_rng(3)
    profile, paths = rng.integers(0, 6, 90), names(90)
    straight = lists(enrol(profile, path_keys(paths), 4, seed=5))
    order = rng.permutation(90)
    mixed = lists(enrol(profile[order], path_keys([paths[clip] for clip in order]), 4, seed=5))
    for place, clip in enumerate(order):
        assert [order[other] for other in mixed[place]] == straight[clip]


def test_clips_of_other_profiles_sway_nothing():
    profile, paths = np.repeat([0, 1, 2], 20), names(60)
    everyone = lists(enrol(profile, path_keys(paths), 4, seed=5))
    assert lists(enrol(profile[:40], path_keys(paths[:40]), 4, seed=5)) == everyone[:40]


def test_every_pair_of_others_is_drawn_equally_often():
    """2 of 5 others: 10 pairs; χ² with 9 degrees of freedom is above 27.9 once in 1,000 times."""
    counts = dict.fromkeys(combinations(range(1, 6), 2), 0)
    for seed in range(4000):
        drawn = lists(enrol(np.zeros(6, int), path_keys(names(6)), 2, seed))[0][1:]
        counts[tuple(sorted(drawn))] += 1
    expected = 4000 / len(counts)
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 27.9


def test_a_clip_never_meets_its_own_recording():
    rng = np.random.default_rng(4)
    profile, recording = rng.integers(0, 5, 120), rng.integers(0, 8, 120)
    found = lists(enrol(profile, path_keys(names(120)), 200, seed=1, recording=recording))
    for clip, (_, *others) in enumerate(found):
        wanted = np.flatnonzero((profile == profile[clip]) & (recording != recording[clip]))
        assert sorted(others) == wanted.tolist()


def test_clips_short_of_n_are_counted():
    profile = np.repeat([0, 1, 2, 3], [1, 3, 4, 9])
    grouping = group_clips(Protocol.parse("enrol-3"), profile, keys=path_keys(names(17)), seed=1)
    assert grouping.n_short == 1 + 3
    assert [len(members) for members in lists(grouping.enrolment)] == [1] + [3] * 3 + [4] * 13


def test_profiles_of_1_to_5000_clips_are_enrolled_within_their_profile():
    sizes = [5000, 1, 3000, 17, *[2] * 500]
    profile = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))
    offsets, members = enrol(profile, np.arange(len(profile), dtype=np.uint64), 3, seed=1)
    owner = np.repeat(np.arange(len(profile)), np.diff(offsets))
    assert (profile[members] == profile[owner]).all()
    assert np.array_equal(np.diff(offsets), np.minimum(np.array(sizes)[profile], 4))


# ---- chunks --------------------------------------------------------------------------------------------------------


def met(chunks, n_clips):
    meets = np.zeros((n_clips, n_clips), dtype=int)
    for rows, columns, mask in chunks:
        assert mask.shape == (len(rows), len(columns))
        meets[np.ix_(rows, columns)] += mask
    return meets


@pytest.mark.parametrize("rows_per_chunk", [1, 7, 64, 10_000])
def test_every_clip_is_a_row_once_and_meets_its_whole_group(rows_per_chunk):
    codes = np.random.default_rng(0).integers(0, 40, 500)
    meets = met(partition_chunks(codes, rows_per_chunk), 500)
    np.testing.assert_array_equal(meets, codes[:, None] == codes[None, :])


@pytest.mark.parametrize("cells_per_chunk", [1, 100, 10**9])
def test_every_clip_is_a_row_once_and_meets_its_own_list(cells_per_chunk):
    profile = np.random.default_rng(0).integers(0, 9, 100)
    enrolment = enrol(profile, path_keys(names(100)), 4, seed=1)
    expected = np.zeros((100, 100), dtype=int)
    for clip, members in enumerate(lists(enrolment)):
        expected[clip, members] = 1
    np.testing.assert_array_equal(met(listed_chunks(enrolment, cells_per_chunk), 100), expected)


def test_memory_is_bounded_for_groups_of_1_to_5000_clips():
    rng = np.random.default_rng(1)
    sizes = [5000, 1, 1, 3000, 17, *[1] * 2000, 4000]
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    n_rows = 0
    for rows, columns, _ in partition_chunks(codes, 256):
        assert len(columns) <= 256 + 2 * 5000
        n_rows += len(rows)
    assert n_rows == len(codes)


def test_where_clips_are_missing_the_others_keep_their_groups():
    profile = np.random.default_rng(2).integers(0, 6, 60)
    there = np.sort(np.random.default_rng(3).permutation(60)[:25])
    enrolment = enrol(profile, path_keys(names(60)), 5, seed=1)
    some = Grouping.listed(enrolment, 5).among(there)
    for place, members in enumerate(lists(some.enrolment)):
        wanted = [member for member in lists(enrolment)[there[place]] if member in there]
        assert [there[member] for member in members] == wanted
    codes = Grouping.partition(profile).among(there).codes
    assert np.array_equal(codes[:, None] == codes, profile[there][:, None] == profile[there])


def test_of_pairs_a_clip_is_there_if_it_is_there_in_its_own_group():
    pairs = Grouping.listed(Enrolment(np.array([0, 2, 4, 6]), np.array([0, 1, 1, 2, 2, 0])), 1).paired()
    some = pairs.among(np.array([0, 3, 4, 5]))  # clip 1 in its own group, item 2, is missing
    assert len(pairs) == 3 and pairs.n_items == 6 and pairs.own().tolist() == [0, 2, 4]
    assert some.own().tolist() == [0, 2] and lists(some.enrolment) == [[0], [2, 3]]


def test_alone_a_clip_is_a_group_of_its_own_item():
    pairs = Grouping.listed(Enrolment(np.array([0, 2, 4, 6]), np.array([0, 1, 1, 2, 2, 0])), 1).paired()
    for grouping, items in ((pairs, [0, 2, 4]), (Grouping.partition(np.array([5, 5, 3])), [0, 1, 2])):
        alone = grouping.alone()
        assert alone.own().tolist() == items and lists(alone.enrolment) == [[item] for item in items]


def test_pooling_does_not_depend_on_order_or_chunk_size():
    generator = torch.Generator().manual_seed(0)
    clip, profile = (torch.randn(90, 6, generator=generator) for _ in range(2))
    codes = np.random.default_rng(2).integers(0, 12, 90)
    pooling = ProfilePooling("dot")

    def pool(order, rows_per_chunk):
        pooled = torch.zeros(90, 6)
        for rows, columns, mask in partition_chunks(codes[order], rows_per_chunk):
            _, part = pooling(clip[order[rows]], profile[order[columns]], torch.from_numpy(mask))
            pooled[order[rows]] = part
        return pooled

    expected = torch.stack(
        [torch.softmax(profile[codes == codes[i]] @ clip[i], 0) @ profile[codes == codes[i]] for i in range(90)]
    )
    for seed, rows_per_chunk in enumerate((1, 8, 90)):
        torch.testing.assert_close(pool(np.random.default_rng(seed).permutation(90), rows_per_chunk), expected)


def test_clips_that_are_left_out_are_not_enrolled_and_shift_no_path_or_recording(own_corpus):
    rows = [line.split("\t") for line in (own_corpus / "test.tsv").read_text().splitlines()[1:]]
    recording = ["" if number % 5 == 0 else f"r{number % 4}" for number in range(len(rows))]
    (own_corpus / "test.recording").write_text("".join(f"{name}\n" for name in recording))
    task = tiny.build_task(own_corpus, profiling=True, protocol="enrol-3", protocol_seed=5, min_sample_size=35)
    task.load_dataset("test")
    kept = [number for number, row in enumerate(rows) if int(row[2]) >= 35]
    assert len(kept) < len(rows)
    own = [recording[number] or f"its own, {number}" for number in kept]
    codes, profile = (np.unique(values, return_inverse=True)[1] for values in (own, [rows[n][3] for n in kept]))
    expected = enrol(profile, path_keys(rows[number][0] for number in kept), 3, 5, codes)
    found = task.dataset("test").grouping.enrolment
    assert found.members.tolist() == expected.members.tolist()
    assert found.offsets.tolist() == expected.offsets.tolist()
