"""Vocal tract length perturbation: where a stretched tone lies, and who is stretched."""

import math

import numpy as np
import pytest
import tiny
import torch

from fairseq_neupronet.audio.features import band_centres, extract_features
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.data.augmentation import FrequencyWarp, SpecAugment
from fairseq_neupronet.data.manifest import read_manifest
from fairseq_neupronet.errors import InputError

CENTRES = np.array([100.0, 200.0, 400.0, 800.0])


def drawn(factor: float, limit: float) -> np.ndarray:
    """The uniform draw that gives a factor. (1, 1)"""
    return np.array([[(math.log(factor) / limit + 1) / 2]])


@pytest.mark.parametrize("limit", [0.05, 0.7])
def test_a_band_takes_what_is_read_at_its_stretched_centre(limit):
    rng = np.random.default_rng(0)
    source, uniform = rng.normal(size=(5, 4, 3)).astype(np.float32), rng.random((5, 1))
    warped = FrequencyWarp(limit, CENTRES)(torch.from_numpy(source), uniform).numpy()
    for clip in range(5):
        factor = math.exp(limit * (2 * uniform[clip, 0] - 1))
        for frame in range(3):
            expected = np.interp(CENTRES * factor, CENTRES, source[clip, :, frame])
            np.testing.assert_allclose(warped[clip, :, frame], expected, rtol=1e-5, atol=1e-6)


def test_a_factor_of_one_changes_nothing_and_padding_stays_zero():
    source = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 4, 6)).astype(np.float32))
    source[:, :, 4:] = 0.0
    torch.testing.assert_close(FrequencyWarp(0.3, CENTRES)(source, np.array([[0.5]])), source)
    assert not FrequencyWarp(0.3, CENTRES)(source, np.array([[0.9]]))[:, :, 4:].any()


def test_one_band_stays_as_it_is():
    source = torch.ones(2, 1, 3)
    torch.testing.assert_close(FrequencyWarp(0.3, CENTRES[:1])(source, np.array([[0.1], [0.9]])), source)


@pytest.mark.parametrize("name", ["kaldi_fbank", "official"])
@pytest.mark.parametrize("factor", [0.85, 1.18])
def test_a_stretched_tone_lies_where_a_tone_of_that_frequency_lies(name, factor):
    recipe = FeatureRecipe.load(name, n_mels=64)
    times = np.arange(recipe.sample_rate) / recipe.sample_rate

    def loudest_band(hertz: float, warp=None) -> float:
        wave = torch.from_numpy(np.sin(2 * np.pi * hertz * times).astype(np.float32))
        spectrogram = torch.from_numpy(extract_features(wave, recipe)).unsqueeze(0)
        warped = spectrogram if warp is None else warp(spectrogram, drawn(factor, 0.2))
        return int(warped[0].mean(dim=1).argmax())

    warp = FrequencyWarp(0.2, band_centres(recipe))
    assert abs(loudest_band(2000.0, warp) - loudest_band(2000.0 / factor)) <= 1
    assert loudest_band(2000.0, warp) != loudest_band(2000.0)


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.5, float("nan"), float("inf")])
def test_an_impossible_limit_is_refused(limit):
    with pytest.raises(InputError, match="task.frequency_warp"):
        FrequencyWarp(limit, CENTRES)


def test_clips_of_training_are_stretched_anew_each_epoch_and_those_of_evaluation_are_not(corpus):
    clips = read_manifest(corpus / "train.tsv", profiling=True)
    warp = FrequencyWarp(0.3, np.linspace(100, 800, tiny.N_MELS))
    options = {"fixed_frames": 60, "warp": warp}
    training, plain = (tiny.dataset(clips, training=True, **chosen) for chosen in (options, {"fixed_frames": 60}))
    numbers = range(10)
    stretched, source = (tiny.collated(each, *numbers)["net_input"]["source"] for each in (training, plain))
    assert all(not torch.equal(stretched[place], source[place]) for place in numbers)
    assert torch.equal(tiny.collated(training, *numbers)["net_input"]["source"], stretched)
    assert torch.equal(tiny.collated(training, 3)["net_input"]["source"][0], stretched[3])
    training.set_epoch(2)
    assert not torch.equal(tiny.collated(training, *numbers)["net_input"]["source"], stretched)
    for untrained in (training.for_evaluation(), tiny.dataset(clips, training=False, **options)):
        torch.testing.assert_close(tiny.collated(untrained, *numbers)["net_input"]["source"], source, rtol=0, atol=0)


def test_frequencies_are_stretched_before_bands_are_masked(corpus):
    clips = read_manifest(corpus / "train.tsv", profiling=True)
    stretched = {"training": True, "fixed_frames": 60, "warp": FrequencyWarp(0.3, np.linspace(100, 800, tiny.N_MELS))}
    whole, masked = tiny.dataset(clips, **stretched), tiny.dataset(clips, **stretched, augment=SpecAugment(4, 0, 0))
    n_masked = 0
    for number in range(10):
        bands = [tiny.collated(data, number)["net_input"]["source"][0] for data in (whole, masked)]
        for plain, band in zip(*bands, strict=True):
            assert torch.equal(plain, band) or not band.any()
            n_masked += not torch.equal(plain, band)
    assert n_masked
