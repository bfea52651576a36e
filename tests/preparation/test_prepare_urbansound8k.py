"""``neupronet prepare urbansound8k``: ten partitions by the protocol, features computed once."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.cli import main
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.preparation.datasets import read_urbansound8k

# UrbanSound8K_README.txt: classID 0 … 9
CLASSES = [
    "air_conditioner",
    "car_horn",
    "children_playing",
    "dog_bark",
    "drilling",
    "engine_idling",
    "gun_shot",
    "jackhammer",
    "siren",
    "street_music",
]


@pytest.fixture
def root(tmp_path):
    """Ten folds of ten clips, one of each class; one Freesound id per class and pair of folds."""
    root = tmp_path / "UrbanSound8K"
    lines = ["slice_file_name,fsID,start,end,salience,fold,classID,class\n"]
    for fold in range(1, 11):
        (root / f"audio/fold{fold}").mkdir(parents=True)
        for class_id, name in enumerate(CLASSES):
            source = 1000 * class_id + (fold + 1) // 2
            file = f"{source}-{class_id}-0-{fold}.wav"
            soundfile.write(root / f"audio/fold{fold}/{file}", np.full((300, 2), 0.01 * fold), 44100)
            lines.append(f"{file},{source},0.0,0.1,1,{fold},{class_id},{name}\n")
    (root / "metadata").mkdir()
    (root / "metadata/UrbanSound8K.csv").write_text("".join(lines))
    return root


def _prepare(root, out, *more):
    return main(["prepare", "urbansound8k", "--root", str(root), "--out", str(out), "--workers", "1", *more])


def _expected(frame, test):
    """The protocol, in pandas: split → rows."""
    valid = 10 if test == 1 else test - 1
    return {
        "train": frame[~frame.fold.isin([test, valid])],
        "valid": frame[frame.fold == valid],
        "test": frame[frame.fold == test],
    }


def test_ten_partitions_by_the_protocol(root, tmp_path):
    out = tmp_path / "out"
    assert _prepare(root, out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["features"] + [f"fold{k:02d}" for k in range(1, 11)]
    assert len(list((out / "features").rglob("*.npy"))) == 100
    frame = pd.read_csv(root / "metadata/UrbanSound8K.csv")
    for test in range(1, 11):
        folder = out / f"fold{test:02d}"
        assert (folder / "dict.label.txt").read_text() == "".join(f"{name} 8\n" for name in CLASSES)
        for split, rows in _expected(frame, test).items():
            assert (folder / f"{split}.tsv").read_text().splitlines()[0] == "../features"
            written = pd.read_csv(folder / f"{split}.tsv", sep="\t", skiprows=1, header=None)
            assert list(written[0]) == [f"fold{row.fold}/{row.slice_file_name[:-4]}.npy" for row in rows.itertuples()]
            assert list(written[3]) == list(rows.fsID)
            assert (folder / f"{split}.label").read_text().split() == list(rows["class"])
            assert (folder / "../features" / written[0][0]).is_file()
    assert FeatureRecipe.read(out / "features") == FeatureRecipe.load("official")


def test_missing_audio_is_refused_or_left_out(root, tmp_path, capsys):
    frame = pd.read_csv(root / "metadata/UrbanSound8K.csv")
    gone = frame.iloc[[13, 14, 77]]
    for row in gone.itertuples():
        (root / f"audio/fold{row.fold}/{row.slice_file_name}").unlink()
    assert _prepare(root, tmp_path / "out") == 1
    sentence = capsys.readouterr().err
    assert "UrbanSound8K.csv: 3 of 100 audio files are missing, the first is " in sentence
    assert gone.iloc[0].slice_file_name in sentence and "--allow-missing" in sentence
    assert not (tmp_path / "out").exists()
    assert _prepare(root, tmp_path / "out", "--allow-missing") == 0
    assert "left out 3 of 100 audio files that are missing" in capsys.readouterr().out
    left = frame.drop(gone.index)
    for split, rows in _expected(left, 2).items():
        assert len((tmp_path / f"out/fold02/{split}.tsv").read_text().splitlines()) == len(rows) + 1


def test_sources_in_two_splits_and_of_one_class_are_counted(root, tmp_path, capsys):
    assert _prepare(root, tmp_path / "out") == 0
    printed = capsys.readouterr().out
    # Folds 1 and 2 share their ten ids: partition 1 tests on 1, trains on 2 (and validates on 10, trains on 9).
    first = printed[printed.index("fold01:") : printed.index("fold02:")]
    assert "warning: 20 of 50 profiles lie in two splits or more" in first
    assert "warning: 30 of 30 profiles with two clips or more hold one class only" in first


@pytest.mark.parametrize(
    "old, new, message",
    [
        (",1,3,3,dog_bark", ",1,11,3,dog_bark", "line 25: fold is '11'; give 1 to 10"),
        (",1,1,3,dog_bark", ",1,1,dog,dog_bark", "line 5: classID is 'dog'; give 0 to 9"),
        ("\n3001-3-0-1.wav,3001,", "\n3001-3-0-1.wav,,", "line 5: fsID is empty; restore the official metadata"),
        ("fsID", "id", "line 1: no column fsID in the header"),
        ("\n3001-3-0-1.wav,", "\n2001-2-0-1.wav,", "2001-2-0-1.wav is listed twice; take one of them out"),
    ],
)
def test_mistakes_in_the_metadata(root, old, new, message):
    metadata = root / "metadata/UrbanSound8K.csv"
    text = metadata.read_text()
    assert old in text
    metadata.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=f"UrbanSound8K.csv.*{message}"):
        read_urbansound8k(root)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"UrbanSound8K.csv: cannot be read \(No such file or directory\)"):
        read_urbansound8k(tmp_path)


@pytest.mark.skipif(
    "NEUPRONET_URBANSOUND8K_METADATA" not in os.environ,
    reason="NEUPRONET_URBANSOUND8K_METADATA names no UrbanSound8K.csv",
)
def test_the_real_metadata(tmp_path):
    """The row sets of the ten partitions of all 8,732 clips; the audio files are empty stand-ins, never decoded."""
    source = Path(os.environ["NEUPRONET_URBANSOUND8K_METADATA"])
    frame = pd.read_csv(source)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/UrbanSound8K.csv").write_bytes(source.read_bytes())
    for fold in range(1, 11):
        (tmp_path / f"audio/fold{fold}").mkdir(parents=True)
    for row in frame.itertuples():
        (tmp_path / f"audio/fold{row.fold}/{row.slice_file_name}").touch()
    collection = read_urbansound8k(tmp_path)
    assert len(collection.clips()) == 8732 and len({clip.profile for clip in collection.clips()}) == 1297
    for test in range(1, 11):
        for split, rows in _expected(frame, test).items():
            clips = [clip for clip in collection.partitions[f"fold{test:02d}"] if clip.split == split]
            assert [clip.path.name for clip in clips] == list(rows.slice_file_name)
            assert [clip.label for clip in clips] == list(rows["class"])
            assert [clip.profile for clip in clips] == list(rows.fsID.astype(str))
