"""Spectrograms against librosa and torchaudio; decoding; recipes."""

import dataclasses
import os
import warnings
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
import torchaudio
import yaml

from fairseq_neupronet.audio.decode import load_audio
from fairseq_neupronet.audio.features import empty_bands_notes, extract_features, filter_bank
from fairseq_neupronet.audio.recipe import FeatureRecipe, configs_folder
from fairseq_neupronet.errors import InputError


def _tone_sweep(seconds, rate):
    times = np.arange(int(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * (100 + 1500 * times) * times)


def _clicks(seconds, rate):
    wave = np.zeros(int(seconds * rate))
    wave[:: rate // 7] = 0.8
    return wave + 1e-3 * np.random.default_rng(3).normal(size=len(wave))


def _voice(seconds, rate):
    times = np.arange(int(seconds * rate)) / rate
    voice = sum(np.sin(2 * np.pi * 140 * k * times + k) / k for k in range(1, 30))
    return 0.1 * voice * np.exp(-2 * times) * (times > 0.1)  # begins with true zeros


def _noise(seconds, rate):
    return 0.1 * np.random.default_rng(4).normal(size=int(seconds * rate))


MADE = {"sweep": _tone_sweep, "clicks": _clicks, "voice": _voice, "noise": _noise}


def _librosa_reference(wave, rate, n_mels, n_fft=2048, hop=512):
    mel = librosa.feature.melspectrogram(y=wave, sr=rate, n_fft=n_fft, hop_length=hop, n_mels=n_mels)
    decibels = librosa.power_to_db(mel, ref=np.max)
    return (decibels - decibels.min()) / (decibels.max() - decibels.min()) * 255


@pytest.mark.parametrize("rate", [22500, 16000])
@pytest.mark.parametrize("n_mels", [128, 64])
@pytest.mark.parametrize("name", MADE)
def test_mel_recipe_equals_librosa(name, n_mels, rate):
    wave = MADE[name](1.3, rate).astype(np.float32)
    features = extract_features(torch.from_numpy(wave), FeatureRecipe.load("official", sample_rate=rate, n_mels=n_mels))
    expected = _librosa_reference(wave, rate, n_mels)
    assert features.dtype == np.float32 and features.shape == expected.shape
    assert np.abs(features - expected).max() < 0.25


@pytest.mark.parametrize(
    "rate, n_fft, n_mels",
    [
        (22500, 2048, 128),
        (10667, 256, 192),
        (11025, 512, 40),
        (1001, 256, 20),
    ],
)
def test_the_filter_bank_equals_librosas_at_odd_and_low_rates(rate, n_fft, n_mels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # empty filters
        expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels)
    np.testing.assert_allclose(filter_bank(rate, n_fft, n_mels).T, expected, atol=1e-8)


def test_bands_without_a_frequency_bin_are_constant_and_counted():
    recipe = FeatureRecipe.load("icbhi")
    wave = MADE["voice"](0.5, recipe.sample_rate).astype(np.float32)
    with pytest.warns(UserWarning, match="Empty filters detected"):
        expected = _librosa_reference(wave, recipe.sample_rate, 192, n_fft=256, hop=32)
        bank = librosa.filters.mel(sr=recipe.sample_rate, n_fft=256, n_mels=192)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # preparation says it once, not torchaudio in each process
        features = extract_features(torch.from_numpy(wave), recipe)
        (note,) = empty_bands_notes(recipe)
    assert np.isfinite(features).all() and np.abs(features - expected).max() < 0.25
    empty = ~bank.any(axis=1)
    assert empty.sum() == 31 and (np.ptp(features[empty]), np.ptp(features[~empty], axis=1).min() > 0) == (0, True)
    assert note.startswith("31 of 192 mel bands hold no frequency bin (n_fft 256 at 10667 Hz) and are constant")
    assert empty_bands_notes(FeatureRecipe.load("official")) == []


@pytest.mark.skipif("NEUPRONET_VOCALSOUND" not in os.environ, reason="NEUPRONET_VOCALSOUND names no folder")
@pytest.mark.parametrize("rate", [22500, 16000])
@pytest.mark.parametrize("file", ["f0003_0_cough", "f0004_0_laughter", "f0003_0_sigh"])
def test_mel_recipe_equals_librosa_on_real_clips(file, rate):
    wave = load_audio(Path(os.environ["NEUPRONET_VOCALSOUND"]) / "audio" / f"{file}.mp3", rate)
    features = extract_features(wave, FeatureRecipe.load("official", sample_rate=rate))
    assert np.abs(features - _librosa_reference(wave.numpy(), rate, 128)).max() < 0.25


@pytest.mark.parametrize(
    "rate, n_mels, n_fft, hop",
    [
        (16000, 33, 512, 160),
        (22500, 20, 1023, 511),
        (44100, 128, 4096, 100),
        (8000, 1, 256, 300),
    ],
)
def test_mel_recipe_equals_librosa_at_other_sizes(rate, n_mels, n_fft, hop):
    wave = MADE["voice"](0.7, rate).astype(np.float32)
    recipe = FeatureRecipe.load("official", sample_rate=rate, n_mels=n_mels, n_fft=n_fft, hop_length=hop)
    features = extract_features(torch.from_numpy(wave), recipe)
    expected = _librosa_reference(wave, rate, n_mels, n_fft, hop)
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() < 0.25


@pytest.mark.parametrize("samples", [1, 100, 2047])
def test_mel_recipe_on_clips_shorter_than_a_window(samples):
    wave = MADE["noise"](1, 22500)[:samples].astype(np.float32)
    features = extract_features(torch.from_numpy(wave), FeatureRecipe.load("official"))
    with pytest.warns(UserWarning, match="n_fft=2048 is too large"):
        expected = _librosa_reference(wave, 22500, 128)
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() < 0.25


def test_frame_counts_are_those_of_the_official_manifests():
    for seconds, frames in ((4.0, {128: 704, 64: 1407, 512: 176}), (0.3176, {128: 56, 64: 112, 512: 14})):
        for hop, count in frames.items():
            recipe = FeatureRecipe.load("official", hop_length=hop)
            assert extract_features(torch.zeros(round(seconds * 22500)) + 0.1, recipe).shape == (128, count)


def test_kaldi_recipe_equals_torchaudio():
    wave = torch.from_numpy(MADE["voice"](1.0, 16000)).float() + 0.05  # an offset that the recipe takes out
    expected = torchaudio.compliance.kaldi.fbank(
        (wave - wave.mean()).unsqueeze(0),
        htk_compat=True,
        sample_frequency=16000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )
    features = extract_features(wave, FeatureRecipe.load("kaldi_fbank"))
    assert features.shape == (128, 98) and features.dtype == np.float32
    np.testing.assert_allclose(features, ((expected + 3.05) / 5.42).T.numpy(), atol=1e-5)


def test_kaldi_recipe_keeps_a_hop_that_is_no_whole_millisecond():
    for hop in (100, 161, 163, 257):
        frames = extract_features(torch.randn(16000), FeatureRecipe.load("kaldi_fbank", hop_length=hop)).shape[1]
        assert frames == 1 + (16000 - 400) // hop


def test_kaldi_recipe_pads_and_cuts_to_target_frames():
    wave = torch.from_numpy(MADE["noise"](1.0, 16000)).float()
    free = extract_features(wave, FeatureRecipe.load("kaldi_fbank"))
    padded = extract_features(wave, FeatureRecipe.load("kaldi_fbank", target_frames=512))
    assert padded.shape == (128, 512)
    np.testing.assert_array_equal(padded[:, :98], free)
    np.testing.assert_allclose(padded[:, 98:], 3.05 / 5.42, atol=1e-6)
    cut = extract_features(wave, FeatureRecipe.load("kaldi_fbank", target_frames=50))
    np.testing.assert_array_equal(cut, free[:, :50])


def test_kaldi_recipe_on_a_clip_shorter_than_a_window():
    wave = torch.randn(150)
    features = extract_features(wave, FeatureRecipe.load("kaldi_fbank"))
    padded = torch.cat([wave - wave.mean(), torch.zeros(250)]).unsqueeze(0)
    expected = torchaudio.compliance.kaldi.fbank(
        padded, htk_compat=True, sample_frequency=16000, window_type="hanning", num_mel_bins=128, dither=0.0
    )
    np.testing.assert_allclose(features, ((expected + 3.05) / 5.42).T.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["official", "kaldi_fbank"])
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_silent_and_constant_clips_are_finite(name, level):
    features = extract_features(torch.full((16000,), level), FeatureRecipe.load(name))
    assert np.isfinite(features).all()
    if name == "official" and level == 0.0:
        assert not features.any()


def test_features_refuse_no_waveform():
    for wrong in (torch.zeros(0), torch.zeros(1, 16000)):
        with pytest.raises(ValueError, match=r"waveform must be \(samples,\)"):
            extract_features(wrong, FeatureRecipe.load("official"))


# Decoding


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_decoding_averages_channels_and_resamples(tmp_path, suffix):
    times = np.arange(44100) / 44100
    stereo = np.stack([0.6 * np.sin(2 * np.pi * 440 * times), 0.2 * np.sin(2 * np.pi * 440 * times)], 1)
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, stereo, 44100)
    wave = load_audio(path, 16000)
    assert wave.dtype == torch.float32 and wave.dim() == 1
    decoded, _ = soundfile.read(path)
    assert len(wave) == int(np.ceil(len(decoded) * 16000 / 44100))
    middle = slice(4000, 12000)
    expected = 0.4 * np.sin(2 * np.pi * 440 * np.arange(len(wave)) / 16000)
    correlation = np.corrcoef(wave[middle], expected[middle])[0, 1] if suffix in ("wav", "flac") else 1.0
    assert correlation > 0.9999
    assert np.sqrt(np.mean(wave[middle].numpy() ** 2)) == pytest.approx(0.4 / np.sqrt(2), rel=0.02)


@pytest.mark.parametrize("rate", [8000, 11024, 44099, 48000, 96000])
def test_decoding_resamples_odd_rates(tmp_path, rate):
    times = np.arange(rate) / rate
    soundfile.write(tmp_path / "clip.wav", 0.4 * np.sin(2 * np.pi * 440 * times), rate)
    wave = load_audio(tmp_path / "clip.wav", 22500)
    assert abs(len(wave) - 22500) <= 1
    spectrum = np.abs(np.fft.rfft(wave.numpy()[:22500]))
    assert spectrum.argmax() == 440


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_a_part_of_a_file_is_decoded_alone(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, np.stack([_noise(3, 44100), np.zeros(3 * 44100)], 1), 44100)
    whole, _ = soundfile.read(path, always_2d=True)
    decoded, read = [], soundfile.SoundFile.read

    def counting_read(*arguments, **options):
        decoded.append(len(samples := read(*arguments, **options)))
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", counting_read)
    part = load_audio(path, 44100, start=0.5014, end=1.25)
    np.testing.assert_allclose(part, whole[22112:55125].mean(axis=1), atol=1e-4)  # 0.5014 s is sample 22111.74
    assert decoded == [55125 - 22112]
    until_the_end = load_audio(path, 44100, start=2.9, end=3.04)
    np.testing.assert_allclose(until_the_end, whole[127890:].mean(axis=1), atol=1e-4)
    assert len(load_audio(path, 10667, start=1.0, end=2.0)) == 10667


@pytest.mark.parametrize("old, new", [(16000, 22500), (22500, 16000), (48000, 16000), (44100, 22500), (8000, 44100)])
@pytest.mark.parametrize("samples", [1, 31, 20000])
def test_resampling_is_torchaudios(tmp_path, old, new, samples):
    noise = 0.1 * torch.randn(samples, dtype=torch.float64)
    soundfile.write(tmp_path / "clip.wav", noise.numpy(), old, subtype="FLOAT")
    expected = torchaudio.functional.resample(noise, old, new)
    torch.testing.assert_close(load_audio(tmp_path / "clip.wav", new), expected.float(), rtol=0, atol=3e-6)


def test_decoding_refuses_what_is_no_audio(tmp_path):
    (tmp_path / "text.wav").write_text("this is no audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    for name, message in (
        ("absent.wav", "no such audio file; correct the path"),
        ("text.wav", "does not decode as audio .*; replace the file or convert it"),
        ("empty.wav", r"the audio is empty \(0 samples\); replace the file"),
        ("nan.wav", "NaN or infinite samples; replace the file"),
    ):
        with pytest.raises(InputError, match=f"{name}: .*{message}"):
            load_audio(tmp_path / name, 16000)


# Recipes


def test_shipped_recipes_hold_the_published_numbers():
    official, kaldi = FeatureRecipe.load("official"), FeatureRecipe.load("kaldi_fbank")
    assert (official.sample_rate, official.n_fft, official.hop_length, official.n_mels) == (22500, 2048, 512, 128)
    assert (kaldi.sample_rate, kaldi.hop_length, kaldi.n_mels) == (16000, 160, 128)
    assert (kaldi.mean, kaldi.divisor) == (-3.05, 5.42)
    assert official.describe() == "official: 128 mels, 22500 Hz, n_fft 2048, hop 512"


@pytest.mark.parametrize("path", sorted((configs_folder() / "features").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_travel_as_plain_containers(path, tmp_path):
    recipe = FeatureRecipe.load(path.stem, n_mels=40)
    fields = recipe.to_dict()
    assert all(type(value) in (str, int, float, type(None)) for value in fields.values())
    assert FeatureRecipe.from_dict(fields) == recipe
    assert FeatureRecipe.read(tmp_path) is None
    recipe.save(tmp_path)
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text()) == fields
    assert FeatureRecipe.read(tmp_path) == recipe
    assert dataclasses.replace(recipe, name="other") == recipe != FeatureRecipe.load(path.stem)


def test_a_recipe_of_the_users_own(tmp_path):
    fields = FeatureRecipe.load("official").to_dict() | {"n_mels": 192, "n_fft": 256, "hop_length": 32}
    del fields["name"]
    (tmp_path / "icbhi.yaml").write_text(yaml.safe_dump(fields))
    assert FeatureRecipe.load(tmp_path / "icbhi.yaml").describe() == "icbhi: 192 mels, 22500 Hz, n_fft 256, hop 32"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "mfcc"}, "kind is 'mfcc'; known kinds: mel_db, kaldi_fbank"),
        ({"n_mel": 64}, "unknown field n_mel; known fields: name, kind, sample_rate"),
        ({"n_mels": "many"}, "n_mels is 'many'; give it a number"),
        ({"n_mels": True}, "n_mels is True; give it a number"),
        ({"n_mels": None}, "n_mels is missing; give it a number"),
        ({"hop_length": 0}, "hop_length is 0; give it a number above 0"),
        ({"n_fft": 512.5}, "n_fft is 512.5; give it a whole number"),
        ({"scale": float("nan")}, "scale is nan; give it a number"),
        ({"sample_rate": 16}, "sample_rate is 16; give it in Hz"),
        ({"divisor": 5.42}, "divisor does not apply to kind mel_db, whose fields are"),
        (
            {
                "kind": "kaldi_fbank",
                "n_fft": None,
                "top_db": None,
                "scale": None,
                "mean": 0,
                "divisor": 1,
                "frame_length_ms": 0.05,
            },
            "frame_length_ms is 0.05, less than two samples",
        ),
    ],
)
def test_recipe_mistakes(change, message):
    with pytest.raises(InputError, match=f"recipe official: {message}"):
        FeatureRecipe.from_dict(FeatureRecipe.load("official").to_dict() | change)


def test_recipe_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="recipe offical: .* known ones: icbhi, kaldi_fbank, official"):
        FeatureRecipe.load("offical")
    (tmp_path / "recipe.yaml").write_text("kind: [")
    with pytest.raises(InputError, match="recipe.yaml: is not a readable yaml file"):
        FeatureRecipe.read(tmp_path)
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(InputError, match="recipe.yaml: holds no fields; write one"):
        FeatureRecipe.read(tmp_path)


def test_a_rate_that_is_nearly_the_wanted_one_is_taken_for_it(tmp_path):
    soundfile.write(tmp_path / "clip.wav", samples := _noise(1, 16001).astype(np.float32), 16001, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "clip.wav", 16000), samples)
