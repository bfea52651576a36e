"""``neupronet prepare vocalsound``: both layouts, speakers as profiles, the official class order."""

import csv
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.cli import main
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.preparation.datasets import VOCALSOUND_CLASSES, read_vocalsound

# class_labels_indices_vs.csv of the official release
OFFICIAL = [
    ("/m/01j3sz", "Laughter"),
    ("/m/07plz5l", "Sigh"),
    ("/m/01b_21", "Cough"),
    ("/m/0dl9sf8", "Throat clearing"),
    ("/m/01hsr_", "Sneeze"),
    ("/m/07ppn3j", "Sniff"),
]
SPEAKERS = {"tr": ["m0379", "f0003", "m0758", "f0999"], "val": ["f0016"], "te": ["f0004"]}


def _clips():
    for split, speakers in SPEAKERS.items():
        for speaker in speakers:
            for mid, name in OFFICIAL:
                yield split, speaker, mid, name.lower().replace(" ", "")


def _write_audio(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(5).normal(size=1600), 16000)


@pytest.fixture
def one_second(tmp_path):
    """The layout of the unpacked VocalSound-1s."""
    root = tmp_path / "vocalsound_mp3"
    lines = ["path,label,profile,split,seconds\n"]
    for split, speaker, _, label in _clips():
        path = f"audio/{speaker}_0_{label}.mp3"
        _write_audio(root / path)
        lines.append(f"{path},{label},{speaker},{split},0.1\n")
    (root / "manifest.csv").write_text("".join(lines))
    return root


@pytest.fixture
def official(tmp_path):
    """The layout of the official 16 kHz release."""
    root = tmp_path / "vs_release_16k"
    for wanted in SPEAKERS:
        data = []
        for split, speaker, mid, label in _clips():
            if split == wanted:
                _write_audio(root / "audio_16k" / f"{speaker}_0_{label}.wav")
                wav = f"/data/authors/data_16k/{speaker}_0_{label}.wav"
                data.append({"spk_id": speaker, "wav": wav, "labels": mid})
        (root / "datafiles").mkdir(exist_ok=True)
        (root / f"datafiles/{wanted}.json").write_text(json.dumps({"data": data}))
    return root


def _prepare(root, out, *more):
    return main(["prepare", "vocalsound", "--root", str(root), "--out", str(out), *more])


@pytest.mark.parametrize("layout", ["one_second", "official"])
def test_both_layouts(layout, tmp_path, capsys, request):
    root, out = request.getfixturevalue(layout), tmp_path / "out"
    assert _prepare(root, out) == 0
    assert "hold each class equally often (6 of them one clip of each class)" in capsys.readouterr().out
    order = [name.lower().replace(" ", "") for _, name in OFFICIAL]
    assert (out / "dict.label.txt").read_text() == "".join(f"{name} 4\n" for name in order)
    for split, name in (("tr", "train"), ("val", "valid"), ("te", "test")):
        expected = [(speaker, label) for each, speaker, _, label in _clips() if each == split]
        rows = pd.read_csv(out / f"{name}.tsv", sep="\t", skiprows=1, header=None)
        labels = (out / f"{name}.label").read_text().split()
        assert list(zip(rows[3], labels, strict=True)) == expected
        for path, (speaker, label) in zip(rows[0], expected, strict=True):
            assert Path(path).name == f"{speaker}_0_{label}.npy"
            assert np.load(out / "features" / path).shape == (128, 8)
    assert FeatureRecipe.read(out / "features") == FeatureRecipe.load("kaldi_fbank")


def test_every_nth_training_speaker(one_second, capsys, tmp_path):
    assert _prepare(one_second, tmp_path / "out", "--train-speakers-every", "3") == 0
    assert "kept 2 of 4 training speakers (--train-speakers-every 3)" in capsys.readouterr().out
    expected = {"train": sorted(SPEAKERS["tr"])[::3], "valid": SPEAKERS["val"], "test": SPEAKERS["te"]}
    for split, speakers in expected.items():
        rows = pd.read_csv(tmp_path / f"out/{split}.tsv", sep="\t", skiprows=1, header=None)
        assert set(rows[3]) == set(speakers) and len(rows) == 6 * len(speakers)


def test_missing_audio_is_refused_or_left_out(official, tmp_path, capsys):
    (official / "audio_16k/f0003_0_sigh.wav").unlink()
    (official / "audio_16k/f0003_0_sniff.wav").unlink()
    assert _prepare(official, tmp_path / "out") == 1
    assert "2 of 36 audio files are missing, the first is " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert _prepare(official, tmp_path / "out", "--allow-missing") == 0
    assert "left out 2 of 36 audio files that are missing" in capsys.readouterr().out
    assert "sigh 3\n" in (tmp_path / "out/dict.label.txt").read_text()


def test_mistakes(official, one_second, tmp_path):
    with pytest.raises(InputError, match=r"holds neither manifest.csv .* nor audio_16k/ and datafiles/.*point --root"):
        read_vocalsound(tmp_path)
    with pytest.raises(InputError, match="--train-speakers-every 0: give a whole number from 1 up"):
        read_vocalsound(official, train_speakers_every=0)
    manifest = one_second / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",sigh,", ",yawn,"))
    with pytest.raises(InputError, match="manifest.csv, line 3: unknown label 'yawn'; known ones: laughter"):
        read_vocalsound(one_second)
    split = official / "datafiles/val.json"
    text = split.read_text()
    split.write_text(text.replace("/m/01b_21", "/m/none"))
    with pytest.raises(InputError, match="val.json, entry 3: unknown label '/m/none'; known ones: /m/01j3sz"):
        read_vocalsound(official)
    for broken in (text[:-9], "[]", '{"data": [{"wav": "x.wav"}]}'):
        split.write_text(broken)
        with pytest.raises(InputError, match="val.json: is not a split file of VocalSound .*; restore it"):
            read_vocalsound(official)
    split.unlink()
    with pytest.raises(InputError, match=r"val.json: cannot be read \(No such file or directory\); restore the split"):
        read_vocalsound(official)


@pytest.mark.skipif("NEUPRONET_VOCALSOUND" not in os.environ, reason="NEUPRONET_VOCALSOUND names no folder")
def test_the_real_release_against_its_own_split_files():
    root = Path(os.environ["NEUPRONET_VOCALSOUND"])
    with open(root / "vs_release_16k/class_labels_indices_vs.csv", encoding="utf-8") as stream:
        names = [(row["mid"], row["display_name"].lower().replace(" ", "")) for row in csv.DictReader(stream)]
    assert list(VOCALSOUND_CLASSES.items()) == names
    collection = read_vocalsound(root)
    clips = collection.clips()
    assert Counter(clip.split for clip in clips) == {"train": 15265, "valid": 1817, "test": 3580}
    assert len({clip.profile for clip in clips}) == 3332
    official = {}
    for split, name in (("train", "tr"), ("valid", "val"), ("test", "te")):
        for row in json.loads((root / f"vs_release_16k/datafiles/{name}.json").read_text())["data"]:
            official[Path(row["wav"]).stem] = (split, dict(names)[row["labels"]], row["spk_id"])
    for clip in clips:
        assert official[clip.path.stem] == (clip.split, clip.label, clip.profile)
