"""SpecAugment of a batch, against a loop over its clips."""

import numpy as np
import pytest
import torch

from fairseq_neupronet.data.augmentation import SpecAugment

NO_MASKS = {"frequency_mask": 0, "time_mask": 0}


def numbered(n_mels=8, n_frames=30):
    """Cells that are all different and never 0."""
    return np.arange(1, n_mels * n_frames + 1, dtype=np.float32).reshape(n_mels, n_frames)


def augmented(augment, *clips, seed=0):
    """Each clip after augmentation in one batch, without its padding; padding stays zero."""
    lengths = np.array([clip.shape[1] for clip in clips])
    source = torch.zeros(len(clips), clips[0].shape[0], lengths.max())
    for padded, clip in zip(source, clips, strict=True):
        padded[:, : clip.shape[1]] = torch.from_numpy(clip)
    before = source.clone()
    uniform = np.random.default_rng(seed).random((len(clips), SpecAugment.DRAWS))
    result = augment(source, lengths, uniform)
    assert torch.equal(source, before)
    assert result.shape == source.shape and result.dtype == source.dtype
    for padded, length in zip(result, lengths, strict=True):
        assert not padded[:, length:].any()
    return [padded[:, :length].numpy() for padded, length in zip(result, lengths, strict=True)]


def plainly(augment, clip, uniform):
    """One clip, one step after the other."""
    n_mels, n_frames = clip.shape
    clip = clip.copy()
    bands = int(uniform[0] * (min(augment.frequency_mask, n_mels // 2) + 1))
    first = int(uniform[1] * (n_mels - bands + 1))
    clip[first : first + bands] = 0
    frames = int(uniform[2] * (min(augment.time_mask, n_frames // 2) + 1))
    first = int(uniform[3] * (n_frames - frames + 1))
    clip[:, first : first + frames] = 0
    return np.roll(clip, int(uniform[4] * (2 * augment.time_roll + 1)) - augment.time_roll, axis=1)


@pytest.mark.parametrize("limits", [(48, 192, 1024), (3, 5, 7), (0, 5, 0), (3, 0, 1024), (0, 0, 0)])
def test_a_batch_is_augmented_as_its_clips_one_by_one(limits):
    augment = SpecAugment(*limits)
    rng = np.random.default_rng(1)
    clips = [numbered(8, n_frames) for n_frames in (1, 2, 3, 30, 30, 29, 41, 7, *rng.integers(1, 60, size=50))]
    uniform = np.random.default_rng(0).random((len(clips), SpecAugment.DRAWS))
    for clip, result, draws in zip(clips, augmented(augment, *clips), uniform, strict=True):
        np.testing.assert_array_equal(result, plainly(augment, clip, draws))


def test_a_clip_is_augmented_alike_whatever_shares_its_batch():
    augment = SpecAugment(3, 5, 9)
    uniform = np.random.default_rng(0).random((2, SpecAugment.DRAWS))
    source = torch.zeros(2, 8, 50)
    source[0, :, :30] = torch.from_numpy(numbered())
    source[1] = 5.0
    alone = augment(source[:1, :, :30], np.array([30]), uniform[:1])
    together = augment(source, np.array([30, 50]), uniform)
    assert torch.equal(together[0, :, :30], alone[0])


def test_the_roll_is_in_time_and_mel_bands_stay_where_they_are():
    """The official code rolls the mel bands by mistake."""
    clip = numbered()
    rolls = set()
    for rolled in augmented(SpecAugment(**NO_MASKS, time_roll=10), *[clip] * 100):
        for before, after in zip(clip, rolled, strict=True):
            assert sorted(before) == sorted(after)
        shift = int(np.flatnonzero(rolled[0] == clip[0, 0])[0])
        np.testing.assert_array_equal(rolled, np.concatenate([clip[:, 30 - shift :], clip[:, : 30 - shift]], axis=1))
        rolls.add(shift)
    assert rolls <= {*range(11), *range(20, 30)}
    assert len(rolls) > 15


def test_masks_are_rectangles_of_zeros_within_their_limits():
    clip = numbered(10, 40)
    bands, frames = set(), set()
    for masked in augmented(SpecAugment(frequency_mask=3, time_mask=5, time_roll=0), *[clip] * 300):
        zero_bands = np.flatnonzero((masked == 0).all(axis=1))
        zero_frames = np.flatnonzero((masked == 0).all(axis=0))
        bands.add(len(zero_bands))
        frames.add(len(zero_frames))
        for zeros in (zero_bands, zero_frames):
            assert not len(zeros) or zeros[-1] - zeros[0] + 1 == len(zeros)
        rest = np.ones(clip.shape, bool)
        rest[zero_bands] = rest[:, zero_frames] = False
        np.testing.assert_array_equal(masked[rest], clip[rest])
    assert bands == {0, 1, 2, 3}
    assert frames == {0, 1, 2, 3, 4, 5}


def test_a_mask_never_covers_more_than_half_of_a_short_clip():
    clips = [numbered(8, n_frames) for n_frames in [12, 13, 300] * 40]
    for clip, masked in zip(clips, augmented(SpecAugment(), *clips), strict=True):
        assert (masked != 0).any(axis=1).sum() >= 4
        assert (masked != 0).any(axis=0).sum() >= clip.shape[1] / 2


def test_the_smallest_clip_is_augmented_without_an_error():
    assert augmented(SpecAugment(), np.ones((1, 1), np.float32))[0].shape == (1, 1)


def test_half_precision_stays_half_precision():
    source = torch.ones(2, 4, 6, dtype=torch.float16)
    uniform = np.full((2, SpecAugment.DRAWS), 0.99)
    assert SpecAugment()(source, np.array([6, 6]), uniform).dtype == torch.float16
