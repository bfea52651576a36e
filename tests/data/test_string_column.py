"""Columns of a text file as bytes: numbers and equal strings, against Python's own."""

import numpy as np
import pytest

from fairseq_neupronet.data import string_column
from fairseq_neupronet.data.string_column import StringColumn, first_equal, read_lines, whole_numbers


def spans(*texts):
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([len(each) + 1 for each in encoded]) - 1
    starts = ends - [len(each) for each in encoded]
    return StringColumn(np.frombuffer(b"|".join([*encoded, b"8-bytes-"]), np.uint8), starts, ends)


def test_spans_are_a_sequence_of_strings():
    texts = spans("one", "", "zwölf", "🎵")
    assert len(texts) == 4
    assert list(texts) == ["one", "", "zwölf", "🎵"]
    assert texts[-1] == "🎵" and texts[np.int64(2)] == "zwölf"
    assert "zwölf" in texts and "two" not in texts
    assert list(texts.take(np.array([3, 0]))) == ["🎵", "one"]
    with pytest.raises(IndexError):
        texts[4]


def test_whole_numbers_are_those_that_python_reads():
    texts = [
        "0",
        "7",
        "00042",
        "2147483647",
        "2147483648",
        "9" * 19,
        "1" + "0" * 20,
        "0" * 40 + "5",
        "",
        "-1",
        "1_0",
        "٣",
        "12a",
        "a12",
        " 1",
        "1 ",
        "1.5",
    ]
    values, sound = whole_numbers(spans(*texts))
    wanted = [text.isascii() and text.isdigit() and int(text) < 2**31 for text in texts]
    assert sound.tolist() == wanted
    assert values[sound].tolist() == [int(text) for text, is_wanted in zip(texts, wanted, strict=True) if is_wanted]


def plain_first_equal(texts):
    first = {}
    return [first.setdefault(text, number) for number, text in enumerate(texts)]


def many_texts():
    """Equal and different ones: prefixes of each other, with zero bytes at the end, differing at one end."""
    rng = np.random.default_rng(3)
    long = "a fairly long name of a profile, 40 bytes"
    texts = [long[:length] for length in range(41)] + ["a\0", "a\0\0", "\0", "\0\0", "b" + long[1:40], long[:39] + "b"]
    return rng.permutation(texts * 3).tolist()


def test_equal_strings_are_found():
    texts = many_texts()
    assert first_equal(spans(*texts)).tolist() == plain_first_equal(texts)
    assert first_equal(spans("x")).tolist() == [0]


def test_strings_of_one_hash_are_told_apart(monkeypatch):
    texts = many_texts()
    mix, calls = string_column.mix, []

    def weak(words):
        calls.append(len(words))
        return words * 0 if len(calls) < 8 else mix(words)

    monkeypatch.setattr(string_column, "mix", weak)
    assert first_equal(spans(*texts)).tolist() == plain_first_equal(texts)
    assert len(calls) > 8


def test_lines_of_a_file_in_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(string_column, "_BLOCK", 7)
    lines = ["", "a", "zwölf Boxkämpfer", "🎵" * 9, "a\ttab", "ends\rhere", ""]
    (tmp_path / "lines.txt").write_bytes("\r\n".join([*lines, ""]).encode())
    assert list(read_lines(tmp_path / "lines.txt", "file")) == lines
    (tmp_path / "lines.txt").write_bytes("\n".join(lines).encode())
    assert list(read_lines(tmp_path / "lines.txt", "file")) == lines[:-1]
