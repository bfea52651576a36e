"""One clip's spectrogram before it joins a batch: cut and normalised."""

import numpy as np

from fairseq_neupronet.data.clip_files import crop, normalize


def test_a_clip_that_fits_is_not_cut():
    clip = np.arange(12.0).reshape(2, 6)
    assert crop(clip, 6, 0.9) is clip
    assert crop(clip, 9) is clip


def test_crop_takes_the_start_without_a_draw_and_every_place_as_often_with_one():
    clip = np.arange(6.0)[None].repeat(2, axis=0)
    np.testing.assert_array_equal(crop(clip, 4), clip[:, :4])
    starts = [int(crop(clip, 4, draw)[0, 0]) for draw in np.linspace(0, 1, 300, endpoint=False)]
    assert [starts.count(start) for start in range(6)] == [100, 100, 100, 0, 0, 0]
    cut = crop(clip, 4, 0.5)
    assert cut.shape == (2, 4)
    np.testing.assert_array_equal(np.diff(cut, axis=1), 1)


def test_normalize_is_per_clip_over_all_cells():
    clip = np.random.default_rng(0).normal(7, 30, size=(8, 40)).astype(np.float32)
    result = normalize(clip)
    assert result.dtype == np.float32
    assert abs(result.mean()) < 1e-5
    assert abs(result.std() - 1) < 1e-5
    np.testing.assert_allclose(result, (clip - clip.mean()) / clip.std(), atol=1e-5)
    assert abs(result[0].mean()) > 1e-3  # not per band


def test_a_constant_clip_normalises_to_zeros():
    np.testing.assert_array_equal(normalize(np.full((4, 6), 3.0, np.float32)), 0)
