"""Bad inputs by name, each with words of the sentence that answers it.

    python tests/bad/make.py FOLDER        # writes all of them, to be tried by hand

A case begins with good input, a tiny prepared folder or a table of sounds, and spoils one thing.
"""

import gzip
import io
import os
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import official_checkpoints
import tiny
import torch
import written_cells

from fairseq_neupronet.benchmark.results import SUMMARY_COLUMNS, write_rows

CLIPS = {"train": 9, "valid": 6}
RATE = 16000


@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes:
        kind: what reads it, a function of the test.
        words: of the sentence, in their order.
        make: writes it into a folder; returns what the reader is given.
    """

    kind: str
    words: tuple[str, ...]
    make: Callable[[Path], Path | list]


CASES: dict[str, Case] = {}


def case(kind: str, *words: str):
    """Register a function by its name."""

    def add(make: Callable) -> Callable:
        assert make.__name__ not in CASES
        CASES[make.__name__] = Case(kind, words, make)
        return make

    return add


def add_all(kind: str, make: Callable, variants: dict[str, tuple]) -> None:
    """Cases that differ in a value: name → (value, words …)."""
    for name, (value, *words) in variants.items():
        assert name not in CASES
        CASES[name] = Case(kind, tuple(words), lambda folder, value=value: make(folder, value))


# ---- prepared folders ----------------------------------------------------------------------------------------------


def prepared(folder: Path) -> Path:
    return tiny.write_corpus(folder / "data", clips=CLIPS)


def with_file(folder: Path, given: tuple[str, bytes]) -> Path:
    data, (name, content) = prepared(folder), given
    (data / name).write_bytes(content)
    return data


def with_row(folder: Path, row: bytes) -> Path:
    """The third row, of line 4, replaced."""
    data = prepared(folder)
    lines = (data / "train.tsv").read_bytes().split(b"\n")
    lines[3] = row
    (data / "train.tsv").write_bytes(b"\n".join(lines))
    return data


add_all(
    "prepared",
    with_file,
    {
        "manifest_empty": (("train.tsv", b""), "train.tsv", "the manifest is empty", "neupronet prepare"),
        "manifest_without_rows": (("train.tsv", b"features\n"), "train.tsv", "a folder line and no clip"),
        "manifest_of_nothing_but_line_ends": (("train.tsv", b"\n\n\n"), "train.tsv:2", "column(s), 3 or 4 are wanted"),
        "manifest_in_utf16": (("train.tsv", "features\na\t8\t3\tp\n".encode("utf-16")), "train.tsv", "not UTF-8 text"),
        "manifest_of_zero_bytes": (("train.tsv", bytes(1000)), "train.tsv", "a folder line and no clip"),
        "manifest_in_old_mac_lines": (("train.tsv", b"features\ra.npy\t8\t3\tp\r"), "train.tsv", "no clip"),
        "labels_empty": (("train.label", b""), "train.label", "the label file is empty"),
        "labels_too_few": (("train.label", b"cough\n"), "train.label", "1 labels for the 9 clips", "one label a clip"),
        "labels_not_text": (("train.label", b"\xff\n" * 9), "train.label", "not UTF-8 text"),
        "label_unknown": (("train.label", b"cough\n" * 8 + b"sneeze\n"), "train.label:9", "'sneeze'", "dict.label.txt"),
        "label_blank": (("valid.label", b"cough\n" * 5 + b"\n"), "valid.label:6", "label ''", "dict.label.txt"),
        "dictionary_empty": (("dict.label.txt", b""), "dict.label.txt", "the class dictionary is empty"),
        "dictionary_without_counts": (
            ("dict.label.txt", b"cough\nlaugh\n"),
            "dict.label.txt:1",
            "is not 'class count'",
        ),
        "dictionary_with_a_twin": (("dict.label.txt", b"cough 1\ncough 2\n"), "dict.label.txt:2", "on line 1 already"),
        "dictionary_with_a_word_as_count": (("dict.label.txt", b"cough many\n"), "dict.label.txt:1", "'class count'"),
        "class_absent_from_training": (
            ("train.label", b"cough\n" * 9),
            "valid.label:2",
            "'laugh' has no clip in the tr",
        ),
        "recipe_no_yaml": (("features/recipe.yaml", b"{: ["), "recipe.yaml", "not a readable yaml file"),
        "recipe_a_list": (("features/recipe.yaml", b"- 1\n"), "recipe.yaml", "holds no fields"),
        "recipe_misspelt": (("features/recipe.yaml", b"kind: mel_db\nhop: 1\n"), "unknown field hop", "known fields"),
        "recipe_of_another_count": (("features/recipe.yaml", b"kind: mfcc\n"), "kind is 'mfcc'", "known kinds"),
        "recipe_with_an_impossible_date": (("features/recipe.yaml", b"kind: 2022-99-99\n"), "recipe.yaml", "yaml"),
        "recipe_nested_too_deeply": (("features/recipe.yaml", b"[" * 30_000), "recipe.yaml", "yaml"),
        "recipe_with_a_python_object": (
            ("features/recipe.yaml", b"kind: !!python/object/apply:os.system ['touch CREATED']\n"),
            "recipe.yaml",
            "yaml",
        ),
        "recipe_as_large_as_a_disk": (
            ("features/recipe.yaml", b"#" * 100_000),
            "recipe.yaml",
            "larger than any recipe",
        ),
        "features_text": (("features/train2.npy", b"no array " * 300), "train.tsv:4", "train2.npy", "no .npy header"),
        "features_empty": (("features/train2.npy", b""), "train.tsv:4", "missing or truncated", "neupronet prepare"),
    },
)

add_all(
    "prepared",
    with_row,
    {
        "row_of_two_columns": (b"train2.npy\t8", "train.tsv:4", "2 column(s), 3 or 4"),
        "row_without_profile": (b"train2.npy\t8\t20", "train.tsv:4", "3 columns where line 2 has 4"),
        "row_with_commas": (b"train2.npy,8,20,p0", "train.tsv:4", "1 column(s)"),
        "row_blank": (b"", "train.tsv:4", "1 column(s), 3 or 4"),
        "row_of_negative_frames": (b"train2.npy\t8\t-20\tp0", "train.tsv:4", "n_frames is '-20'"),
        "row_of_no_frames": (b"train2.npy\t8\t0\tp0", "train.tsv:4", "n_frames is '0'"),
        "row_of_arabic_digits": ("train2.npy\t8\t٢٠\tp0".encode(), "train.tsv:4", "n_frames is", "whole number"),
        "row_of_endless_frames": (b"train2.npy\t8\t" + b"9" * 5000 + b"\tp0", "train.tsv:4", "n_frames is above"),
        "row_of_other_mels": (b"train2.npy\t9\t20\tp0", "train.tsv:4", "9 mel bands where line 2 has 8"),
        "row_naming_nothing": (b"absent.npy\t8\t20\tp0", "train.tsv:4", "absent.npy is missing or truncated"),
        "row_with_a_zero_byte": (b"a\x00b.npy\t8\t20\tp0", "train.tsv:4", "is missing or truncated"),
        "row_that_moves_the_cursor": (b"\x1b[2J\x1b[Hx.npy\t8\t20\tp0", "train.tsv:4", "is missing or truncated"),
        "row_naming_a_folder": (b".\t8\t20\tp0", "train.tsv:4", "is a folder, a pipe or a device"),
        "row_naming_a_device": (b"/dev/zero\t8\t20\tp0", "train.tsv:4", "/dev/zero is missing or truncated"),
        "row_naming_a_password_file": (b"/etc/passwd\t8\t5\tp0", "train.tsv:4", "no .npy header"),
        "row_in_a_zip_that_is_absent": (b"clips.zip:60:800\t8\t20\tp0", "train.tsv:4", "clips.zip", "missing"),
        "row_in_a_zip_without_a_place": (b"clips.zip:60\t8\t20\tp0", "train.tsv:4", "clips.zip:60 is missing"),
        "row_of_more_frames_than_stored": (b"train2.npy\t8\t2\tp0", "train.tsv:4", "the manifest says 8 and 2"),
    },
)


def npy(shape, dtype="<f4", body=b"", version=(1, 0)) -> bytes:
    """A header that says anything, and a body."""
    stream = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    write = np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    write(stream, header)
    return stream.getvalue() + body


def with_features(folder: Path, content: bytes) -> Path:
    data = with_row(folder, b"train2.npy\t8\t20\tp0")
    (data / "features" / "train2.npy").write_bytes(content)
    return data


def _nan() -> bytes:
    return np.full((8, 20), np.nan, "<f4").tobytes()


def objects() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([[{"a": 1}] * 20] * 8, object), allow_pickle=True)
    return stream.getvalue() + bytes(1000)


add_all(
    "prepared",
    with_features,
    {
        "npy_claiming_a_trillion_numbers": (npy((8, 10**12), body=bytes(1000)), "train.tsv:4", "1000000000000 frames"),
        "npy_claiming_a_trillion_bands": (
            npy((10**12, 20), body=bytes(1000)),
            "train.tsv:4",
            "1000000000000 mel bands",
        ),
        "npy_cut_short": (npy((8, 20), body=bytes(400)), "train.tsv:4", "bytes of its", "neupronet prepare"),
        "npy_of_negative_shape": (npy((-8, -20), body=bytes(1000)), "train.tsv:4", "-8 mel bands"),
        "npy_of_three_axes": (
            npy((8, 20, 1), body=bytes(1000)),
            "train.tsv:4",
            "not a (mels, frames) array of numbers",
        ),
        "npy_of_no_axes": (npy((), body=bytes(1000)), "train.tsv:4", "not a (mels, frames) array of numbers"),
        "npy_of_complex_numbers": (npy((8, 20), "<c8", bytes(1280)), "train.tsv:4", "array of numbers"),
        "npy_of_texts": (npy((8, 20), "<U9", bytes(6000)), "train.tsv:4", "array of numbers"),
        "npy_of_python_objects": (objects(), "train.tsv:4", "an array of Python objects"),
        "npy_of_nan": (npy((8, 20), body=_nan()), "train.tsv:4", "NaN or infinite values"),
        "npy_of_numbers_too_large_for_single": (
            npy((8, 20), "<f8", np.full((8, 20), 1e200).tobytes()),
            "train.tsv:4",
            "NaN or infinite values",
        ),
        "npy_with_a_program_as_header": (
            b"\x93NUMPY\x01\x00" + struct.pack("<H", 40) + b"__import__('os').system('touch CREATED')" + bytes(1000),
            "train.tsv:4",
            "the .npy header is damaged",
        ),
        "npy_with_a_header_longer_than_the_file": (
            b"\x93NUMPY\x01\x00\xff\xff" + bytes(1000),
            "train.tsv:4",
            "cut off",
        ),
        "npy_of_version_9": (b"\x93NUMPY\x09\x00" + bytes(1000), "train.tsv:4", "no .npy header"),
        "npy_that_is_a_zip": (b"PK\x03\x04" + bytes(1000), "train.tsv:4", "array of numbers"),
    },
)


@case("prepared", "train.tsv:4", "train2.npy", "is missing or truncated")
def features_a_pipe(folder):
    data = with_row(folder, b"train2.npy\t8\t20\tp0")
    (data / "features" / "train2.npy").unlink()
    os.mkfifo(data / "features" / "train2.npy")
    return data


@case("unchecked", "train.tsv:4", "train2.npy", "is a folder, a pipe or a device")
def features_a_pipe_after_the_check(folder):
    return features_a_pipe(folder)


@case("unchecked", "train.tsv:4", "clips.zip", "is a folder, a pipe or a device")
def zip_a_pipe(folder):
    data = with_row(folder, b"clips.zip:0:9999\t8\t20\tp0")
    os.mkfifo(data / "features" / "clips.zip")
    return data


@case("prepared", "train.tsv:4", "train2.npy", "missing")
def features_a_link_to_nothing(folder):
    data = with_row(folder, b"train2.npy\t8\t20\tp0")
    (data / "features" / "train2.npy").unlink()
    (data / "features" / "train2.npy").symlink_to("nowhere.npy")
    return data


@case("prepared", "train.tsv", "bytes are no manifest")
def manifest_as_large_as_a_disk(folder):
    data = prepared(folder)
    os.truncate(data / "train.tsv", 1 << 40)
    return data


@case("prepared", "train.tsv", "no such manifest")
def manifest_a_pipe(folder):
    data = prepared(folder)
    (data / "train.tsv").unlink()
    os.mkfifo(data / "train.tsv")
    return data


@case("prepared", "valid.tsv", "a folder line and no clip")
def validation_set_empty(folder):
    data = prepared(folder)
    (data / "valid.tsv").write_text("features\n")
    (data / "valid.label").write_text("")
    return data


def packed(folder: Path, place: tuple[int, int], kind=zipfile.ZIP_STORED) -> Path:
    data = prepared(folder)
    with zipfile.ZipFile(data / "features" / "clips.zip", "w", kind) as archive:
        archive.write(data / "features" / "train2.npy", "train2.npy")
    row = f"clips.zip:{place[0]}:{place[1]}\t8\t20\tp0"
    lines = (data / "train.tsv").read_text().split("\n")
    lines[3] = row
    (data / "train.tsv").write_text("\n".join(lines))
    return data


add_all(
    "prepared",
    packed,
    {
        "zip_offset_beyond_the_file": ((10**9, 2000), "train.tsv:4", "missing or truncated"),
        "zip_length_beyond_the_file": ((40, 10**12), "train.tsv:4", "missing or truncated"),
        "zip_offset_of_nineteen_digits": ((10**19, 2000), "train.tsv:4", "missing or truncated"),
        "zip_offset_into_the_middle": ((60, 400), "train.tsv:4", "clips.zip"),
    },
)
add_all(
    "unchecked",
    packed,
    {
        "zip_read_beyond_the_file": ((10**9, 2000), "train.tsv:4", "reaches past the", "bytes of the zip"),
    },
)


@case("prepared", "train.tsv:4", "compressed in the zip")
def zip_compressed(folder):
    data = packed(folder, (50, 330), zipfile.ZIP_DEFLATED)
    lines = (data / "train.tsv").read_text().split("\n")
    lines[3] = "clips.zip:50:300\t8\t5\tp0"
    (data / "train.tsv").write_text("\n".join(lines))
    return data


# ---- metadata tables and audio -------------------------------------------------------------------------------------


def sounds(folder: Path, n_files: int = 4) -> Path:
    """A table with a row a file, and its sounds."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = ["path,label,profile,split"]
    for number in range(n_files):
        soundfile.write(folder / f"{number}.wav", rng.uniform(-0.5, 0.5, RATE // 4), RATE)
        lines.append(f"{number}.wav,{'ab'[number % 2]},p{number},{'train' if number < 2 else 'valid'}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder / "clips.csv"


def with_table(folder: Path, content: bytes) -> Path:
    sounds(folder).write_bytes(content)
    return folder / "clips.csv"


HEADER = b"path,label,profile,split\n"
ROW = b"0.wav,a,p0,train\n"
add_all(
    "prepare",
    with_table,
    {
        "table_empty": (b"", "clips.csv", "is empty", "path,label,profile,split"),
        "table_without_rows": (HEADER, "clips.csv", "lists no clips"),
        "table_without_a_column": (b"path,label,split\n0.wav,a,train\n", "clips.csv, line 1", "no column profile"),
        "table_with_a_short_row": (HEADER + ROW + b"1.wav,a\n", "clips.csv, line 3", "2 cells where the header has 4"),
        "table_with_an_unquoted_comma": (HEADER + b"0.wav,a,p,0,train\n", "clips.csv, line 2", "5 cells"),
        "table_not_text": (HEADER + b"\xff\xfe\x00\n", "clips.csv", "not a UTF-8 CSV table"),
        "table_with_an_endless_cell": (HEADER + b"x" * 200_000 + b",a,p,train\n", "clips.csv", "CSV table", "limit"),
        "table_with_another_split": (HEADER + b"0.wav,a,p,holdout\n", "clips.csv, line 2", "split is 'holdout'"),
        "table_without_a_label": (HEADER + b"0.wav,,p,train\n", "clips.csv, line 2", "label is empty"),
        "table_without_a_path": (HEADER + b",a,p,train\n", "clips.csv, line 2", "path is empty"),
        "table_with_a_twin": (HEADER + ROW + ROW, "clips.csv, line 3", "already in line 2"),
        "table_naming_nothing": (HEADER + b"absent.wav,a,p,train\n", "clips.csv, line 2", "no audio file"),
        "table_naming_a_folder": (HEADER + b".,a,p,train\n", "clips.csv, line 2", "no audio file"),
        "table_naming_a_device": (HEADER + b"/dev/zero,a,p,train\n", "clips.csv, line 2", "no audio file"),
        "table_with_a_reserved_profile": (
            HEADER + b"0.wav,a,clip:x,train\n",
            "clips.csv, line 2",
            "begins with 'clip:'",
        ),
        "table_with_a_reserved_class": (HEADER + b"0.wav,<pad>,p,train\n", "clips.csv", "'<pad>' cannot be a class"),
        "table_with_a_class_in_valid_only": (
            HEADER + ROW + b"1.wav,b,p,valid\n",
            "class b is in valid",
            "add training",
        ),
        "table_with_a_zero_byte": (HEADER + b"a\x00.wav,a,p,train\n", "clips.csv", "line"),
        "table_whose_path_leads_out": (HEADER + b"/etc/passwd,a,p,train\n", "does not decode as audio"),
    },
)


@case("prepare", "/dev/zero", "is a folder, a pipe or a device")
def table_a_device(folder):
    return Path("/dev/zero")


@case("prepare", "clips.csv", "is a folder, a pipe or a device")
def table_a_pipe(folder):
    folder.mkdir(parents=True)
    os.mkfifo(folder / "clips.csv")
    return folder / "clips.csv"


def wav_header(n_bytes: int, channels: int = 1, rate: int = RATE, bits: int = 16) -> bytes:
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", 1, channels, rate & 0xFFFFFFFF, (rate * frame) & 0xFFFFFFFF, frame & 0xFFFF, bits)
    return (
        b"RIFF"
        + struct.pack("<I", (n_bytes + 36) & 0xFFFFFFFF)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", n_bytes)
    )


def flac_claiming(folder: Path, n_samples: int) -> bytes:
    """A whole file whose header names another number of samples (36 bits of STREAMINFO)."""
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "whole.flac", np.zeros(RATE), RATE)
    data = bytearray((folder / "whole.flac").read_bytes())
    (folder / "whole.flac").unlink()
    field = int.from_bytes(data[21:26], "big") & ~((1 << 36) - 1)
    data[21:26] = (field | n_samples).to_bytes(5, "big")
    return bytes(data)


def with_audio(folder: Path, content: bytes) -> Path:
    table = sounds(folder)
    (folder / "2.wav").write_bytes(content)
    return table


ANSWER = ("1 of 4 audio files cannot be used", "2.wav")
add_all(
    "prepare",
    with_audio,
    {
        "audio_text": (b"this is no sound\n" * 50, *ANSWER, "does not decode as audio", "convert it to wav"),
        "audio_empty_file": (b"", *ANSWER, "does not decode as audio"),
        "audio_header_cut_short": (wav_header(32000)[:20], *ANSWER, "does not decode as audio"),
        "audio_without_samples": (wav_header(0), *ANSWER, "empty (0 samples)", "take it out of the metadata"),
        "audio_of_no_channels": (wav_header(32000, channels=0) + bytes(32000), *ANSWER, "does not decode as audio"),
        "audio_of_rate_zero": (wav_header(32000, rate=0) + bytes(32000), *ANSWER, "does not decode as audio"),
        "audio_of_65535_channels": (wav_header(32000, channels=65535) + bytes(32000), *ANSWER, "does not decode"),
        "audio_of_a_rate_of_megahertz": (
            wav_header(32000, rate=13_516_416) + bytes(32000),
            *ANSWER,
            "claims a sample rate of 13516416 Hz",
        ),
        "audio_of_a_rate_of_one": (wav_header(32000, rate=1) + bytes(32000), *ANSWER, "claims a sample rate of 1 Hz"),
        "audio_random_bytes": (np.random.default_rng(0).bytes(5000), *ANSWER, "does not decode as audio"),
        "audio_an_mp3_in_name_only": (b"\xff\xfb\x90\x00" + bytes(100), *ANSWER, "does not decode as audio"),
    },
)


@case("prepare", *ANSWER, "NaN or infinite samples")
def audio_of_nan(folder):
    table = sounds(folder)
    soundfile.write(folder / "2.wav", np.full(4000, np.nan, np.float32), RATE, subtype="FLOAT")
    return table


@case("prepare", "line 4", "no audio file")
def audio_a_pipe(folder):
    table = sounds(folder)
    (folder / "2.wav").unlink()
    os.mkfifo(folder / "2.wav")
    return table


@case("prepare", "line 4", "no audio file")
def audio_a_link_to_a_device(folder):
    table = sounds(folder)
    (folder / "2.wav").unlink()
    (folder / "2.wav").symlink_to("/dev/zero")
    return table


# ---- recipes -------------------------------------------------------------------------------------------------------


def with_recipe(folder: Path, content: str) -> list:
    table = sounds(folder)
    (folder / "own.yaml").write_text(content)
    return [table, "--recipe", folder / "own.yaml"]


GOOD_RECIPE = "kind: mel_db\nsample_rate: 16000\nn_fft: 400\nhop_length: 160\nn_mels: 8\ntop_db: 80\nscale: 255\n"
LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
add_all(
    "prepare",
    with_recipe,
    {
        "recipe_without_a_field": ("kind: mel_db\n", "recipe own", "sample_rate is missing"),
        "recipe_in_kilohertz": (GOOD_RECIPE.replace("16000", "16"), "recipe own", "sample_rate is 16", "give it in Hz"),
        "recipe_of_negative_hop": (GOOD_RECIPE.replace("160\n", "-1\n", 1), "hop_length is -1", "above 0"),
        "recipe_of_half_a_band": (GOOD_RECIPE.replace("n_mels: 8", "n_mels: 8.5"), "n_mels is 8.5", "whole number"),
        "recipe_of_infinite_scale": (GOOD_RECIPE.replace("255", ".inf"), "scale is inf", "give it a number"),
        "recipe_of_words": (GOOD_RECIPE.replace("255", "loud"), "scale is 'loud'", "give it a number"),
        "recipe_of_a_billion_laughs": (
            "a0: &a0 [ha]\n" + LAUGHS + GOOD_RECIPE.replace("255", "*a11"),
            "recipe own",
            "unknown field",
        ),
        "recipe_of_a_billion_laughs_in_a_field": (
            GOOD_RECIPE.replace("255", "[&a [ha, ha], &b [*a, *a, *a], &c [*b, *b, *b], &d [*c, *c, *c, *d]]"),
            "scale is",
        ),
        "recipe_of_a_giant_window": (GOOD_RECIPE.replace("400", "400000000000"), "recipe own", "n_fft"),
    },
)


@case("prepare", "recipe absent", "no such feature recipe", "official")
def recipe_unknown(folder):
    return [sounds(folder), "--recipe", "absent"]


# ---- benchmark configs ---------------------------------------------------------------------------------------------


def with_benchmark(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "table.yaml").write_bytes(content)
    return folder / "table.yaml"


VARIANTS = b"variants:\n  base: {}\n"
add_all(
    "benchmark",
    with_benchmark,
    {
        "benchmark_empty": (b"", "table.yaml", "datasets is empty"),
        "benchmark_a_list": (b"- 1\n", "table.yaml", "is not a mapping"),
        "benchmark_no_yaml": (b"{: [", "table.yaml", "is not yaml"),
        "benchmark_not_text": (b"\xff\xfe\x00", "table.yaml", "is not yaml"),
        "benchmark_misspelt": (b"dataset: {}\n", "table.yaml", "unknown key dataset", "did you mean datasets"),
        "benchmark_without_variants": (b"datasets: {a: {data: x, recipe: y}}\n", "variants is empty"),
        "benchmark_without_data": (b"datasets: {a: {recipe: y}}\n" + VARIANTS, "datasets.a.data is not set"),
        "benchmark_of_a_list_of_data": (b"datasets: [a]\n" + VARIANTS, "table.yaml", "datasets"),
        "benchmark_with_a_resolver_of_nothing": (b"datasets: {a: '${nowhere}'}\n" + VARIANTS, "table.yaml", "nowhere"),
        "benchmark_with_an_unknown_reference": (
            b"datasets: {a: {data: x, recipe: y}}\nreference: z\n" + VARIANTS,
            "reference 'z' is not among the variants",
        ),
        "benchmark_with_a_word_as_seeds": (
            b"datasets: {a: {data: x, recipe: y}}\nseeds: many\n" + VARIANTS,
            "seeds must be a list",
        ),
        "benchmark_nested_too_deeply": (b"[" * 30_000, "table.yaml"),
    },
)


# ---- results for the report ----------------------------------------------------------------------------------------


def results(folder: Path) -> Path:
    variants = {"base": 0.0, "dot": 0.2}
    return written_cells.write_cells(folder, variants, n_profiles=3, clips=4, folds=(1,), seeds=(1,))


def with_results(folder: Path, content: bytes) -> Path:
    results(folder).write_bytes(content)
    return folder / "results.csv"


def with_cell_file(folder: Path, given: tuple[str, bytes]) -> Path:
    path, (name, content) = results(folder), given
    cell = folder / "cells" / "sounds" / "dot" / "fold-1" / "seed-1"
    (cell / name).write_bytes(content)
    return path


COLUMNS = ",".join(written_cells.COLUMNS).encode() + b"\n"
FIGURE = b"sounds,base,1,1,test,full,accuracy,%s,abc,0.1.0,60.0\n"
add_all(
    "report",
    with_results,
    {
        "results_empty": (b"", "results.csv", "no column"),
        "results_without_rows": (COLUMNS, "results.csv", "has no rows"),
        "results_of_another_table": (b"a,b\n1,2\n", "results.csv", "no column", "not a results.csv"),
        "results_with_a_short_row": (COLUMNS + b"sounds,base\n", "results.csv:2", "not as many fields"),
        "results_with_a_word_as_value": (COLUMNS + FIGURE % b"good", "results.csv", "'good'"),
        "results_not_text": (COLUMNS + b"\xff\xfe\n", "results.csv", "no table of results"),
    },
)
FULL, TRAINING = "evaluation/test/full", "train/checkpoints/training.csv"
add_all(
    "report",
    with_cell_file,
    {
        "predictions_empty": ((f"{FULL}/predictions.tsv", b""), "predictions.tsv", "it is not a predictions.tsv"),
        "predictions_not_text": ((f"{FULL}/predictions.tsv", b"path\xff"), "predictions.tsv", "is no table of results"),
        "predictions_cut_short": (
            (f"{FULL}/predictions.tsv", b"path\tprofile\ttarget\tprediction\nx\ty\n"),
            "predictions.tsv:2",
            "not as many fields as line 1",
        ),
        "training_csv_not_text": ((TRAINING, b"epoch\xff"), "training.csv", "no table of results"),
        "training_csv_of_another_table": ((TRAINING, b"a,b\n1,2\n"), "training.csv", "no column 'epoch'"),
        "training_csv_with_a_word_as_epoch": (
            (TRAINING, b"epoch,valid_loss\none,1\n"),
            "training.csv:2",
            "is no number",
        ),
        "embeddings_no_archive": ((f"{FULL}/embeddings.npz", b"no zip"), "embeddings.npz", "run the cell again"),
    },
)


def published(folder: Path, given: tuple[str, bytes]) -> Path:
    """What a report publishes of one figure, with one of its two files replaced."""
    folder.mkdir(parents=True)
    row = {name: "" for name in SUMMARY_COLUMNS} | {"dataset": "sounds", "variant": "base", "subset": "test"}
    row |= {"protocol": "full", "metric": "accuracy", "mean": "0.5", "trainings": "1:1"}
    write_rows(folder / "summary.csv", SUMMARY_COLUMNS, [row])
    (folder / given[0]).write_bytes(given[1])
    return folder / "summary.csv"


SUMMARY = ",".join(SUMMARY_COLUMNS).encode() + b"\n"
COUNTS = b"dataset,variant,subset,protocol,fold,seed,profile,target,prediction,clips,correct\n"
COUNTED = COUNTS + b"sounds,base,test,full,1,1,p,a,a,%s,1\n"
add_all(
    "report",
    published,
    {
        "summary_with_a_word_as_mean": (
            ("summary.csv", SUMMARY + b"sounds,base,,test,full,accuracy,good,,1,1,1:1,,,,,,\n"),
            "summary.csv:2",
            "mean is 'good'",
        ),
        "summary_without_a_column": (("summary.csv", b"mean,trainings\n.5,1:1\n"), "summary.csv", "no column"),
        "counts_not_compressed": (("by_profile.csv.gz", COUNTED % b"1"), "by_profile.csv.gz", "no table of results"),
        "counts_cut_short": (
            ("by_profile.csv.gz", gzip.compress(COUNTED % b"1", mtime=0)[:-12]),
            "by_profile.csv.gz",
            "no table of results",
        ),
        "counts_without_a_column": (
            ("by_profile.csv.gz", gzip.compress(b"profile,clips,correct\np,1,1\n", mtime=0)),
            "by_profile.csv.gz",
            "no column",
        ),
        "counts_with_a_word_as_clips": (
            ("by_profile.csv.gz", gzip.compress(COUNTED % b"many", mtime=0)),
            "by_profile.csv.gz:2",
            "whole numbers",
        ),
    },
)


# ---- checkpoints and banks -----------------------------------------------------------------------------------------


def bank_file(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bank.npz").write_bytes(content)
    return folder / "bank.npz"


def zipped(members: dict[str, bytes], kind=zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


BANK = ("format", "model", "names", "clips", "embeddings", "band_sums")
add_all(
    "bank",
    bank_file,
    {
        "bank_empty": (b"", "bank.npz", "not a profile bank"),
        "bank_text": (b"profiles", "bank.npz", "not a profile bank"),
        "bank_without_arrays": (zipped({"a.npy": b""}), "bank.npz", "not a profile bank"),
        "bank_claiming_a_trillion_numbers": (
            zipped({f"{name}.npy": npy((10**12,), body=bytes(8)) for name in BANK}),
            "bank.npz",
            "claims 4000000000",
        ),
        "bank_of_python_objects": (zipped({f"{name}.npy": objects() for name in BANK}), "bank.npz", "Python objects"),
        "bank_that_is_a_bomb": (
            zipped({f"{name}.npy": bytes(1 << 22) for name in BANK}, zipfile.ZIP_DEFLATED),
            "bank.npz",
            "is compressed",
        ),
    },
)


def checkpoint_file(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pt").write_bytes(content)
    return folder / "model.pt"


def saved(state) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


class Runs:
    """Unpickled, it makes a file in the working directory."""

    def __reduce__(self):
        return os.system, ("touch CREATED",)


CODE = "__import__('os').system('touch CREATED')"
FOREIGN = {"cfg": {"task": {"_name": "audio_pretraining"}, "model": {"_name": "wav2vec2"}}, "model": {}}
for reader in ("convert", "evaluate", "validate", "predict"):
    add_all(
        reader,
        checkpoint_file,
        {
            f"checkpoint_empty_for_{reader}": (b"", "model.pt", "not a checkpoint of torch"),
            f"checkpoint_text_for_{reader}": (b"weights\n", "model.pt", "not a checkpoint of torch"),
            f"checkpoint_cut_short_for_{reader}": (saved({"a": torch.zeros(99)})[:600], "model.pt", "cut short"),
            f"checkpoint_with_a_program_for_{reader}": (saved({"model": Runs()}), "model.pt", "posix.system"),
            f"checkpoint_that_is_a_bomb_for_{reader}": (
                zipped({"a/data.pkl": bytes(1 << 22)}, zipfile.ZIP_DEFLATED),
                "model.pt",
                "is compressed",
            ),
        },
    )


def foreign(part: str, **values) -> bytes:
    config = {name: dict(section) for name, section in FOREIGN["cfg"].items()}
    config.setdefault(part, {}).update(values)
    return saved(FOREIGN | {"cfg": config})


for reader in ("evaluate", "validate"):
    add_all(
        reader,
        checkpoint_file,
        {
            f"checkpoint_whose_convolutions_run_for_{reader}": (
                foreign("model", conv_feature_layers=CODE),
                "model.conv_feature_layers",
                "lists, tuples, integers",
            ),
            f"checkpoint_whose_betas_run_for_{reader}": (
                foreign("optimizer", adam_betas=CODE),
                "optimizer.adam_betas",
                "not evaluated",
            ),
            f"checkpoint_whose_layers_run_for_{reader}": (
                foreign("model", decoder_layers=CODE),
                "model.decoder_layers",
                "do not trust the file",
            ),
            f"checkpoint_with_a_resolver_for_{reader}": (
                foreign("task", data="${oc.env:HOME}"),
                "task.data",
                "holds a resolver",
            ),
        },
    )


@case("convert", "model.pt", "weights alone")
def official_weights_alone(folder):
    return checkpoint_file(folder, saved(official_checkpoints.classifier_parameters()))


def main() -> None:
    (folder,) = map(Path, sys.argv[1:])
    for name, one in CASES.items():
        (folder / name).mkdir(parents=True)
        given = one.make(folder / name / "input")
        print(name, one.kind, given, "->", " … ".join(one.words), sep="\t")


if __name__ == "__main__":
    main()
