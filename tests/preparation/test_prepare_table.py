"""``neupronet prepare table``: layout, resumption, summary, and each mistake's sentence."""

import os
import subprocess
import sys
import time
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.cli import main
from fairseq_neupronet.data.manifest import read_manifest, read_recordings
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.preparation import extract, prepare
from fairseq_neupronet.preparation.clips import read_table

HEADER = "path,label,profile,split,comment\n"
ROWS = """a/one.wav,dog,p1,train,
a/two.flac,cat,p1,train,loud
b/three.ogg,dog,,tr,
b/four.wav,cat,p2,val,
./five.wav,dog,p3,validation,
six.mp3,cat,,te,
"""


@pytest.fixture
def table(tmp_path):
    """A table of six short clips of different formats, rates and channel counts."""
    random = np.random.default_rng(0)
    folder = tmp_path / "source"
    for number, name in enumerate(["a/one.wav", "a/two.flac", "b/three.ogg", "b/four.wav", "five.wav", "six.mp3"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        rate = (22500, 44100, 48000, 8000, 22500, 16000)[number]
        soundfile.write(folder / name, 0.1 * random.normal(size=(rate // 4 + 100 * number, 1 + number % 2)), rate)
    (folder / "clips.csv").write_text(HEADER + ROWS)
    return folder / "clips.csv"


def _prepare(table, out, *more):
    return main(["prepare", "table", "--metadata", str(table), "--out", str(out), "--workers", "1", *more])


def _refused(capsys, table, out, *more):
    assert _prepare(table, out, *more) == 1
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence.startswith("neupronet: error: ")
    assert not list(Path(out).glob("*.tsv")) and not list(Path(out).glob("*.txt"))
    return sentence


def test_a_recording_column_is_written_beside_the_manifest_and_goes_with_it(table, tmp_path):
    out = tmp_path / "out"
    frame = pd.read_csv(table)
    frame.assign(recording=["r1", "r1", "", "r2", "r3", ""]).to_csv(table, index=False)
    assert _prepare(table, out, "--n-mels", "16") == 0
    written = [(out / f"{split}.recording").read_text() for split in ("train", "valid", "test")]
    assert written == ["r1\nr1\n\n", "r2\nr3\n", "\n"]
    codes = read_recordings(read_manifest(out / "train.tsv"))
    assert codes[0] == codes[1] != codes[2]
    frame.to_csv(table, index=False)
    assert _prepare(table, out, "--n-mels", "16") == 0
    assert not list(out.glob("*.recording"))
    assert read_recordings(read_manifest(out / "train.tsv")) is None


def test_layout_is_the_official_one(table, tmp_path):
    out = tmp_path / "out"
    assert _prepare(table, out, "--n-mels", "32") == 0
    frame = pd.read_csv(table)
    for split, names in (("train", ("train", "tr")), ("valid", ("val", "validation")), ("test", ("te",))):
        rows = frame[frame.split.isin(names)]
        lines = (out / f"{split}.tsv").read_text().splitlines()
        assert (out / f"{split}.label").read_text().split("\n") == [*rows.label, ""]
        assert lines[0] == "features"
        assert len(lines) == len(rows) + 1
        for line, row in zip(lines[1:], rows.itertuples(), strict=True):
            path, n_mels, n_frames, profile = line.split("\t")
            array = np.load(out / lines[0] / path)
            relative = os.path.normpath(row.path)
            assert path == os.path.splitext(relative)[0] + ".npy"
            assert array.dtype == np.float32 and array.shape == (int(n_mels), int(n_frames)) and n_mels == "32"
            assert profile == (row.profile if isinstance(row.profile, str) else f"clip:{relative}")
    assert (out / "dict.label.txt").read_text() == "cat 1\ndog 2\n"
    assert FeatureRecipe.read(out / "features") == FeatureRecipe.load("official", n_mels=32)


def test_features_are_those_of_the_audio(table, tmp_path):
    assert _prepare(table, tmp_path / "out") == 0
    wave, _ = soundfile.read(table.parent / "a/one.wav", dtype="float32")
    decibels = librosa.power_to_db(librosa.feature.melspectrogram(y=wave, sr=22500, n_mels=128), ref=np.max)
    expected = (decibels - decibels.min()) / (decibels.max() - decibels.min()) * 255
    assert np.abs(np.load(tmp_path / "out/features/a/one.npy") - expected).max() < 0.25


def test_tsv_tables_and_byte_order_marks(table, tmp_path):
    tsv = table.with_suffix(".tsv")
    tsv.write_text((HEADER + ROWS).replace(",", "\t"), encoding="utf-8-sig")
    assert _prepare(tsv, tmp_path / "tsv") == 0 and _prepare(table, tmp_path / "csv") == 0
    for name in ("train.tsv", "valid.tsv", "test.tsv", "test.label", "dict.label.txt"):
        assert (tmp_path / "tsv" / name).read_text() == (tmp_path / "csv" / name).read_text()


def test_fairseq_reads_the_dictionary_in_file_order(table, tmp_path):
    dictionary = pytest.importorskip("fairseq.data").Dictionary
    assert _prepare(table, tmp_path / "out") == 0
    loaded = dictionary.load(str(tmp_path / "out/dict.label.txt"))
    assert loaded.symbols[4:] == ["cat", "dog"]


def test_a_second_run_redoes_only_what_is_missing_damaged_or_outdated(table, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert _prepare(table, out) == 0
    features = out / "features"
    whole = {path: path.read_bytes() for path in features.rglob("*.npy")}
    (features / "a/one.npy").unlink()
    (features / "a/two.npy").write_bytes(whole[features / "a/two.npy"][:-7])
    (features / "b/three.npy").write_bytes(b"")
    np.save(features / "b/four.npy", np.zeros((64, 9), np.float32))
    later = time.time() + 10
    os.utime(table.parent / "five.wav", (later, later))
    done, original = [], extract._extract_one
    monkeypatch.setattr(extract, "_extract_one", lambda clip, **rest: done.append(clip.key) or original(clip, **rest))
    assert _prepare(table, out) == 0
    assert sorted(done) == ["a/one", "a/two", "b/four", "b/three", "five"]
    assert {path: path.read_bytes() for path in features.rglob("*.npy")} == whole
    os.utime(features / "five.npy", (later, later))
    done.clear()
    assert _prepare(table, out) == 0
    assert done == []


def test_worker_processes_give_the_same_files(tmp_path):
    random = np.random.default_rng(1)
    lines = ["path,label,profile,split\n"]
    for number in range(40):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * random.normal(size=2000 + 50 * number), 22500)
        lines.append(f"{number}.wav,{'ab'[number % 2]},p{number // 10},train\n")
    (tmp_path / "clips.csv").write_text("".join(lines))
    assert _prepare(tmp_path / "clips.csv", tmp_path / "alone") == 0
    assert (
        main(
            [
                "prepare",
                "table",
                "--metadata",
                str(tmp_path / "clips.csv"),
                "--out",
                str(tmp_path / "many"),
                "--workers",
                "2",
            ]
        )
        == 0
    )
    assert (tmp_path / "alone/train.tsv").read_text() == (tmp_path / "many/train.tsv").read_text()
    for number in range(40):
        np.testing.assert_allclose(
            np.load(tmp_path / f"many/features/{number}.npy"),
            np.load(tmp_path / f"alone/features/{number}.npy"),
            atol=1e-2,
        )


def test_a_prepared_folder_can_be_moved(table, tmp_path):
    assert _prepare(table, tmp_path / "out") == 0
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    root, first = (moved / "train.tsv").read_text().splitlines()[:2]
    assert (moved / root / first.split("\t")[0]).is_file()


def test_another_recipe_into_the_same_folder_is_refused_naming_both(table, tmp_path, capsys):
    out = tmp_path / "out"
    assert _prepare(table, out) == 0
    before = (out / "train.tsv").read_text()
    capsys.readouterr()
    assert _prepare(table, out, "--n-mels", "64") == 1
    sentence = capsys.readouterr().err
    assert "official: 128 mels, 22500 Hz, n_fft 2048, hop 512" in sentence
    assert "official: 64 mels, 22500 Hz, n_fft 2048, hop 512" in sentence
    assert "differs in n_mels 128 or 64; choose another --out" in sentence
    assert (out / "train.tsv").read_text() == before


def test_features_without_a_recipe_are_refused(table, tmp_path, capsys):
    (tmp_path / "out/features").mkdir(parents=True)
    np.save(tmp_path / "out/features/one.npy", np.zeros((128, 9), np.float32))
    assert "holds features (one.npy, …) but no recipe.yaml" in _refused(capsys, table, tmp_path / "out")


def test_all_files_that_do_not_decode_are_reported_and_no_manifest_is_written(table, tmp_path, capsys):
    (table.parent / "a/one.wav").write_text("no audio")
    soundfile.write(table.parent / "b/four.wav", np.zeros(0), 16000)
    sentence = _refused(capsys, table, tmp_path / "out")
    assert "2 of 6 audio files cannot be used, so no manifest was written" in sentence
    assert "one.wav: does not decode as audio" in sentence and "four.wav: the audio is empty" in sentence
    assert len(list((tmp_path / "out/features").rglob("*.npy"))) == 4


def test_only_the_first_ten_failures_are_spelt_out(tmp_path, capsys):
    lines = ["path,label,profile,split\n"]
    for number in range(13):
        (tmp_path / f"{number:02d}.wav").write_text("no audio")
        lines.append(f"{number:02d}.wav,x,p,train\n")
    (tmp_path / "clips.csv").write_text("".join(lines))
    sentence = _refused(capsys, tmp_path / "clips.csv", tmp_path / "out")
    assert sentence.count("does not decode") == 10 and sentence.endswith("and 3 more")


def test_silent_clips_are_prepared(table, tmp_path):
    soundfile.write(table.parent / "a/one.wav", np.zeros(9000), 22500)
    assert _prepare(table, tmp_path / "out") == 0
    assert not np.load(tmp_path / "out/features/a/one.npy").any()


def test_labels_with_spaces_are_written_with_underscores_and_mentioned(table, tmp_path, capsys):
    table.write_text((HEADER + ROWS).replace(",dog,", ",big  dog,"))
    assert _prepare(table, tmp_path / "out") == 0
    assert "note: label 'big  dog' is written 'big_dog'" in capsys.readouterr().out
    assert (tmp_path / "out/dict.label.txt").read_text() == "big_dog 2\ncat 1\n"


def test_files_of_a_split_that_is_gone_are_removed(table, tmp_path, capsys):
    assert _prepare(table, tmp_path / "out") == 0
    table.write_text(HEADER + "".join(ROWS.splitlines(keepends=True)[:-1]))
    assert _prepare(table, tmp_path / "out") == 0
    assert not (tmp_path / "out/test.tsv").exists() and not (tmp_path / "out/test.label").exists()
    assert "warning: no clips in split test: no test.tsv was written" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text.replace("profile", "speaker", 1), "clips.csv, line 1: no column profile in the header"),
        (lambda text: text.replace("comment", "profile", 1), "clips.csv, line 1: column profile is more than once"),
        (
            lambda text: text.replace("./five.wav", "b/../a/one.wav"),
            "clips.csv, line 6: b/../a/one.wav is already in l",
        ),
        (lambda text: text.replace("two.flac", "too.flac"), "clips.csv, line 3: no audio file .*too.flac; correct"),
        (
            lambda text: text.replace("one.wav,dog", "one.wav, "),
            "clips.csv, line 2: label is empty; give the clip's class",
        ),
        (lambda text: text.replace("six.mp3", ""), "clips.csv, line 7: path is empty; give the audio file"),
        (lambda text: text.replace(",te,", ",eval,"), "clips.csv, line 7: split is 'eval'; give train, valid or test"),
        (
            lambda text: text.replace("six.mp3,cat", "six.mp3,owl"),
            r"clips.csv: class owl is in test \(1 clips\) but not in train; add training clips of it",
        ),
        (
            lambda text: text.replace(",loud", ",loud,very"),
            "clips.csv, line 3: 6 cells where the header has 5; correct",
        ),
        (lambda text: text.replace("p2", '"p\n2"'), "clips.csv, line 6: profile holds a tab or a line break"),
        (lambda text: text.replace("p2", "clip:2"), "clips.csv, line 5: profile 'clip:2' begins with 'clip:'"),
        (lambda text: text.replace(",dog,", ",<pad>,"), "clips.csv: '<pad>' cannot be a class in a fairseq dictionary"),
        (
            lambda text: text.replace("one.wav,dog", "one.wav,a b").replace("two.flac,cat", "two.flac,a_b"),
            "clips.csv, line 3: label 'a_b' and 'a b' are one class 'a_b' to fairseq",
        ),
        (lambda text: HEADER, "clips.csv: lists no clips; add rows"),
        (lambda text: "", "clips.csv: is empty; write a header line with the columns path,label,profile,split"),
    ],
)
def test_mistakes_in_the_table(table, tmp_path, change, message):
    table.write_text(change(HEADER + ROWS))
    with pytest.raises(InputError, match=message):
        read_table(table)
    assert _prepare(table, tmp_path / "out") == 1
    assert not (tmp_path / "out").exists()


def test_two_audio_files_with_one_features_file_are_refused(table):
    soundfile.write(table.parent / "a/one.flac", np.zeros(100), 16000)
    table.write_text(HEADER + ROWS.replace("two.flac", "one.flac"))
    with pytest.raises(InputError, match="one.wav and .*one.flac would share the features file a/one.npy; rename one"):
        read_table(table)


def test_paths_outside_the_tables_folder_stay_inside_the_features_folder(table, tmp_path):
    absolute = str((table.parent / "six.mp3").resolve())
    (table.parent / "lists").mkdir()
    inner = table.parent / "lists/clips.csv"
    inner.write_text(f"path,label,profile,split\n../a/one.wav,dog,p,train\n{absolute},dog,p,train\n")
    keys = [clip.key for clip in read_table(inner).clips()]
    assert keys == ["a/one", absolute.lstrip("/").removesuffix(".mp3")]


def test_mistakes_on_the_command_line(table, tmp_path, capsys):
    out = tmp_path / "out"
    unknown = _refused(capsys, table, out, "--recipe", "mel")
    assert "recipe mel: no such feature recipe; known ones: icbhi, kaldi_fbank, official" in unknown
    assert "hop_length is -1; give it a number above 0" in _refused(capsys, table, out, "--hop-length", "-1")
    assert "n_fft does not apply" in _refused(capsys, table, out, "--recipe", "kaldi_fbank", "--n-fft", "512")
    assert "--workers 0: give a whole number" in _refused(capsys, table, out, "--workers", "0")
    assert "nowhere.csv: cannot be read (No such file" in _refused(capsys, tmp_path / "nowhere.csv", out)
    assert not out.exists()
    out.write_text("a file in the way")
    assert "cannot be written" in _refused(capsys, table, out)


def test_a_full_disk_is_one_sentence(table, tmp_path, monkeypatch):
    def full(stream, array):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extract.np, "save", full)
    with pytest.raises(InputError, match=r"one.npy: cannot be written \(No space left on device\); free the disk"):
        prepare(read_table(table), tmp_path / "out", FeatureRecipe.load("official"), workers=1, progress=False)
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_what_a_killed_run_left_half_written_goes(table, tmp_path):
    out, ended = tmp_path / "out", subprocess.Popen(["true"])
    ended.wait()
    left = out / "features" / "a" / f".one.npy.{ended.pid}.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    prepare(read_table(table), out, FeatureRecipe.load("official"), workers=1, progress=False)
    assert not left.exists() and (out / "features" / "a" / "one.npy").exists()


def test_the_command_without_arguments_prints_help_and_imports_no_torch():
    code = (
        "import sys; from fairseq_neupronet.cli import main; assert main([]) == 0; assert main(['prepare']) == 0; "
        "assert not {'torch', 'fairseq', 'numpy', 'librosa'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "synthesize" in done.stdout and "vocalsound" in done.stdout and "urbansound8k" in done.stdout
