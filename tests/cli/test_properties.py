"""Text files of any content are read as a plain reader reads them, or refused with one sentence.

The plain readers below know the formats from the README, and nothing of how the package reads them.
"""

import csv
import io

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.backbones.wav2vec2.convolutions import parse_conv_spec
from fairseq_neupronet.benchmark.config import read_config
from fairseq_neupronet.checkpoints.texts import parse_betas
from fairseq_neupronet.data.manifest import Manifest, read_classes, read_labels, read_manifest
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import read_metadata

pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")  # Python's remarks on a stranger's text
HOW_MANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def or_refused(read, *arguments):
    """What a reader gives; None where it refuses. Anything but an InputError fails the test."""
    try:
        return read(*arguments)
    except InputError as error:
        assert str(error).strip() and "\n" not in str(error)
        return None


def pieces(*usual: str):
    """Mostly the words of a format, otherwise any text."""
    return st.lists(st.one_of(st.sampled_from(usual), st.sampled_from(usual), st.text(max_size=4)), max_size=25).map(
        "".join
    )


# ---- manifests -----------------------------------------------------------------------------------------------------


def plain_lines(text: str) -> list[str]:
    lines = text.split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    return [line.removesuffix("\r") for line in lines]


def is_count(text: str) -> bool:
    return text != "" and set(text) <= set("0123456789") and 0 < int(text) < 2**31


def plain_manifest(text: str) -> list[tuple] | None:
    """(path, mels, frames, profile or None) of each row; None where the file is no manifest."""
    rows = [line.split("\t") for line in plain_lines(text)[1:]]
    if not rows or len({len(row) for row in rows}) > 1 or len(rows[0]) not in (3, 4):
        return None
    if not all(row[0] and is_count(row[1]) and is_count(row[2]) for row in rows):
        return None
    if len({int(row[1]) for row in rows}) > 1:
        return None
    return [(row[0], int(row[1]), int(row[2]), row[3] if len(row) == 4 else None) for row in rows]


WORDS = (
    "features\n",
    "a.npy",
    "b.npy",
    "\t8",
    "\t20",
    "\t8\t20\tp\n",
    "\t8\t31\tq\n",
    "\n",
    "\r\n",
    "\t",
    "0",
    "007",
    "c.npy\t8\t20\t\n",
    "é",
    "clips.zip:60:800",
    "a.npy\t8\t20\tp\n",
    "b.npy\t8\t20\n",
)
MANIFEST_ROWS = st.lists(
    st.tuples(
        st.text(min_size=1, max_size=8),
        st.sampled_from(["8", "08", "9"]),
        st.integers(-1, 2**31 + 1),
        st.one_of(st.none(), st.sampled_from(["p", "q", "", "é"])),
    ),
    min_size=1,
    max_size=9,
).map(lambda rows: "x\n" + "".join("\t".join(str(cell) for cell in row if cell is not None) + "\n" for row in rows))


@HOW_MANY
@given(st.one_of(pieces(*WORDS), MANIFEST_ROWS))
@example("features\na.npy\t8\t20\tp\nb.npy\t8\t21\tq\nc.npy\t8\t20\tp\n")
@example("features\r\na.npy\t8\t20\t\r\nb.npy\t8\t20\t")
def test_a_manifest_is_read_as_by_a_plain_reader_or_refused(tmp_path, text):
    path = tmp_path / "train.tsv"
    try:
        path.write_bytes(text.encode())
    except UnicodeEncodeError:
        return
    found, expected = or_refused(read_manifest, path), plain_manifest(text)
    assert (found is None) == (expected is None)
    if expected is None:
        return
    assert list(found.clips) == [row[0] for row in expected]
    assert found.n_mels == expected[0][1]
    assert found.frames.tolist() == [row[2] for row in expected]
    names = [row[3] for row in expected]
    if names[0] is None:
        assert found.profiles is None
        return
    for one, name in enumerate(names):
        for other, second in enumerate(names):
            together = one == other or (name == second and name != "")
            assert (found.profiles[one] == found.profiles[other]) == together


@HOW_MANY
@given(st.binary(max_size=60))
def test_a_manifest_of_any_bytes_is_read_or_refused(tmp_path, content):
    (tmp_path / "train.tsv").write_bytes(content)
    or_refused(read_manifest, tmp_path / "train.tsv", True)


# ---- dictionaries and labels ---------------------------------------------------------------------------------------


def plain_dictionary(text: str) -> list[str] | None:
    names = []
    for line in plain_lines(text):
        name, space, count = line.rpartition(" ")
        if not space or not name or not (count and set(count) <= set("0123456789")) or name in names:
            return None
        names.append(name)
    return names or None


@HOW_MANY
@given(pieces("cough", " 1", "\n", "laugh 20\n", "sniff 3\n", " ", "\r\n", "cough 4\n", "²", "٣", "\t"))
@example("cough ²\n")
def test_a_dictionary_is_read_as_by_a_plain_reader_or_refused(tmp_path, text):
    path = tmp_path / "dict.label.txt"
    try:
        path.write_bytes(text.encode())
    except UnicodeEncodeError:
        return
    assert or_refused(read_classes, path) == plain_dictionary(text)


CLASSES = ["cough", "laugh", "sniff"]


@HOW_MANY
@given(pieces("cough\n", "laugh\n", "sniff\n", "cough", "laugh", "\n", "\r\n", " ", "sneeze\n"), st.integers(1, 6))
def test_labels_are_read_as_by_a_plain_reader_or_refused(tmp_path, text, n_clips):
    path = tmp_path / "train.label"
    try:
        path.write_bytes(text.encode())
    except UnicodeEncodeError:
        return
    manifest = Manifest(tmp_path / "train.tsv", tmp_path, ["a"] * n_clips, 8, np.ones(n_clips, np.int64), None, [])
    lines = [line.strip() for line in plain_lines(text)]
    expected = [CLASSES.index(line) for line in lines] if set(lines) <= set(CLASSES) else None
    if text == "" or len(lines) != n_clips:
        expected = None
    found = or_refused(read_labels, manifest, CLASSES, CLASSES)
    assert (None if found is None else found.tolist()) == expected


# ---- metadata tables -----------------------------------------------------------------------------------------------

CELL = st.text(st.characters(exclude_characters="\r\n\t\0", exclude_categories=["Cs"]), max_size=6)


@HOW_MANY
@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=6), st.permutations(["path", "label", "other"]))
def test_a_table_that_python_wrote_is_read_as_it_was(tmp_path, rows, header):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([header, *rows])
    (tmp_path / "clips.csv").write_text(stream.getvalue(), encoding="utf-8")
    found = or_refused(read_metadata, tmp_path / "clips.csv", ["path", "label"])
    places = [header.index("path"), header.index("label")]
    expected = [[row[place].strip() for place in places] for row in rows if any(cell.strip() for cell in row)]
    assert [[row["path"], row["label"]] for _, row in found] == expected


@HOW_MANY
@given(pieces("path,label,profile,split\n", "a.wav", ",", '"', "\n", "\r", "train", "\0", "a.wav,cough,p,train\n"))
def test_a_table_of_any_text_is_read_or_refused(tmp_path, text):
    try:
        (tmp_path / "clips.csv").write_bytes(text.encode())
    except UnicodeEncodeError:
        return
    for line, row in or_refused(read_metadata, tmp_path / "clips.csv", ["path", "label"]) or []:
        assert line >= 2
        assert row.keys() == {"path", "label"}


# ---- configs -------------------------------------------------------------------------------------------------------

VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 10**12), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
RECIPE = {
    "kind": "mel_db",
    "sample_rate": 16000,
    "n_fft": 400,
    "hop_length": 160,
    "n_mels": 8,
    "top_db": 80.0,
    "scale": 255.0,
}


@HOW_MANY
@given(st.sampled_from([*RECIPE, "mean", "surprise"]), VALUE)
def test_a_recipe_with_any_value_is_read_or_refused(tmp_path, field, value):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(RECIPE | {field: value}), encoding="utf-8")
    found = or_refused(FeatureRecipe.load, tmp_path / "own.yaml")
    if found is not None and field in RECIPE:
        assert getattr(found, field) == value


@HOW_MANY
@given(
    st.one_of(
        st.binary(max_size=80),
        pieces(
            "kind: ",
            "mel_db\n",
            "- ",
            "&a ",
            "*a",
            "{",
            "[",
            ": ",
            "!!",
            "\n",
            "2022-13-45",
            "? ",
            "<<: ",
            "0x",
            "1e9999",
            "_",
        ).map(str.encode),
    )
)
def test_yaml_of_any_bytes_is_read_or_refused(tmp_path, content):
    (tmp_path / "own.yaml").write_bytes(content)
    or_refused(FeatureRecipe.load, tmp_path / "own.yaml")
    or_refused(read_config, tmp_path / "own.yaml")


BENCHMARK = {"datasets": {"a": {"data": "x", "recipe": "y"}}, "variants": {"base": {}}, "seeds": [1]}


@HOW_MANY
@given(st.sampled_from(["datasets", "variants", "seeds", "reference", "only", "quick", "jobs", "overrides"]), VALUE)
def test_a_benchmark_with_any_value_is_read_or_refused(tmp_path, key, value):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(BENCHMARK | {key: value}), encoding="utf-8")
    or_refused(read_config, tmp_path / "own.yaml")


# ---- texts that fairseq would evaluate -----------------------------------------------------------------------------


@HOW_MANY
@given(st.lists(st.tuples(*[st.integers(1, 64)] * 4), min_size=1, max_size=4), st.integers(1, 4))
def test_a_convolution_spec_means_what_python_would_make_of_it(layers, times):
    text = f"{layers} * {times} + {layers}"
    assert parse_conv_spec(text) == layers * times + layers


@HOW_MANY
@given(pieces("(512, 3, 1, 2)", "[", "]", "+", " * 2", "(", ")", ",", "9" * 30, "lambda: 0", "f()", "[1]*9", "-", "1j"))
def test_a_convolution_spec_of_any_text_is_layers_or_refused(text):
    for layer in or_refused(parse_conv_spec, text) or []:
        assert len(layer) == 4 and all(type(number) is int and number > 0 for number in layer)


@HOW_MANY
@given(st.one_of(pieces("(", "0.9", ",", "0.98", ")", "f()", "-", "1e999", "nan", "'a'"), VALUE))
def test_betas_of_any_text_are_two_numbers_or_refused(value):
    for beta in or_refused(parse_betas, value) or ():
        assert 0 <= beta < 1
