"""Pieces of a text file: one buffer of bytes, and decoded only what is asked for.

A million Python strings take a second to make, 100 MB to hold, and every look at one writes to its reference count, so
that forked workers would copy them all.
"""

import itertools
import operator
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.draws import mix

_WORD_BYTES = 8
_BLOCK = 1 << 22  # bytes looked at together: bounds the memory of intermediate results
_MOST_BYTES = 1 << 31  # some twenty million rows; a sparse file may claim any size
LARGEST_NUMBER = np.iinfo(np.int32).max
_MOST_DIGITS = len(str(LARGEST_NUMBER))
_WORD_MASKS = np.array([(1 << 8 * n_bytes) - 1 for n_bytes in range(_WORD_BYTES + 1)], np.uint64)


class StringColumn(Sequence):
    """N strings that lie in one UTF-8 buffer.

    Args:
        buffer: uint8, with at least eight bytes after the last span.
        starts, ends: (N,) int64; span i is ``buffer[starts[i]:ends[i]]``.
    """

    def __init__(self, buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray):
        self.buffer, self.starts, self.ends = buffer, starts, ends

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, rows: np.ndarray) -> "StringColumn":
        """Some of the spans, by index or mask."""
        return StringColumn(self.buffer, self.starts[rows], self.ends[rows])

    def __getitem__(self, number: int) -> str:
        number = operator.index(number)
        return self.buffer[self.starts[number] : self.ends[number]].tobytes().decode()


def read_lines(path: Path, what: str) -> StringColumn:
    r"""The lines of a file. A line ends at ``\n`` or ``\r\n`` and nowhere else.

    Raises:
        InputError: a missing, empty or unreadable file, or one that is not UTF-8.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such {what}; write it with `neupronet prepare` or check task.data")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes are no {what}; give a file below {_MOST_BYTES}")
        with open(path, "rb") as file:
            buffer = np.zeros(path.stat().st_size + _WORD_BYTES, np.uint8)
            size = file.readinto(memoryview(buffer)[:-_WORD_BYTES])
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); let the {what} be readable") from None
    if size == 0:
        raise InputError(f"{path}: the {what} is empty; write it again with `neupronet prepare`")
    text = buffer[:size]
    _check_utf8(path, text, what)
    newlines = positions(text, b"\n")
    if text[-1] != ord("\n"):
        newlines = np.append(newlines, size)
    starts = np.concatenate([[0], newlines[:-1] + 1])
    return StringColumn(buffer, starts, newlines - (buffer[newlines - 1] == ord("\r")))


def _check_utf8(path: Path, text: np.ndarray, what: str) -> None:
    if text.max() < 128:
        return
    try:
        start = 0
        while start < len(text):
            end = min(start + _BLOCK, len(text))
            while end < len(text) and text[end] & 0xC0 == 0x80 and end > start + 1:  # inside a character
                end -= 1
            text[start:end].tobytes().decode()
            start = end
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {start + error.start}); save the {what} as UTF-8") from None


def positions(text: np.ndarray, byte: bytes) -> np.ndarray:
    """Where a byte stands. (bytes,) uint8 → (count,) int64."""
    blocks = range(0, len(text), _BLOCK)
    return np.concatenate([np.flatnonzero(text[start : start + _BLOCK] == ord(byte)) + start for start in blocks])


def whole_numbers(spans: StringColumn) -> tuple[np.ndarray, np.ndarray]:
    """Read every span as a decimal number.

    Returns:
        (N,) int64 values, and (N,) bool: whether a span is digits only and at most 2³¹ − 1; otherwise its value means
        nothing.
    """
    widths = spans.ends - spans.starts
    values, sound = np.zeros(len(spans), np.int64), widths > 0
    rows = np.flatnonzero(sound)
    for place in itertools.count():
        digits = spans.buffer[spans.ends[rows] - 1 - place].astype(np.int64) - ord("0")
        sound[rows] &= (digits >= 0) & (digits <= 9) & ((place < _MOST_DIGITS) | (digits == 0))
        if place < _MOST_DIGITS:
            values[rows] += digits * 10**place
        rows = rows[(widths[rows] > place + 1) & sound[rows]]
        if not len(rows):
            return values, sound & (values <= LARGEST_NUMBER)


def first_equal(spans: StringColumn) -> np.ndarray:
    """For every span the first one with the same bytes, by hashing and an exact comparison. (N,) int64."""
    lengths = spans.ends - spans.starts
    words = np.ndarray(len(spans.buffer) - _WORD_BYTES + 1, "<u8", spans.buffer, strides=(1,))

    def word(rows: np.ndarray, number: int) -> np.ndarray:
        start = _WORD_BYTES * number
        return words[spans.starts[rows] + start] & _WORD_MASKS[np.minimum(lengths[rows] - start, _WORD_BYTES)]

    rows_with_word = []
    rows = np.arange(len(spans))
    for number in itertools.count():
        rows = rows[lengths[rows] > _WORD_BYTES * number]
        if not len(rows):
            break
        rows_with_word.append(rows)

    for attempt in itertools.count():  # a second one only where two different strings had one hash
        hashes = mix(lengths.astype(np.uint64) + np.uint64(attempt))
        for number, rows in enumerate(rows_with_word):
            hashes[rows] = mix(hashes[rows] ^ word(rows, number))
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        begins = np.concatenate([[True], hashes[1:] != hashes[:-1]])
        first = np.empty(len(spans), np.int64)
        first[order] = order[np.maximum.accumulate(np.where(begins, np.arange(len(spans)), 0))]
        if np.array_equal(lengths, lengths[first]) and all(
            np.array_equal(word(rows, number), word(first[rows], number)) for number, rows in enumerate(rows_with_word)
        ):
            return first
