"""``neupronet prepare icbhi``: cycles cut by annotation, patients as profiles, the official split."""

import shutil
from collections import Counter
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile
import tiny
from icbhi_folder import RATES, recordings, write_icbhi

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.cli import main
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.preparation.icbhi import read_icbhi

CLASSES = ["normal", "crackle", "wheeze", "both"]
SPLIT_FILE = "ICBHI_challenge_train_test.txt"
FIRST = recordings()[0].name


def class_of(crackles, wheezes):
    return {(0, 0): "normal", (1, 0): "crackle", (0, 1): "wheeze", (1, 1): "both"}[crackles, wheezes]


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("icbhi") / "ICBHI"
    write_icbhi(root)
    return root


@pytest.fixture
def root(shared_root, tmp_path):
    """A copy to spoil."""
    return Path(shutil.copytree(shared_root, tmp_path / "ICBHI"))


def _prepare(root, out, *more):
    return main(["prepare", "icbhi", "--root", str(root), "--out", str(out), "--workers", "1", *more])


@pytest.fixture(scope="session")
def prepared(shared_root, tmp_path_factory):
    """The folder, and what the command printed."""
    out = tmp_path_factory.mktemp("icbhi_p") / "out"
    done = tiny.command("neupronet", "prepare", "icbhi", "--root", shared_root, "--out", out, cwd=out.parent)
    assert done.returncode == 0, done.stderr
    assert "mel filterbank" not in done.stderr  # torchaudio's and librosa's warning
    return out, done.stdout


def _manifest(out, split):
    columns = ["path", "mels", "frames", "patient"]
    rows = pd.read_csv(out / f"{split}.tsv", sep="\t", skiprows=1, header=None, names=columns)
    return rows.assign(label=(out / f"{split}.label").read_text().split())


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_the_recording_of_each_cycle_is_its_wav_file(prepared, split):
    out, _ = prepared
    paths = _manifest(out, split).path
    assert (out / f"{split}.recording").read_text().splitlines() == [path.split("/")[0] for path in paths]


def test_manifests_by_the_official_split(prepared):
    out, printed = prepared
    made = recordings()
    valid_patients = set(_manifest(out, "valid").patient.astype(str))
    assert len(valid_patients) == 2  # a fifth of the ten that lie in train only
    assert not valid_patients & {each.patient for each in made if each.split == "test"}
    for split in ("train", "valid", "test"):
        expected = [
            (f"{each.name}/{start}-{end}.npy", each.patient, class_of(crackles, wheezes))
            for each in made
            if split == ("valid" if each.patient in valid_patients else each.split)
            for start, end, crackles, wheezes in each.cycles
        ]
        rows = _manifest(out, split)
        assert list(zip(rows.path, rows.patient.astype(str), rows.label, strict=True)) == expected
        assert set(rows.mels) == {192}
    counts = Counter(_manifest(out, "train").label)
    assert (out / "dict.label.txt").read_text() == "".join(f"{name} {counts[name]}\n" for name in CLASSES)
    assert FeatureRecipe.read(out / "features") == FeatureRecipe.load("icbhi")
    drawn = ", ".join(sorted(valid_patients))
    assert f"validation: 2 of the 10 patients that lie in train only: {drawn}\n" in printed
    assert "official split: 1 of 4 test patients lie in train as well (156), with 2 test recordings; they" in printed
    assert printed.count("31 of 192 mel bands hold no frequency bin") == 1


def test_features_are_those_of_the_cut_cycle(prepared, shared_root):
    """Cut, resampled and transformed by librosa."""
    out, _ = prepared
    recipe = FeatureRecipe.load("icbhi")
    seen = set()
    for recording in recordings():
        rate = RATES[recording.name.split("_")[-1]]
        if rate in seen:
            continue
        seen.add(rate)
        wave, found = soundfile.read(shared_root / "ICBHI_final_database" / f"{recording.name}.wav")
        assert found == rate
        for start, end, *_ in recording.cycles:
            features = np.load(out / "features" / recording.name / f"{start}-{end}.npy")
            cycle = wave[round(start * rate) : round(end * rate)].astype(np.float32)
            cycle = librosa.resample(cycle, orig_sr=rate, target_sr=recipe.sample_rate, res_type="soxr_hq")
            sizes = {"sr": recipe.sample_rate, "n_fft": 256, "hop_length": 32, "n_mels": 192}
            with pytest.warns(UserWarning, match="Empty filters"):
                mel = librosa.feature.melspectrogram(y=cycle, **sizes)
            expected = librosa.power_to_db(mel, ref=np.max)
            expected = (expected - expected.min()) / (expected.max() - expected.min()) * 255
            assert features.shape == expected.shape and np.isfinite(features).all()
            # Two resamplers differ above what the lower rate holds, and there only.
            centres = librosa.mel_frequencies(194, fmin=0, fmax=recipe.sample_rate / 2)[1:-1]
            band = centres < 0.4 * min(rate, recipe.sample_rate)
            assert np.abs(features - expected)[band].mean() < 1
    assert seen == {4000, 10000, 44100}


def test_a_recording_is_decoded_once_in_all(root, tmp_path, monkeypatch):
    frames, read = Counter(), soundfile.SoundFile.read

    def counting_read(file, *arguments, **options):
        frames[Path(file.name).stem] += len(samples := read(file, *arguments, **options))
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", counting_read)
    assert _prepare(root, tmp_path / "out") == 0
    for recording in recordings():
        length = soundfile.info(root / "ICBHI_final_database" / f"{recording.name}.wav").frames
        assert 0.5 * length < frames[recording.name] <= length


def test_a_changed_annotation_is_cut_anew(root, tmp_path):
    assert _prepare(root, tmp_path / "out") == 0
    annotation = root / "ICBHI_final_database" / f"{FIRST}.txt"
    first = annotation.read_text().splitlines()[0].split("\t")
    annotation.write_text(annotation.read_text().replace("\t".join(first), "\t".join([first[0], "0.3", *first[2:]])))
    assert _prepare(root, tmp_path / "out") == 0
    rows = pd.concat([_manifest(tmp_path / "out", split) for split in ("train", "valid")])
    frames = dict(zip(rows.path, rows.frames, strict=True))
    assert f"{FIRST}/0.036-{first[1]}.npy" not in frames
    assert frames[f"{FIRST}/0.036-0.3.npy"] == 1 + round(0.264 * 10667) // 32


def test_a_fifth_of_the_patients_of_train_only_is_validated_on(shared_root):
    clips = read_icbhi(shared_root).clips()
    splits = ("train", "valid", "test")
    train, valid, test = ({clip.profile for clip in clips if clip.split == split} for split in splits)
    assert not valid & (train | test) and test == {"104", "109", "156", "226"} and "156" in train
    assert len(valid) == 2
    assert {clip.profile for clip in read_icbhi(shared_root).clips() if clip.split == "valid"} == valid


def test_recordings_and_split_file_may_stand_in_one_folder(root):
    expected = len(read_icbhi(root).clips())
    folder = root / "ICBHI_final_database"
    (root / SPLIT_FILE).rename(folder / SPLIT_FILE)
    assert len(read_icbhi(folder).clips()) == len(read_icbhi(root).clips()) == expected


def test_ends_a_moment_after_the_recording_are_cut_there(root):
    annotation = root / "ICBHI_final_database" / f"{FIRST}.txt"
    *lines, last = annotation.read_text().splitlines()
    end = float(last.split("\t")[1])
    annotation.write_text("\n".join([*lines, last.replace(str(end), f"{end + 0.14:.3f}")]))  # it has 0.1 s after it
    collection = read_icbhi(root)
    count = len(collection.clips())
    assert f"1 of {count} cycles end after their recording, by 0.040 s at most, and are cut there" in collection.notes


def test_missing_recordings_are_refused_or_left_out(root):
    for suffix in ("wav", "txt"):
        (root / "ICBHI_final_database" / f"{FIRST}.{suffix}").unlink()
    message = rf"{SPLIT_FILE}, line 1: no recording .*{FIRST}.wav \(1 of 30 recordings are missing\)"
    with pytest.raises(InputError, match=message):
        read_icbhi(root)
    collection = read_icbhi(root, allow_missing=True)
    assert len({clip.path for clip in collection.clips()}) == 29
    assert f"left out 1 of 30 recordings that are missing, the first {FIRST}.wav (--allow-missing)" in collection.notes


@pytest.mark.parametrize(
    "line, message",
    [
        ("0.036\t0.5\t0", r"3 columns where 4 are wanted \(start, end, crackles, wheezes\); correct the line"),
        ("0.5\t0.036\t0\t0", "the cycle ends at 0.036 s and starts at 0.5 s; correct them"),
        ("0.5\t0.5\t0\t0", "the cycle ends at 0.5 s and starts at 0.5 s; correct them"),
        ("0.036\t99\t0\t0", rf"the cycle ends at 99 s, but {FIRST}.wav lasts \d.\d\d\d s; correct the annotation"),
        ("0.036\t0,5\t0\t0", "'0,5' is no time; give seconds from the recording's start"),
        ("-0.1\t0.5\t0\t0", "'-0.1' is no time"),
        ("nan\t0.5\t0\t0", "'nan' is no time"),
        ("0.036\tinf\t0\t0", "'inf' is no time"),
        ("0.036\t0.5\t0\t2", "crackles and wheezes are '0' and '2'; give 0 or 1"),
        ("0.040 0.5 0 0\n\n0.040 0.50 1 0", "line 4: the cycle is already in line 2; take one of them out"),
    ],
)
def test_mistakes_in_an_annotation(root, tmp_path, capsys, line, message):
    annotation = root / "ICBHI_final_database" / f"{FIRST}.txt"
    first, *others = annotation.read_text().splitlines()
    annotation.write_text("\n".join([first, line, *others[1:]]))
    at = "" if message.startswith("line") else "line 2: "
    with pytest.raises(InputError, match=f"ICBHI_final_database/{FIRST}.txt, {at}{message}"):
        read_icbhi(root)
    assert _prepare(root, tmp_path / "out") == 1
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "line, message",
    [
        (f"{FIRST}\tvalid", "the split is 'valid'; give train or test"),
        (f"{FIRST}", r"1 columns where 2 are wanted \(recording, train or test\); correct the line"),
        ("101_1b1\ttrain", "recording '101_1b1' is not named PATIENT_INDEX_LOCATION_MODE_DEVICE; correct it"),
        ("../a_b_c_d_e\ttrain", "recording '../a_b_c_d_e' is not named"),
        (
            "999_1b1_Al_sc_Meditron\ttest",
            r"no recording .*999_1b1_Al_sc_Meditron.wav \(1 of 31 recordings are missing\)",
        ),
        (f"{FIRST}\ttest", f"{FIRST} is already in line 1; take one of them out"),
    ],
)
def test_mistakes_in_the_split_file(root, line, message):
    source = root / SPLIT_FILE
    lines = source.read_text().splitlines()
    source.write_text("\n".join([lines[0], line, *lines[1:]]))
    with pytest.raises(InputError, match=f"{SPLIT_FILE}, line 2: {message}"):
        read_icbhi(root)


def test_other_folders_are_refused(root, tmp_path):
    folder = root / "ICBHI_final_database"
    with pytest.raises(InputError, match=f"holds no {SPLIT_FILE}, the official split; put the file from https://bhi"):
        read_icbhi(tmp_path)
    annotation, audio = folder / f"{FIRST}.txt", folder / f"{FIRST}.wav"
    text = annotation.read_bytes()
    for content, message in ((b"\n", "holds no respiratory cycle"), (b"\xff\xfe\x00", "is not a text file")):
        annotation.write_bytes(content)
        with pytest.raises(InputError, match=f"{FIRST}.txt: {message}"):
            read_icbhi(root)
    annotation.unlink()
    with pytest.raises(InputError, match=rf"{FIRST}.txt: cannot be read \(No such file or directory\); restore it"):
        read_icbhi(root)
    annotation.write_bytes(text)
    audio.write_bytes(b"RIFF")
    with pytest.raises(InputError, match=f"{FIRST}.wav: does not decode as audio"):
        read_icbhi(root)
    shutil.copy(folder / f"{recordings()[1].name}.wav", audio)
    shutil.copy(audio, folder / "300_1b1_Al_sc_Meditron.wav")
    with pytest.raises(InputError, match=rf"300_1b1_Al_sc_Meditron.wav: is not in .*{SPLIT_FILE} \(1 such"):
        read_icbhi(root)
    (root / SPLIT_FILE).write_text("\n")
    with pytest.raises(InputError, match=f"{SPLIT_FILE}: lists no recordings"):
        read_icbhi(root)
