"""Audio read in blocks against the same file read at once."""

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from fairseq_neupronet.audio import decode
from fairseq_neupronet.errors import InputError


@pytest.mark.parametrize("block", [1, 97, 5000])
@pytest.mark.parametrize(
    ("rate", "wanted"),
    [
        (44100, 16000),
        (8000, 16000),
        (16000, 22500),
        (16000, 16000),
        (44101, 16000),
    ],
)
def test_blocks_leave_no_trace(tmp_path, monkeypatch, rate, wanted, block):
    monkeypatch.setattr(decode, "_BLOCK", block)
    sound = np.random.default_rng(0).normal(size=(701 if block == 1 else 12_003, 2)).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "a.wav", sound, rate, subtype="FLOAT")
    found = torch.cat(list(decode.stream_audio(tmp_path / "a.wav", wanted)))
    expected = torch.from_numpy(sound.mean(axis=1))
    # A near ratio stands for one of coprime rates.
    old, new = (2183, 792) if rate == 44101 else (rate, wanted)
    if old != new:
        expected = torchaudio.functional.resample(expected, old, new)
    assert len(found) == len(expected)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    from_array = torch.cat(list(decode.stream_array(sound, rate, wanted, "array")))
    torch.testing.assert_close(from_array, found)


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Two hours at 8 kHz: at once they would be 230 MB of float32, and twice that resampled."""
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 8000, 1, subtype="PCM_U8") as file:
        for _ in range(120):
            file.write(np.zeros(60 * 8000, np.float32))
    total, longest = 0, 0
    for block in decode.stream_audio(tmp_path / "long.wav", 16000):
        total, longest = total + len(block), max(longest, len(block))
    assert total == 2 * 3600 * 16000
    assert longest <= 2 * decode._BLOCK + 64


@pytest.mark.parametrize(("content", "words"), [(b"", "does not decode"), (b"hello\n" * 50, "does not decode")])
def test_what_is_no_audio_is_refused(tmp_path, content, words):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(InputError, match=f"a.wav: {words}"):
        list(decode.stream_audio(tmp_path / "a.wav", 16000))


def test_no_samples_and_no_numbers_are_refused(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 8000, subtype="FLOAT")
    for name, words in (("none.wav", "0 samples"), ("nan.wav", "NaN"), ("gone.wav", "no such")):
        with pytest.raises(InputError, match=f"{name}: .*{words}"):
            list(decode.stream_audio(tmp_path / name, 16000))
