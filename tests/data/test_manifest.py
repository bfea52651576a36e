"""Manifests, labels and dictionaries: what is read, and the sentence for what cannot be."""

import re
import subprocess
import sys

import numpy as np
import pytest
from many_clips import write_many_clips

from fairseq_neupronet.data.manifest import read_classes, read_labels, read_manifest
from fairseq_neupronet.errors import InputError


def manifest_file(folder, *rows, root="features", name="train.tsv"):
    path = folder / name
    path.write_text("\n".join([str(root), *("\t".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


FOUR = [("a.npy", 8, 20, "alice"), ("b.npy", 8, 31, "bob"), ("c.npy", 8, 22, "alice")]


def test_four_columns(tmp_path):
    manifest = read_manifest(manifest_file(tmp_path, *FOUR), profiling=True)
    assert list(manifest.clips) == ["a.npy", "b.npy", "c.npy"]
    assert manifest.n_mels == 8
    assert manifest.frames.tolist() == [20, 31, 22]
    assert [manifest.profile_names[code] for code in manifest.profiles] == ["alice", "bob", "alice"]
    assert manifest.profiles[0] == manifest.profiles[2] != manifest.profiles[1]


def test_profiles_of_the_fourth_column_are_kept_without_profiling(tmp_path):
    manifest = read_manifest(manifest_file(tmp_path, *FOUR), profiling=False)
    assert manifest.profiles.tolist() == [0, 1, 0]


def test_three_columns_have_no_profiles_without_profiling(tmp_path):
    manifest = read_manifest(manifest_file(tmp_path, ("a.npy", 8, 20)), profiling=False)
    assert manifest.profiles is None
    assert manifest.profile_names == []


def test_three_columns_take_the_name_without_its_last_17_characters(tmp_path):
    rows = [("fold1/7061-6_mel_2048_128.npy", 8, 20), ("7061-6_mel_2048_128.npy", 8, 20), ("99_mel_2048_128.npy", 8, 9)]
    manifest = read_manifest(manifest_file(tmp_path, *rows), profiling=True)
    assert [manifest.profile_names[code] for code in manifest.profiles] == ["7061-6", "7061-6", "99"]


def test_names_that_do_not_end_as_the_official_ones_give_no_profile(tmp_path):
    path = manifest_file(tmp_path, ("x_mel_2048_128.npy", 8, 20), ("f0003_0_cough.npy", 8, 20))
    with pytest.raises(InputError, match=r"train\.tsv:3: no profile column.*f0003_0_cough\.npy.*task\.profiling=false"):
        read_manifest(path, profiling=True)


@pytest.mark.parametrize("name", ["101_1b1_mel_256_192.npy", "101_1b1_mel_22050_128.npy"])
def test_names_of_other_recipes_are_told_the_cure(tmp_path, name):
    """Their endings have 16 or 18 characters: 17 off would leave half a profile."""
    path = manifest_file(tmp_path, (name, 8, 20))
    cure = r"add the profile as fourth column, or do without profiles \(task\.profiling=false"
    with pytest.raises(InputError, match=rf"train\.tsv:2: no profile column.*{name}.*_mel_2048_128\.npy.*{cure}"):
        read_manifest(path, profiling=True)


def test_a_relative_root_starts_at_the_manifest_and_an_absolute_one_stands(tmp_path):
    assert read_manifest(manifest_file(tmp_path, *FOUR)).root == tmp_path / "features"
    assert read_manifest(manifest_file(tmp_path, *FOUR, root="/elsewhere/x")).root.as_posix() == "/elsewhere/x"


def test_an_empty_profile_is_a_group_of_one(tmp_path):
    rows = [("a.npy", 8, 20, ""), ("b.npy", 8, 20, ""), ("c.npy", 8, 20, "x"), ("d.npy", 8, 20, "x")]
    manifest = read_manifest(manifest_file(tmp_path, *rows), profiling=True)
    assert len(set(manifest.profiles.tolist())) == 3
    assert manifest.profiles[2] == manifest.profiles[3]


def test_an_empty_profile_in_the_last_row_survives_a_missing_line_end(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("features\na.npy\t8\t20\tx\nb.npy\t8\t20\t", encoding="utf-8")
    assert len(read_manifest(path, profiling=True)) == 2


def test_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_bytes(b"features\r\na.npy\t8\t20\tx\r\n")
    manifest = read_manifest(path, profiling=True)
    assert manifest.root.name == "features"
    assert list(manifest.profile_names) == ["x"]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], r"train\.tsv: the manifest has a folder line and no clip"),
        ([("a.npy", 8)], r"train\.tsv:2: 2 column\(s\), 3 or 4 are wanted"),
        ([("a.npy",)], r"train\.tsv:2: 1 column\(s\)"),
        ([("a.npy", 8, 20, "p", "q")], r"train\.tsv:2: 5 column\(s\)"),
        ([("", 8, 20, "p")], r"train\.tsv:2: .*path"),
        ([FOUR[0], ("b.npy", 8, 20)], r"train\.tsv:3: 3 columns where line 2 has 4"),
        ([FOUR[0], ("b.npy", "eight", 20, "p")], r"train\.tsv:3: n_mels is 'eight', a positive whole number"),
        ([FOUR[0], ("b.npy", 8, "2e1", "p")], r"train\.tsv:3: n_frames is '2e1', a positive whole number"),
        ([("a.npy", 8, 0, "p")], r"train\.tsv:2: n_frames is '0'"),
        ([("a.npy", 8, -3, "p")], r"train\.tsv:2: n_frames is '-3'"),
        ([FOUR[0], ("b.npy", 16, 20, "p")], r"train\.tsv:3: 16 mel bands where line 2 has 8"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path, rows, sentence):
    with pytest.raises(InputError, match=sentence):
        read_manifest(manifest_file(tmp_path, *rows))


def test_a_blank_line_is_named(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("features\na.npy\t8\t20\tx\n\nb.npy\t8\t20\tx\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"train\.tsv:3: "):
        read_manifest(path)


def test_missing_and_empty_files_are_named_with_a_cure(tmp_path):
    with pytest.raises(InputError, match=r"train\.tsv: no such manifest; .*neupronet prepare.*task\.data"):
        read_manifest(tmp_path / "train.tsv")
    (tmp_path / "train.tsv").write_text("")
    with pytest.raises(InputError, match=r"train\.tsv: the manifest is empty; .*neupronet prepare"):
        read_manifest(tmp_path / "train.tsv")


def test_a_manifest_that_is_no_text_is_named(tmp_path):
    (tmp_path / "train.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"train\.tsv: not UTF-8 text"):
        read_manifest(tmp_path / "train.tsv")


def test_a_row_without_tabs_before_one_with_twice_as_many(tmp_path):
    with pytest.raises(InputError, match=r"train\.tsv:3: 1 column\(s\), 3 or 4 are wanted"):
        read_manifest(manifest_file(tmp_path, FOUR[0], ("b.npy",), (*FOUR[1][:3], *FOUR[2])))


def test_a_mistake_far_down_is_named_before_those_below_it(tmp_path):
    rows = [("a.npy", 8, 20, "p")] * 500 + [("b.npy", 8, "x", "p"), ("c.npy", 8, 20), ("", 8, 20, "p")]
    with pytest.raises(InputError, match=r"train\.tsv:502: n_frames is 'x'"):
        read_manifest(manifest_file(tmp_path, *rows))


@pytest.mark.parametrize("number", ["2147483648", "9999999999999999999999", "1" + "0" * 5000])
def test_numbers_that_no_clip_can_have_are_refused(tmp_path, number):
    with pytest.raises(InputError, match=r"train\.tsv:3: n_frames is above 2147483647; a row is path"):
        read_manifest(manifest_file(tmp_path, FOUR[0], ("b.npy", 8, number, "p")))


def test_leading_zeros_are_digits(tmp_path):
    manifest = read_manifest(manifest_file(tmp_path, ("a.npy", "008", "0" * 30 + "21", "p"), ("b.npy", 8, 5, "p")))
    assert manifest.n_mels == 8
    assert manifest.frames.tolist() == [21, 5]


@pytest.mark.parametrize("separator", ["\v", "\f", "\x1c", "\x85", "\u2028", "\r"])
def test_a_line_ends_at_a_line_feed_and_nowhere_else(tmp_path, separator):
    path = tmp_path / "train.tsv"
    path.write_bytes(f"features\na{separator}b.npy\t8\t20\tx{separator}y\r\nc.npy\t8\t21\tx".encode())
    manifest = read_manifest(path, profiling=True)
    assert list(manifest.clips) == [f"a{separator}b.npy", "c.npy"]
    assert list(manifest.profile_names) == [f"x{separator}y", "x"]
    (tmp_path / "train.label").write_bytes(f"one{separator}word\r\nother".encode())
    classes = [f"one{separator}word", "other"]
    assert read_labels(manifest, classes, classes).tolist() == [0, 1]


def test_names_of_any_script_are_read_and_the_byte_that_is_not_utf8_is_named(tmp_path):
    rows = [("größe/音.npy", 8, 20, "Zoë"), ("größe/🎵.npy", 8, 21, "Zoe"), ("b.npy", 8, 9, "Zoë")]
    path = manifest_file(tmp_path, *rows)
    manifest = read_manifest(path, profiling=True)
    assert list(manifest.clips) == [row[0] for row in rows]
    assert [manifest.profile_names[code] for code in manifest.profiles] == ["Zoë", "Zoe", "Zoë"]
    data = path.read_bytes() * 300_000  # more than is decoded at once
    path.write_bytes(data[:-40] + b"\xff" + data[-40:])
    with pytest.raises(InputError, match=rf"not UTF-8 text \(byte {len(data) - 40}\); save the manifest as UTF-8"):
        read_manifest(path)


@pytest.mark.parametrize("name", ["_mel_2048_128.npy", "x/_mel_1_234567.npy", "a/b/é_mel_123456_7.npy"])
def test_names_of_the_official_form(tmp_path, name):
    manifest = read_manifest(manifest_file(tmp_path, (name, 8, 20)), profiling=True)
    expected = name.rpartition("/")[2][:-17]
    assert manifest.profile_names[0] == (expected or f"clip:{name}")


@pytest.mark.parametrize(
    "name",
    [
        "ab_mel_2048128_.npy",
        "ab_mel__2048128.npy",
        "ab_mel_20_48128_npy",
        "x_mel_204_8_12.npy",
        "_mel_2048_128.np",
        "x_mel/2048_128.npy",
        "x_mel_2048/128.npy",
        "X_MEL_2048_128.npy",
    ],
)
def test_names_of_nearly_the_official_form(tmp_path, name):
    path = manifest_file(tmp_path, ("x_mel_2048_128.npy", 8, 20), (name, 8, 20))
    with pytest.raises(InputError, match=r"train\.tsv:3: no profile column"):
        read_manifest(path, profiling=True)
    assert len(read_manifest(path, profiling=False)) == 2


def plainly(text, profiling):
    """The reading of a manifest, written as a loop. Returns None where a row is not as it should be."""
    rows = [line.removesuffix("\r").split("\t") for line in text.removesuffix("\n").split("\n")[1:]]
    profiles = {}
    for number, row in enumerate(rows):
        if len(row) not in (3, 4) or len(row) != len(rows[0]) or row[0] == "":
            return None
        if not all(re.fullmatch("[0-9]+", cell) and 0 < int(cell) < 2**31 for cell in row[1:3]):
            return None
        if int(row[1]) != int(rows[0][1]):
            return None
        name = row[3] if len(row) == 4 else row[0].split("/")[-1][:-17]
        if len(row) == 3 and profiling and not re.fullmatch(r"_mel_[0-9]+_[0-9]+\.npy", row[0].split("/")[-1][-17:]):
            return None
        profiles.setdefault(name or f"clip:{row[0]}", []).append(number)
    named = profiling or len(rows[0]) == 4
    return [row[0] for row in rows], [int(row[2]) for row in rows], list(profiles.items()) if named else []


def test_whatever_is_written_is_read_or_refused_as_by_a_plain_loop(tmp_path):
    rng = np.random.default_rng(0)
    accepted = refused = 0
    for _ in range(2000):
        n_columns = rng.choice([3, 4])
        lines = ["features"]
        for number in range(rng.integers(1, 5)):
            name = rng.choice(["a.npy", "b/ä_mel_2048_128.npy", "_mel_2048_128.npy"], p=[0.1, 0.8, 0.1])
            cells = [f"{number}{name}", "8", str(rng.integers(1, 300)), rng.choice(["x", "", "a longer name", "x "])]
            cells = cells[:n_columns]
            if rng.random() < 0.1:
                odd = ["", "0", "8", "-1", "٣", "²", "1e3", "4294967296", "\t", " 8"]
                cells[rng.integers(len(cells))] = rng.choice(odd)
            lines.append("\t".join(cells) + rng.choice(["", "\r"], p=[0.9, 0.1]))
        text = "\n".join(lines) + rng.choice(["", "\n", "\n\n"], p=[0.4, 0.5, 0.1])
        (tmp_path / "train.tsv").write_bytes(text.encode())
        for profiling in (True, False):
            expected = plainly(text, profiling)
            if expected is None:
                refused += 1
                with pytest.raises(InputError, match=r"train\.tsv:\d+: "):
                    read_manifest(tmp_path / "train.tsv", profiling)
            else:
                accepted += 1
                manifest = read_manifest(tmp_path / "train.tsv", profiling)
                codes = [] if manifest.profiles is None else manifest.profiles.tolist()
                members = [
                    (name, [row for row, each in enumerate(codes) if each == code])
                    for code, name in enumerate(manifest.profile_names)
                ]
                assert (list(manifest.clips), manifest.frames.tolist(), members) == expected
    assert accepted > 500 and refused > 500


@pytest.mark.slow
def test_a_million_rows_fit_in_300_mib(tmp_path):
    path = write_many_clips(tmp_path, 1_000_000)
    program = (
        "import resource, sys\nfrom fairseq_neupronet.data.manifest import read_manifest\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\nbefore = peak()\n"
        "manifest = read_manifest(sys.argv[1], profiling=True)\n"
        "print(len(manifest), manifest.clips[999_999], len(manifest.profile_names), peak() - before)"
    )
    finished = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    *read, growth = finished.stdout.split()
    assert read == ["1000000", "recordings/many_clips_0049_throatclearing.npy", "142858"]
    assert float(growth) <= 300


# ---- dictionary and labels -----------------------------------------------------------------------------------------


def test_classes_are_the_lines_in_order(tmp_path):
    path = tmp_path / "dict.label.txt"
    path.write_text("sniff 7\nthroat clearing 3\ncough 5\n", encoding="utf-8")
    assert read_classes(path) == ["sniff", "throat clearing", "cough"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"dict\.label\.txt: no such class dictionary"),
        ("", r"dict\.label\.txt: the class dictionary is empty"),
        ("cough\n", r"dict\.label\.txt:1: 'cough' is not 'class count'"),
        ("cough 3\nlaugh many\n", r"dict\.label\.txt:2: 'laugh many' is not 'class count'"),
        ("cough 3\nlaugh 1\ncough 2\n", r"dict\.label\.txt:3: class 'cough' is on line 1 already"),
    ],
)
def test_a_bad_dictionary_is_named(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "dict.label.txt").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=sentence):
        read_classes(tmp_path / "dict.label.txt")


@pytest.fixture
def three_clips(tmp_path):
    return read_manifest(manifest_file(tmp_path, *FOUR))


def labels(folder, manifest, text, known=("cough", "laugh"), classes=("cough", "laugh")):
    path = folder / "train.label"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    return read_labels(manifest, list(known), list(classes))


def test_space_around_a_label_does_not_count(tmp_path, three_clips):
    assert labels(tmp_path, three_clips, "cough\n laugh\t\ncough \n").tolist() == [0, 1, 0]


def test_labels_become_positions_in_the_models_classes(tmp_path, three_clips):
    text = "cough\nlaugh\ncough\n"
    assert labels(tmp_path, three_clips, text).tolist() == [0, 1, 0]
    mapped = labels(tmp_path, three_clips, text, classes=("sneeze", "laugh", "cough"))
    assert mapped.tolist() == [2, 1, 2]
    assert mapped.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"train\.label: no such label file"),
        ("", r"train\.label: the label file is empty"),
        ("cough\ncough\n", r"train\.label: 2 labels for the 3 clips of .*train\.tsv"),
        ("cough\n" * 4, r"train\.label: 4 labels for the 3 clips"),
        ("cough\ngiggle\nlaugh\n", r"train\.label:2: label 'giggle' is not in .*dict\.label\.txt \(cough, laugh\)"),
    ],
)
def test_bad_labels_are_named(tmp_path, three_clips, text, sentence):
    with pytest.raises(InputError, match=sentence):
        labels(tmp_path, three_clips, text)
