"""The fairseq dataset: what a batch holds, which clips are in it, and what an epoch draws."""

import gc
import pickle
import time

import numpy as np
import pytest
import tiny
import torch
from tiny import LENGTHS, collated, dataset

from fairseq_neupronet.data.augmentation import SpecAugment
from fairseq_neupronet.data.clip_files import ClipFiles
from fairseq_neupronet.data.dataset import DatasetOptions, SpectrogramDataset
from fairseq_neupronet.errors import InputError


def spectrograms(batch):
    return {int(number): clip for number, clip in zip(batch["id"], batch["net_input"]["source"], strict=True)}


def clip_of(batch, place):
    """Which of the ten clips stands in a place of the batch."""
    return int(batch["net_input"]["source"][place, 0, 0]) - 1


# ---- padding and masks ---------------------------------------------------------------------------------------------


def test_batch_padding_goes_to_the_longest_clip_of_the_batch(ten_clips):
    batch = collated(dataset(ten_clips), 0, 1)
    assert batch["net_input"]["source"].shape == (2, 8, 41)
    assert batch["net_input"]["source"].dtype == torch.float32


def test_fixed_padding_goes_to_the_same_length_in_every_batch(ten_clips):
    data = dataset(ten_clips, fixed_frames=60)
    assert collated(data, 0)["net_input"]["source"].shape == (1, 8, 60)
    assert collated(data, 1, 2, 4)["net_input"]["source"].shape == (3, 8, 60)


def test_padding_is_zero_at_the_right_and_marked_true(ten_clips):
    batch = collated(dataset(ten_clips, fixed_frames=60), 0, 4, 2)
    source, mask = batch["net_input"]["source"], batch["net_input"]["padding_mask"]
    assert mask.dtype == torch.bool
    for place, frames in enumerate((20, 60, 33)):
        assert mask[place].tolist() == [False] * frames + [True] * (60 - frames)
        assert (source[place, :, :frames] != 0).all()
        assert (source[place, :, frames:] == 0).all()


def test_longer_clips_are_cut_to_the_fixed_length(ten_clips):
    batch = collated(dataset(ten_clips, fixed_frames=40), 4, 0)
    assert batch["net_input"]["source"].shape == (2, 8, 40)
    assert not batch["net_input"]["padding_mask"][0].any()


def test_a_batch_carries_targets_profile_codes_and_subset_of_its_own_clips(ten_clips):
    data = dataset(ten_clips)
    batch = collated(data, 7, 2)
    assert [clip_of(batch, place) for place in (0, 1)] == [7, 2]
    assert batch["target"].tolist() == [7 % 3, 2 % 3]
    assert batch["net_input"]["profile"].tolist() == ten_clips.profiles[[7, 2]].tolist()
    assert batch["net_input"]["profile"].dtype == torch.int64
    assert batch["id"].tolist() == [7, 2]
    assert batch["subset"] == "train"


def test_without_profiling_a_batch_has_no_profile_codes(ten_clips):
    assert "profile" not in collated(dataset(ten_clips, profiling=False), 0)["net_input"]


def test_without_targets_a_batch_has_none(ten_clips):
    data = SpectrogramDataset(ten_clips, None, "train", DatasetOptions(training=False, seed=1))
    assert "target" not in collated(data, 0)


def test_no_samples_make_an_empty_batch(ten_clips):
    assert dataset(ten_clips).collater([]) == {}


# ---- lengths -------------------------------------------------------------------------------------------------------


def test_min_sample_size_leaves_out_clips_with_their_labels_and_profiles(ten_clips):
    """In the official code it changes nothing."""
    data = dataset(ten_clips, min_sample_size=38)
    kept = [number for number, frames in enumerate(LENGTHS) if frames >= 38]
    assert len(data) == len(kept) == 5
    batch = collated(data, *range(len(data)))
    assert [clip_of(batch, place) for place in range(5)] == kept
    assert batch["target"].tolist() == [number % 3 for number in kept]
    assert batch["net_input"]["profile"].tolist() == ten_clips.profiles[kept].tolist()
    assert sorted(data.ordered_indices().tolist()) == list(range(5))


def test_min_sample_size_above_every_clip_is_refused(ten_clips):
    with pytest.raises(InputError, match=r"train\.tsv: no clip has the 61 frames of task\.min_sample_size; lower it"):
        dataset(ten_clips, min_sample_size=61)


def test_max_sample_size_cuts_at_the_start_in_evaluation_and_at_random_places_in_training(ten_clips):
    evaluated = dataset(ten_clips, max_sample_size=30)
    assert evaluated.sizes.tolist() == [min(frames, 30) for frames in LENGTHS]
    assert evaluated[4]["source"].shape == (8, 30)
    assert evaluated[4]["source"][0, 0] == 5.0
    trained = dataset(ten_clips, max_sample_size=30, training=True)
    starts = set()
    for epoch in range(1, 9):
        trained.set_epoch(epoch)
        clip = trained[4]["source"]
        assert clip.shape == (8, 30)
        starts.add(round(float(clip[0, 0]) - 5.0, 2))
    assert len(starts) > 2


def test_normalize_acts(ten_clips):
    """In the official code it changes nothing."""
    clip = dataset(ten_clips, normalize=True)[1]["source"]
    assert abs(float(clip.mean())) < 1e-4
    assert abs(float(clip.std(correction=0)) - 1) < 1e-2


def test_an_item_reads_one_file_and_never_scans_the_manifest(ten_clips, monkeypatch):
    """The official code rebuilds the list of a profile's clips by a scan of the manifest for every item."""
    read = []
    real = ClipFiles.read
    monkeypatch.setattr(ClipFiles, "read", lambda files, clip, *rest: read.append(clip) or real(files, clip, *rest))

    class Counted(list):
        def __iter__(self):
            raise AssertionError("the list of clips was scanned")

    data = dataset(ten_clips, training=True, fixed_frames=60)
    assert read == []
    ten_clips.clips = Counted(ten_clips.clips)
    collated(data, 3, 6)
    assert read == ["3.npy", "6.npy"]


# ---- what an epoch draws -------------------------------------------------------------------------------------------


def test_what_a_clip_draws_depends_on_seed_epoch_and_clip_only(ten_clips):
    options = {"training": True, "augment": SpecAugment(2, 6, 9), "max_sample_size": 30, "fixed_frames": 30}
    data = dataset(ten_clips, **options)

    def drawn(data, *batches):
        found = {}
        for batch in batches or [range(10)]:
            found |= spectrograms(collated(data, *batch))
        return [found[number] for number in range(10)]

    first = drawn(data)
    for batches in ([range(9, -1, -1)], [[number] for number in range(10)], [(3, 7), (1, 0, 2), (9, 8, 6, 5, 4)]):
        assert all(torch.equal(one, other) for one, other in zip(first, drawn(data, *batches), strict=True))
    data.set_epoch(2)
    other_epoch = drawn(data)
    assert sum(torch.equal(one, other) for one, other in zip(first, other_epoch, strict=True)) <= 1
    other_seed = dataset(ten_clips, **options | {"seed": 2})
    assert sum(torch.equal(one, other) for one, other in zip(first, drawn(other_seed), strict=True)) <= 1
    left_out = dataset(ten_clips, **options | {"min_sample_size": 30})
    kept = [number for number, frames in enumerate(LENGTHS) if frames >= 30]
    for place, clip in spectrograms(collated(left_out, *range(len(kept)))).items():
        assert torch.equal(clip, first[kept[place]])


def test_a_batch_of_items_is_the_items_one_by_one(ten_clips):
    data = dataset(ten_clips, training=True, max_sample_size=30)
    for sample, number in zip(data.__getitems__([4, 0, 5]), (4, 0, 5), strict=True):
        assert sample["id"] == number
        assert torch.equal(sample["source"], data[number]["source"])


def test_clips_of_one_length_draw_differently(tmp_path):
    corpus = tiny.write_corpus(tmp_path / "data", frames=(60, 60))
    task = tiny.build_task(corpus, specaug=True, frequency_mask=0, time_mask=0, time_roll=50)
    task.load_dataset("train")
    data = task.dataset("train")
    plain = tiny.build_task(corpus)
    plain.load_dataset("train")
    rolls = []
    for number in range(len(data)):
        original = plain.dataset("train")[number]["source"]
        rolled = collated(data, number)["net_input"]["source"][0]
        rolls.append(next(r for r in range(original.shape[1]) if torch.equal(original.roll(r, dims=1), rolled)))
    assert len(set(rolls)) > 10


def test_evaluation_augments_nothing(ten_clips):
    data = dataset(ten_clips, augment=SpecAugment(2, 6, 9))
    np.testing.assert_array_equal(collated(data, 2)["net_input"]["source"][0], np.load(ten_clips.root / "2.npy"))


def test_only_splits_named_train_are_augmented(corpus):
    task = tiny.build_task(corpus, specaug=True)
    for split, training in (("train", True), ("valid", False), ("test", False)):
        task.load_dataset(split)
        assert task.dataset(split).training is training


def test_two_workers_give_the_items_of_none_in_every_epoch(corpus):
    """fairseq's persistent workers see epoch 1 for ever."""
    drawn = {}
    for workers in (0, 2):
        task = tiny.build_task(corpus, specaug=True, frequency_mask=2, time_mask=9, time_roll=9, max_sample_size=30)
        for epoch in (1, 2):
            batches = tiny.batches(task, "train", batch_size=12, epoch=epoch, num_workers=workers)
            drawn[workers, epoch] = {key: clip for batch in batches for key, clip in spectrograms(batch).items()}
    for epoch in (1, 2):
        assert drawn[0, epoch].keys() == drawn[2, epoch].keys() == set(range(tiny.CLIPS["train"]))
        assert all(torch.equal(clip, drawn[2, epoch][key]) for key, clip in drawn[0, epoch].items())
    same = sum(torch.equal(clip, drawn[2, 2][key]) for key, clip in drawn[2, 1].items())
    assert same < tiny.CLIPS["train"] / 4


def test_the_workers_of_an_epoch_end_without_delay(corpus):
    """fairseq's persistent workers cost 5 seconds each at the end of every epoch."""
    task = tiny.build_task(corpus)
    tiny.batches(task, "train", num_workers=2)
    started = time.monotonic()
    gc.collect()
    assert time.monotonic() - started < 4


# ---- processes -----------------------------------------------------------------------------------------------------


def test_spawned_workers_give_the_batches_of_this_process(ten_clips):
    """Loader workers are spawned where a system does not fork; each has a copy of the tables."""
    data = dataset(ten_clips, training=True, augment=SpecAugment(2, 6, 9))
    data.set_epoch(3)
    options = {"batch_sampler": [[0, 7, 2], [5, 1]], "collate_fn": data.collater}
    expected = list(torch.utils.data.DataLoader(data, **options))
    found = list(torch.utils.data.DataLoader(data, num_workers=2, multiprocessing_context="spawn", **options))
    assert len(found) == len(expected) == 2
    for batch, other in zip(found, expected, strict=True):
        assert batch["id"].tolist() == other["id"].tolist()
        assert torch.equal(batch["net_input"]["source"], other["net_input"]["source"])


def test_a_pickled_dataset_is_whole(ten_clips):
    data = dataset(ten_clips, training=True, augment=SpecAugment(2, 6, 9))
    first = collated(data, 3, 4)["net_input"]["source"]
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(collated(copy, 3, 4)["net_input"]["source"], first)
    assert list(copy.manifest.clips) == list(ten_clips.clips)


# ---- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_feature_gives_one_sentence_also_from_a_worker(own_corpus, workers):
    (own_corpus / "features" / "test5.npy").unlink()
    task = tiny.build_task(own_corpus)
    with pytest.raises(InputError) as raised:
        tiny.batches(task, "test", batch_size=4, num_workers=workers)
    sentence = str(raised.value)
    assert sentence.startswith(f"{own_corpus / 'test.tsv'}:7: feature file ")
    assert sentence.endswith("is missing; run `neupronet prepare` again")
    assert "\n" not in sentence
