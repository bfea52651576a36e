"""The synthetic corpus: seeded, documented, and a world in which knowing the profile truly helps."""

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairseq_neupronet.cli import main
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.preparation.synthesis import CLASSES, synthesize


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)])
def corpus(request, tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("synthetic"), seed=request.param)


def _log_mel_statistics(folder, paths):
    """(clips, 80): mean and standard deviation over time of 40 log-mel bands."""
    rows = []
    for path in paths:
        wave, rate = soundfile.read(folder / path, dtype="float32")
        mel = librosa.feature.melspectrogram(y=wave, sr=rate, n_fft=1024, hop_length=256, n_mels=40)
        decibels = librosa.power_to_db(mel)
        rows.append(np.concatenate([decibels.mean(1), decibels.std(1)]))
    return pd.DataFrame(rows)


def _accuracy(features, table):
    train, test = (table.split == "train").to_numpy(), (table.split == "test").to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    return model.fit(features[train], table.label[train]).score(features[test], table.label[test])


def test_profiles_help_a_linear_model_and_shuffled_ones_do_not(corpus):
    """The linear check: the same features plain, with each profile's mean subtracted, and with shuffled profiles."""
    table = pd.read_csv(corpus)
    features = _log_mel_statistics(corpus.parent, table.path)
    random = np.random.default_rng(0)
    shuffled = table.groupby("split").profile.transform(lambda column: random.permutation(column.to_numpy()))
    plain = _accuracy(features, table)
    profiled = _accuracy(features - features.groupby(table.profile).transform("mean"), table)
    permuted = _accuracy(features - features.groupby(shuffled).transform("mean"), table)
    print(f"plain {plain:.3f}, with profiles {profiled:.3f}, shuffled {permuted:.3f}")
    assert plain > 2 / len(CLASSES)  # twice chance: the classes can be heard without the profile
    assert profiled - plain >= 0.08
    assert profiled - permuted >= 0.08


def test_every_profile_has_several_clips_of_every_class_and_lies_in_one_split(corpus):
    table = pd.read_csv(corpus)
    counts = pd.crosstab(table.profile, table.label)
    assert list(counts.columns) == sorted(CLASSES) and counts.to_numpy().min() >= 2
    assert counts.nunique(axis=1).gt(1).mean() > 0.9  # nearly no profile gives each class equally often
    assert (table.groupby("profile").split.nunique() == 1).all()
    assert table.groupby("split").profile.nunique().to_dict() == {"train": 18, "valid": 4, "test": 8}
    assert not table.path.duplicated().any()


def test_the_audio_is_what_the_documentation_says(corpus):
    lengths = set()
    for path in pd.read_csv(corpus).path[::10]:
        audio = soundfile.info(corpus.parent / path)
        assert (audio.samplerate, audio.channels, audio.subtype) == (16000, 1, "PCM_16")
        assert 0.7 <= audio.duration <= 1.2
        lengths.add(audio.frames)
    assert len(lengths) > 20
    assert "SYNTHETIC sound" in (corpus.parent / "SYNTHETIC.txt").read_text()


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    folders = [
        synthesize(tmp_path / name, seed, n_profiles=3, clips_per_class=2).parent
        for name, seed in (("first", 7), ("again", 7), ("other", 8))
    ]
    first, again, other = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")} for folder in folders
    )
    assert first == again
    common = [path for path in first if path in other and path.suffix == ".wav"]
    assert common and all(first[path] != other[path] for path in common)


def test_it_prepares(tmp_path, capsys):
    assert main(["synthesize", str(tmp_path / "corpus"), "--profiles", "3", "--clips-per-class", "2"]) == 0
    assert "neupronet prepare table --metadata" in capsys.readouterr().out
    assert (
        main(
            [
                "prepare",
                "table",
                "--metadata",
                str(tmp_path / "corpus/metadata.csv"),
                "--out",
                str(tmp_path / "prepared"),
                "--n-mels",
                "32",
                "--workers",
                "1",
            ]
        )
        == 0
    )
    assert [line.split()[0] for line in (tmp_path / "prepared/dict.label.txt").open()] == sorted(CLASSES)


def test_mistakes(tmp_path, capsys):
    with pytest.raises(InputError, match="--profiles 2: give a whole number from 3 up"):
        synthesize(tmp_path / "out", n_profiles=2)
    with pytest.raises(InputError, match="--clips-per-class 1: give a whole number from 2 up"):
        synthesize(tmp_path / "out", clips_per_class=1)
    with pytest.raises(InputError, match="--seed -1: give a whole number from 0 up"):
        synthesize(tmp_path / "out", seed=-1)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("in the way")
    assert main(["synthesize", str(tmp_path / "out")]) == 1
    assert "cannot be written" in capsys.readouterr().err
