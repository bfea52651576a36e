"""Order and batches of a split: every clip once, in batches as large as asked for."""

import numpy as np
import pytest
import tiny
from tiny import collated, dataset

from fairseq_neupronet.data.manifest import read_manifest
from fairseq_neupronet.errors import InputError


def test_the_longest_clip_comes_first_and_ties_keep_the_manifests_order_in_evaluation(ten_clips):
    assert dataset(ten_clips).ordered_indices().tolist() == [4, 5, 8, 1, 9, 2, 6, 0, 3, 7]


def test_ties_are_reshuffled_each_epoch_in_training_and_repeat_by_seed(tmp_path):
    folder = tmp_path / "same"
    folder.mkdir()
    tiny.write_split(folder, "train", [(f"{n}.npy", 30, "p") for n in range(40)], ["cough"] * 40)
    manifest = read_manifest(folder / "train.tsv")
    data, twin = dataset(manifest, training=True), dataset(manifest, training=True)
    first = data.ordered_indices().tolist()
    assert first == twin.ordered_indices().tolist()
    assert first != list(range(40))
    data.set_epoch(2)
    assert data.ordered_indices().tolist() != first
    assert sorted(data.ordered_indices().tolist()) == list(range(40))


@pytest.mark.parametrize("epoch", [1, 2])
def test_profile_batches_hold_clips_from_all_over_the_profile_where_all_are_of_one_length(tmp_path, epoch):
    rows = [(f"{n}.npy", 30, f"p{n // 100}") for n in range(400)]
    tiny.write_split(tmp_path, "train", rows, ["cough"] * 400)
    data = dataset(read_manifest(tmp_path / "train.tsv"), training=True, clips_per_profile=10)
    data.set_epoch(epoch)
    batches = data.batch_by_size(data.ordered_indices(), max_sentences=40)
    chunks = [batch[batch // 100 == profile] for batch in batches for profile in range(4)]
    assert [len(chunk) for chunk in chunks] == [10] * 40
    # Ten places of a hundred, drawn at random, lie 82 apart on average; neighbours in the manifest 9.
    assert 70 < np.mean([np.ptp(chunk) for chunk in chunks]) < 90


def test_ten_clips_in_batches_of_eight_are_all_seen(ten_clips):
    """fairseq's own batching loses clips, see the next test."""
    data = dataset(ten_clips)
    batches = data.batch_by_size(data.ordered_indices(), max_sentences=8, required_batch_size_multiple=8)
    assert [len(batch) for batch in batches] == [8, 2]
    assert sorted(np.concatenate(batches).tolist()) == list(range(10))


def test_fairseq_batching_loses_clips_of_the_last_batch():
    """The defect that our own batching is there for; when fairseq mends it, ours can go."""
    from fairseq.data import data_utils

    lengths = np.full(3580, 98, dtype=np.int64)
    order = np.arange(3580, dtype=np.int64)
    batches = data_utils.batch_by_size(
        order, lambda index: 98, num_tokens_vec=lengths, max_sentences=128, required_batch_size_multiple=8
    )
    assert sum(len(batch) for batch in batches) < 3580


@pytest.mark.parametrize("n_clips", [1, 7, 8, 9, 22, 36])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 64, 100])
def test_batches_hold_exactly_the_batch_size_but_for_the_last(tmp_path, n_clips, batch_size):
    tiny.write_split(tmp_path, "train", [(f"{n}.npy", 20 + n, "p") for n in range(n_clips)], ["cough"] * n_clips)
    data = dataset(read_manifest(tmp_path / "train.tsv"))
    batches = data.batch_by_size(data.ordered_indices(), max_sentences=batch_size, required_batch_size_multiple=8)
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 1 <= len(batches[-1]) <= batch_size
    assert sorted(np.concatenate(batches).tolist()) == list(range(n_clips))


@pytest.mark.parametrize("fixed_frames", [None, 60])
def test_max_tokens_bounds_the_padded_frames_of_a_batch(ten_clips, fixed_frames):
    data = dataset(ten_clips, fixed_frames=fixed_frames)
    batches = data.batch_by_size(data.ordered_indices(), max_tokens=130, max_sentences=3)
    assert sorted(np.concatenate(batches).tolist()) == list(range(10))
    for number, batch in enumerate(batches):
        padded = collated(data, *batch)["net_input"]["source"]
        assert padded.shape[0] * padded.shape[2] <= 130
        if number + 1 < len(batches):  # and no batch could have been larger
            following = data.sizes[batches[number + 1][0]]
            longest = fixed_frames or max(padded.shape[2], following)
            assert len(batch) == 3 or (len(batch) + 1) * longest > 130


def test_a_clip_above_max_tokens_is_a_batch_of_its_own(ten_clips):
    data = dataset(ten_clips)
    batches = data.batch_by_size(data.ordered_indices(), max_tokens=50)
    assert sorted(np.concatenate(batches).tolist()) == list(range(10))


def test_every_clip_reaches_training_and_evaluation_through_fairseqs_iterator(corpus):
    task = tiny.build_task(corpus)
    for split in ("train", "test"):
        batches = tiny.batches(task, split, batch_size=8)
        seen = [int(number) for batch in batches for number in batch["id"]]
        assert sorted(seen) == list(range(tiny.CLIPS[split]))


def test_profile_batches_without_profiles_are_refused(tmp_path):
    (tmp_path / "train.tsv").write_text("features\na.npy\t8\t20\n")
    with pytest.raises(InputError, match=r"train\.tsv: task\.profile_batches needs the profile column"):
        dataset(read_manifest(tmp_path / "train.tsv"), training=True, clips_per_profile=4)


def test_profile_batches_need_a_batch_size_that_holds_them(ten_clips):
    data = dataset(ten_clips, training=True, clips_per_profile=9)
    with pytest.raises(
        InputError, match=r"clips_per_profile=9: so many clips of a profile do not fit dataset\.batch_size=8"
    ):
        data.batch_by_size(data.ordered_indices(), max_sentences=8)
    with pytest.raises(InputError, match=r"needs dataset\.batch_size"):
        data.batch_by_size(data.ordered_indices(), max_tokens=800)
