"""``neupronet prepare --packed``: one zip a split, whatever happens in between."""

import os
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fairseq.data.audio.audio_utils import get_features_or_waveform
from tiny import collated, dataset

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.cli import main
from fairseq_neupronet.data.clip_files import ClipFiles
from fairseq_neupronet.data.manifest import read_manifest
from fairseq_neupronet.preparation import extract, prepare
from fairseq_neupronet.preparation.clips import Clip, Collection

CLIPS = [
    ("deep/er/a.wav", "train"),
    ("deep/b.wav", "train"),
    ("c.wav", "train"),
    ("d.wav", "valid"),
    ("ü.wav", "test"),
    ("deep/f.wav", "test"),
]


@pytest.fixture
def table(tmp_path):
    """Six short clips in three splits, and the table that names them."""
    random = np.random.default_rng(0)
    folder = tmp_path / "source"
    for number, (name, _) in enumerate(CLIPS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, 0.1 * random.normal(size=4000 + 900 * number), 22500)
    write_table(folder / "clips.csv", CLIPS)
    return folder / "clips.csv"


def write_table(path, clips):
    rows = [f"{name},{'xy'[number % 2]},p{number // 2},{split}\n" for number, (name, split) in enumerate(clips)]
    path.write_text("path,label,profile,split\n" + "".join(rows), encoding="utf-8")


def run(table, out, *more):
    options = ["--metadata", str(table), "--out", str(out), "--workers", "1", "--n-mels", "8"]
    return main(["prepare", "table", *options, *more])


@pytest.fixture
def loose(table, tmp_path):
    """The features by member name, prepared loose."""
    assert run(table, tmp_path / "loose") == 0
    features = tmp_path / "loose" / "features"
    return {path.relative_to(features).as_posix(): np.load(path) for path in features.rglob("*.npy")}


@pytest.fixture
def done(monkeypatch):
    """The keys that are computed from now on."""
    keys, original = [], extract._extract_one
    monkeypatch.setattr(extract, "_extract_one", lambda clip, **rest: keys.append(clip.key) or original(clip, **rest))
    return keys


def name_of(clip):
    return os.path.splitext(clip)[0] + ".npy"


def read_rows(out, split):
    """What a split's rows hold, read by fairseq's own reader; columns two and three agree with it."""
    root, *rows = (out / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
    arrays = []
    for row in rows:
        path, n_mels, n_frames, _ = row.split("\t")
        arrays.append(get_features_or_waveform(str(out / root / path)))
        assert arrays[-1].shape == (int(n_mels), int(n_frames))
    return arrays


def holds(out, loose, clips=CLIPS, tolerance=0.0):
    """Whether every manifest there is gives every clip of its split."""
    for manifest in out.glob("*.tsv"):
        wanted = [loose[name_of(name)] for name, split in clips if split == manifest.stem]
        for array, expected in zip(read_rows(out, manifest.stem), wanted, strict=True):
            np.testing.assert_allclose(array, expected, rtol=0, atol=tolerance)
    return len(list(out.glob("*.tsv")))


def files_of(out):
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


MANIFESTS = {"train.tsv", "valid.tsv", "test.tsv", "train.label", "valid.label", "test.label", "dict.label.txt"}
PACKED = MANIFESTS | {f"features/{name}" for name in ("recipe.yaml", "train.zip", "valid.zip", "test.zip")}


def test_one_uncompressed_zip_a_split_that_any_tool_reads(table, tmp_path, loose):
    out = tmp_path / "packed"
    assert run(table, out, "--packed") == 0
    assert files_of(out) == PACKED
    assert not [path for path in (out / "features").iterdir() if path.is_dir()]
    assert holds(out, loose) == 3
    for split in ("train", "valid", "test"):
        with zipfile.ZipFile(out / "features" / f"{split}.zip") as contents:
            assert contents.testzip() is None
            assert contents.namelist() == [name_of(name) for name, each in CLIPS if each == split]
            for entry in contents.infolist():
                assert entry.compress_type == zipfile.ZIP_STORED and entry.external_attr >> 16 == 0o644
                np.testing.assert_array_equal(np.load(contents.open(entry)), loose[entry.filename])
        assert (out / f"{split}.label").read_text() == (tmp_path / "loose" / f"{split}.label").read_text()


def test_a_batch_from_a_zip_is_the_batch_from_loose_files(table, tmp_path, loose):
    assert run(table, tmp_path / "packed", "--packed") == 0
    batches = []
    for out in (tmp_path / "packed", tmp_path / "loose"):
        data = dataset(read_manifest(out / "train.tsv"), training=True, max_sample_size=8)
        batches.append(collated(data, 2, 0, 1)["net_input"]["source"])
    assert batches[0].equal(batches[1])


def test_partitions_share_one_zip(table, tmp_path, loose):
    def clip(name, split):
        return Clip(table.parent / name, "x", "p", split, name.removesuffix(".wav"))

    folds = {
        "fold1": [clip(name, split) for name, split in CLIPS],
        "fold2": [clip(name, "train" if split == "test" else split) for name, split in CLIPS],
    }
    recipe = FeatureRecipe.load("official", n_mels=8)
    for _ in range(2):
        prepare(Collection(table, ["x"], folds), tmp_path / "out", recipe, 1, progress=False, packed=True)
        assert {name for name in files_of(tmp_path / "out/features")} == {"recipe.yaml", "clips.zip"}
        assert holds(tmp_path / "out/fold1", loose) == 3
        assert len(read_rows(tmp_path / "out/fold2", "train")) == 5
        assert not (tmp_path / "out/fold2/test.tsv").exists()


@pytest.mark.parametrize("flags", [(), ("--packed",), ("--packed", "--float16")])
def test_a_second_run_does_nothing(table, tmp_path, done, flags):
    out = tmp_path / "out"
    assert run(table, out, *flags) == 0
    before = {path: path.stat() for path in sorted(out.rglob("*"))}
    done.clear()
    assert run(table, out, *flags) == 0
    after = {path: path.stat() for path in sorted(out.rglob("*"))}
    assert done == []
    assert [(path, each.st_ino, each.st_mtime_ns) for path, each in after.items()] == [
        (path, each.st_ino, each.st_mtime_ns) for path, each in before.items()
    ]


def test_loose_features_are_packed_and_packed_ones_used_without_computing_anything_again(table, tmp_path, loose, done):
    out = tmp_path / "loose"
    for flags in (("--packed",), ()):
        assert run(table, out, *flags) == 0
        assert files_of(out) == PACKED
        assert holds(out, loose) == 3
    assert done == []


def test_without_the_flag_what_is_new_is_loose_beside_what_is_packed(table, tmp_path, loose, done):
    out = tmp_path / "out"
    write_table(table, CLIPS[1:])
    assert run(table, out, "--packed") == 0
    write_table(table, CLIPS)
    done.clear()
    assert run(table, out) == 0
    assert done == ["deep/er/a"] and files_of(out) == {*PACKED, "features/deep/er/a.npy"}
    assert holds(out, loose) == 3
    assert run(table, out, "--packed") == 0
    assert done == ["deep/er/a"] and files_of(out) == PACKED and holds(out, loose) == 3


def test_only_what_changed_is_computed_again(table, tmp_path, loose, done):
    out = tmp_path / "packed"
    assert run(table, out, "--packed") == 0
    done.clear()
    rng = np.random.default_rng(9)
    soundfile.write(table.parent / "deep/b.wav", 0.1 * rng.normal(size=9000), 22500)
    later = time.time() + 1
    os.utime(table.parent / "deep/b.wav", (later, later))
    time.sleep(1.1)
    valid = (out / "features/valid.zip").stat().st_ino
    for computed in (["deep/b"], []):
        assert run(table, out, "--packed") == 0
        assert done == computed
        done.clear()
    assert (out / "features/valid.zip").stat().st_ino == valid
    assert run(table, tmp_path / "again") == 0
    loose["deep/b.npy"] = np.load(tmp_path / "again/features/deep/b.npy")
    assert files_of(out) == PACKED and holds(out, loose) == 3


def test_audio_that_changes_while_a_run_goes_on_is_newer_than_its_zip(table, tmp_path, monkeypatch, done):
    recorder = extract._extract_one

    def touching(clip, **rest):
        result = recorder(clip, **rest)
        os.utime(clip.path)
        return result

    monkeypatch.setattr(extract, "_extract_one", touching)
    assert run(table, tmp_path / "out", "--packed") == 0
    done.clear()
    assert run(table, tmp_path / "out", "--packed") == 0
    assert len(done) == 6


def test_a_damaged_member_is_computed_again(table, tmp_path, loose, done):
    out = tmp_path / "packed"
    assert run(table, out, "--packed") == 0
    done.clear()
    with zipfile.ZipFile(out / "features/train.zip") as contents:
        members = {name: contents.read(name) for name in contents.namelist()}
    members["deep/b.npy"] = members["deep/b.npy"][:-4]
    members["c.npy"] = b"no array"
    with zipfile.ZipFile(out / "features/train.zip", "w") as contents:
        for name, data in members.items():
            contents.writestr(name, data)
    assert run(table, out, "--packed") == 0
    assert done == ["deep/b", "c"]
    assert files_of(out) == PACKED and holds(out, loose) == 3


def test_a_damaged_zip_is_made_again(table, tmp_path, loose, done):
    out = tmp_path / "packed"
    assert run(table, out, "--packed") == 0
    done.clear()
    path = out / "features" / "train.zip"
    path.write_bytes(path.read_bytes()[:-30])
    (out / "features" / ".train.zip.123.tmp").write_text("left by a run that was killed")
    assert run(table, out, "--packed") == 0
    assert done == ["deep/er/a", "deep/b", "c"]
    assert files_of(out) == PACKED and holds(out, loose) == 3


def test_a_clip_that_changes_its_split_moves_and_one_that_is_unlisted_stays(table, tmp_path, loose, done):
    out = tmp_path / "packed"
    assert run(table, out, "--packed") == 0
    done.clear()
    moved = [("deep/er/a.wav", "test"), ("c.wav", "train"), ("d.wav", "train"), ("ü.wav", "test")]
    for clips in (moved, [*moved, *CLIPS[-1:]], [(name, "train") for name, _ in CLIPS], CLIPS):
        write_table(table, clips)
        assert run(table, out, "--packed") == 0
        assert holds(out, loose, clips) == len({split for _, split in clips})
        for manifest in out.glob("*.tsv"):
            assert all(row.startswith(f"{manifest.stem}.zip:") for row in manifest.read_text().splitlines()[1:])
        assert not list((out / "features").rglob("*.npy"))
    assert done == []


# ---- half precision ------------------------------------------------------------------------------------------------


def test_half_precision_costs_what_its_docstring_says(table, tmp_path, loose):
    out = tmp_path / "half"
    assert run(table, out, "--packed", "--float16") == 0
    assert {array.dtype for array in read_rows(out, "train")} == {np.dtype(np.float16)}
    assert holds(out, loose, tolerance=0.0625) == 3
    assert max(array.max() for array in loose.values()) == 255
    manifest = read_manifest(out / "train.tsv")
    largest = 0.0
    for number, (name, _) in enumerate(CLIPS[:3]):
        read = ClipFiles(manifest.root).read(manifest.clips[number], 8, int(manifest.frames[number]), "here")
        assert read.dtype == np.float32
        error, expected = np.abs(read - loose[name_of(name)]), loose[name_of(name)]
        assert (error <= np.maximum(expected * 2.0**-11, 2.0**-25)).all()
        assert error[(expected >= 4) & (expected < 8)].max(initial=0) <= 2.0**-9
        largest = max(largest, error[expected >= 128].max())
    assert 0.05 < largest <= 0.0625
    loose_bytes = (tmp_path / "loose/features/c.npy").stat().st_size - 128
    assert int((out / "train.tsv").read_text().splitlines()[3].split("\t")[0].split(":")[2]) == loose_bytes / 2 + 128


@pytest.mark.parametrize("flags", [(), ("--packed",)])
def test_full_precision_cannot_be_made_of_half(table, tmp_path, capsys, flags):
    out = tmp_path / "half"
    assert run(table, out, "--packed", "--float16") == 0
    before = {name: (out / name).read_bytes() for name in files_of(out)}
    capsys.readouterr()
    assert run(table, out, *flags) == 1
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert "train.zip: holds features at half precision" in sentence and "go on with --packed --float16" in sentence
    assert {name: (out / name).read_bytes() for name in files_of(out)} == before


def test_packed_features_are_halved_without_computing_them_again(table, tmp_path, loose, done):
    out = tmp_path / "loose"
    assert run(table, out, "--packed") == 0
    assert run(table, out, "--packed", "--float16") == 0
    assert done == []
    assert files_of(out) == PACKED and holds(out, loose, tolerance=0.0625) == 3


def test_values_that_half_precision_cannot_hold_are_refused(table, tmp_path, capsys):
    recipe = tmp_path / "loud.yaml"
    fields = ("kind: mel_db", "sample_rate: 22500", "hop_length: 512", "n_fft: 2048", "top_db: 80", "scale: 1.0e+6")
    recipe.write_text("\n".join([*fields, "n_mels: 8\n"]))
    assert run(table, tmp_path / "out", "--recipe", str(recipe), "--packed", "--float16") == 1
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert "train.zip: deep/er/a.npy reaches 1e+06, more than half precision holds; leave out --float16" in sentence
    assert not list((tmp_path / "out").glob("*.tsv"))
    assert run(table, tmp_path / "out", "--recipe", str(recipe), "--packed") == 0


def test_half_precision_is_for_packed_features(table, tmp_path, capsys):
    assert run(table, tmp_path / "out", "--float16") == 1
    assert "--float16: loose features are float32; add --packed" in capsys.readouterr().err


# ---- interruptions -------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def killed_at(monkeypatch, point, names=("replace", "unlink", "rmdir", "utime", "mkdir")):
    """From the given call on, nothing changes the disk any more, as if the process had gone."""
    calls = 0

    def dying(original):
        def call(*arguments, **keywords):
            nonlocal calls
            calls += 1
            if calls >= point:
                raise Killed
            return original(*arguments, **keywords)

        return call

    for name in names:
        monkeypatch.setattr(os, name, dying(getattr(os, name)))


CHANGED = [("deep/er/a.wav", "test"), *CLIPS[1:]]


@pytest.mark.parametrize(
    ("first", "second", "clips", "tolerance"),
    [
        ((), ("--packed",), CLIPS, 0),
        (("--packed",), ("--packed",), CHANGED, 0),
        (("--packed",), ("--packed", "--float16"), CHANGED, 0.0625),
        ((), ("--packed", "--float16"), CLIPS, 0.0625),
    ],
)
def test_a_run_killed_at_any_point_loses_nothing(
    table, tmp_path, loose, done, monkeypatch, first, second, clips, tolerance
):
    assert run(table, tmp_path / "start", *first) == 0
    write_table(table, clips)
    assert run(table, tmp_path / "whole", *second) == 0
    done.clear()
    for point in range(1, 200):
        out = tmp_path / f"out{point}"
        shutil.copytree(tmp_path / "start", out)
        with monkeypatch.context() as patch:
            killed_at(patch, point)
            try:
                run(table, out, *second)
                survived = True
            except Killed:
                survived = False
        for manifest in out.glob("*.tsv"):  # each is of before or of after, and fits what lies beside it
            rows = [loose[name_of(name)] for name, split in clips if split == manifest.stem]
            before = [loose[name_of(name)] for name, split in CLIPS if split == manifest.stem]
            read = read_rows(out, manifest.stem)
            for array, expected in zip(read, rows if len(read) == len(rows) else before, strict=True):
                np.testing.assert_allclose(array, expected, rtol=0, atol=tolerance)
        assert run(table, out, *second) == 0
        assert done == []
        whole = tmp_path / "whole"
        assert {name for name in files_of(out) if "/." not in name} == files_of(whole)
        for name in {name for name in files_of(whole) if name.endswith((".npy", ".label", ".txt"))}:
            assert (out / name).read_bytes() == (whole / name).read_bytes()
        assert holds(out, loose, clips, tolerance) == 3
        if survived:
            break
        shutil.rmtree(out)
    assert survived and point > 10


def test_an_interrupted_extraction_goes_on_where_it_was(table, tmp_path, loose, monkeypatch, done):
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, 5, names=("replace",))
        run(table, out, "--packed")
    assert len(done) == 4  # the recipe was the first file
    done.clear()
    assert run(table, out, "--packed") == 0
    assert done == ["d", "ü", "deep/f"]
    assert files_of(out) - {name for name in files_of(out) if "/." in name} == PACKED and holds(out, loose) == 3


def test_the_zips_are_the_same_bytes_whichever_features_were_there_before(table, tmp_path):
    assert run(table, tmp_path / "unbroken", "--packed") == 0
    out = tmp_path / "out"
    assert run(table, out) == 0
    for name in ("deep/er/a.npy", "ü.npy"):  # the first of their splits
        (out / "features" / name).unlink()
    assert run(table, out, "--packed") == 0
    for name in PACKED:
        assert (out / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name


def test_a_full_disk_while_packing_leaves_the_loose_features(table, tmp_path, loose, monkeypatch, done, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    out = tmp_path / "loose"
    before = {name: (out / name).read_bytes() for name in files_of(out)}
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "writestr", full)
        assert run(table, out, "--packed") == 1
    assert "train.zip: cannot be written (No space left on device); free the disk" in capsys.readouterr().err
    assert {name: (out / name).read_bytes() for name in files_of(out)} == before
    assert run(table, out, "--packed") == 0 and done == []


def test_foreign_zips_are_not_taken_for_features(table, tmp_path, capsys):
    features = Path(tmp_path / "out/features")
    features.mkdir(parents=True)
    with zipfile.ZipFile(features / "train.zip", "w") as contents:
        contents.writestr("c.npy", "x")
    assert run(table, tmp_path / "out", "--packed") == 1
    assert "holds features (train.zip, …) but no recipe.yaml" in capsys.readouterr().err
