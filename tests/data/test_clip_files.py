"""Stored spectrograms, loose and packed: what is read, and the sentence for what cannot be."""

import gc
import io
import multiprocessing
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
from fairseq.data.audio.audio_utils import get_features_or_waveform

from fairseq_neupronet.data.clip_files import ClipFiles, ClipNames, check_files, read_directory
from fairseq_neupronet.data.manifest import read_manifest
from fairseq_neupronet.errors import InputError

WHERE = "train.tsv:7"


def stored(folder, array, name="a.npy"):
    np.save(folder / name, array)
    return folder / name


def read(path, n_mels=4, n_frames=6):
    return ClipFiles(path.parent).read(path.name, n_mels, n_frames, WHERE)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int16", "uint8", ">f4", ">f2"])
def test_any_number_type_is_read_as_float32(tmp_path, dtype):
    array = np.arange(24).reshape(4, 6).astype(dtype)
    clip = read(stored(tmp_path, array))
    assert clip.dtype == np.float32
    np.testing.assert_array_equal(clip, array)


def refused(path, n_mels=4, n_frames=6):
    with pytest.raises(InputError) as raised:
        read(path, n_mels, n_frames)
    sentence = str(raised.value)
    assert sentence.startswith(f"{WHERE}: feature file {path} ")
    assert sentence.endswith("run `neupronet prepare` again")
    assert "\n" not in sentence
    return sentence


def test_a_missing_feature_file(tmp_path):
    assert "is missing" in refused(tmp_path / "a.npy")


@pytest.mark.parametrize("kept", [0, 5, 60, 130, 200])
def test_a_truncated_feature_file(tmp_path, kept):
    path = stored(tmp_path, np.zeros((4, 6), np.float32))
    path.write_bytes(path.read_bytes()[:kept])
    assert "cannot be read as an array" in refused(path)


def test_a_feature_file_that_is_no_array(tmp_path):
    path = tmp_path / "a.npy"
    path.write_text("RIFF, or some other thing")
    assert "cannot be read as an array" in refused(path)


def test_a_folder_in_a_feature_files_place(tmp_path):
    (tmp_path / "a.npy").mkdir()
    assert "cannot be read" in refused(tmp_path / "a.npy")


def test_pickled_objects_are_not_run(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "cannot be read as an array" in refused(path)


def test_an_archive_of_arrays_is_not_an_array(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 6)))
    path = (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    assert "is not a (mels, frames) array" in refused(path)


@pytest.mark.parametrize("array", [np.zeros(24), np.zeros((1, 4, 6)), np.zeros((4, 6), complex), np.array([["a"]])])
def test_an_array_of_another_kind(tmp_path, array):
    assert "is not a (mels, frames) array of numbers" in refused(stored(tmp_path, array))


def test_the_wrong_mel_count_names_both(tmp_path):
    sentence = refused(stored(tmp_path, np.zeros((5, 6), np.float32)))
    assert "has 5 mel bands and 6 frames, the manifest says 4 and 6" in sentence


def test_the_wrong_frame_count_names_both(tmp_path):
    assert "the manifest says 4 and 6" in refused(stored(tmp_path, np.zeros((4, 7), np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path, value):
    array = np.zeros((4, 6), np.float32)
    array[2, 3] = value
    assert "holds NaN or infinite values" in refused(stored(tmp_path, array))


def test_a_value_that_overflows_float32_is_not_finite(tmp_path):
    array = np.zeros((4, 6))
    array[0, 0] = 1e300
    assert "holds NaN or infinite values" in refused(stored(tmp_path, array))


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_both_format_versions_and_both_orders_of_memory(tmp_path, version):
    array = np.asfortranarray(np.arange(24, dtype=np.float32).reshape(4, 6))
    with open(tmp_path / "a.npy", "wb") as stream:
        np.lib.format.write_array(stream, array, version)
    clip = read(tmp_path / "a.npy")
    np.testing.assert_array_equal(clip, array)
    assert clip.flags.c_contiguous


def write_header(path, descr, shape):
    with open(path, "wb") as stream:
        fields = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, fields)
        stream.write(bytes(96))


def test_a_header_that_asks_for_more_than_there_is_allocates_nothing(tmp_path):
    write_header(tmp_path / "a.npy", "<f4", (4, 10**15))
    assert "has 4 mel bands and 1000000000000000 frames" in refused(tmp_path / "a.npy")
    write_header(tmp_path / "a.npy", "<f8", (4, 6))
    assert "224 bytes of its 320" in refused(tmp_path / "a.npy")
    write_header(tmp_path / "a.npy", "<f4", (4, 10**10))
    assert "cannot be read as an array (224 bytes of its 160000000128)" in refused(tmp_path / "a.npy", n_frames=10**10)


@pytest.mark.parametrize(
    "header",
    [
        b"{'shape': (4, 6",
        b"",
        b"{}",
        b"[[[",
        b"\xff" * 9,
        b"(" * 9000,
        b"{'descr': '<q9', 'fortran_order': False, 'shape': (4, 6)}",
    ],
)
def test_a_damaged_header(tmp_path, header):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(96))
    assert "cannot be read as an array (the .npy header is damaged)" in refused(tmp_path / "a.npy")


def test_a_header_of_code_is_not_run(tmp_path):
    path = stored(tmp_path, np.zeros((4, 6), np.float32))
    evil = f"__import__('os').mkdir({str(tmp_path / 'ran')!r})".encode()
    path.write_bytes(path.read_bytes()[:8] + len(evil).to_bytes(2, "little") + evil + bytes(96))
    assert "cannot be read as an array" in refused(path)
    assert not (tmp_path / "ran").exists()


# ---- packed --------------------------------------------------------------------------------------------------------


def packed(folder, arrays, compression=zipfile.ZIP_STORED, name="clips.zip"):
    """A zip of arrays by name, made by zipfile alone; the offset and length of each."""
    with zipfile.ZipFile(folder / name, "w", compression) as contents:
        for member, array in arrays.items():
            stream = io.BytesIO()
            np.save(stream, array)
            contents.writestr(member, stream.getvalue())
    data = (folder / name).read_bytes()
    places = {}
    for entry in zipfile.ZipFile(folder / name).infolist():
        start = entry.header_offset + 30 + len(entry.filename.encode())
        assert data[start - len(entry.filename.encode()) : start] == entry.filename.encode()
        places[entry.filename] = (start, entry.compress_size)
    return places


def row(place, name="clips.zip"):
    return f"{name}:{place[0]}:{place[1]}"


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    arrays = {f"speaker/ü{number}.npy": rng.normal(size=(4, 6)).astype(np.float32) for number in range(5)}
    return arrays | {"half.npy": rng.normal(size=(4, 6)).astype(np.float16), "odd name.npy": rng.normal(size=(4, 6))}


def test_packed_clips_are_read_as_fairseqs_own_reader_reads_them(tmp_path, arrays):
    files = ClipFiles(tmp_path)
    for name, place in packed(tmp_path, arrays).items():
        clip = files.read(row(place), 4, 6, WHERE)
        assert clip.dtype == np.float32
        np.testing.assert_array_equal(clip, arrays[name].astype(np.float32))
        np.testing.assert_array_equal(clip, get_features_or_waveform(str(tmp_path / row(place))).astype(np.float32))


def test_packed_clips_follow_the_root_as_loose_ones(tmp_path, arrays):
    place = packed(tmp_path, arrays)["half.npy"]
    (tmp_path / "elsewhere").mkdir()
    for clip in (row(place, "../clips.zip"), row(place, str(tmp_path / "clips.zip"))):
        ClipFiles(tmp_path / "elsewhere").read(clip, 4, 6, WHERE)


def refused_row(folder, clip, n_frames=6):
    with pytest.raises(InputError) as raised:
        ClipFiles(folder).read(clip, 4, n_frames, WHERE)
    sentence = str(raised.value)
    assert sentence.startswith(f"{WHERE}: feature file {folder}/clips.zip")
    assert sentence.endswith("run `neupronet prepare` again")
    assert "\n" not in sentence
    return sentence


def test_places_that_hold_no_array_are_named(tmp_path, arrays):
    start, length = packed(tmp_path, arrays)["half.npy"]
    size = (tmp_path / "clips.zip").stat().st_size
    assert f"it reaches past the {size} bytes of the zip" in refused_row(tmp_path, row((start, 10**17)))
    assert f"it reaches past the {size} bytes of the zip" in refused_row(tmp_path, row((10**17, length)))
    assert "no .npy header" in refused_row(tmp_path, row((start + 1, length)))
    assert "no .npy header" in refused_row(tmp_path, row((start, 0)))
    assert "cut off" in refused_row(tmp_path, row((start, 60)))
    assert f"{length - 1} bytes of its {length}" in refused_row(tmp_path, row((start, length - 1)))
    assert "the manifest says 4 and 7" in refused_row(tmp_path, row((start, length)), n_frames=7)
    for clip in ("clips.zip:5", "clips.zip:5:-7", "clips.zip:a:b", "clips.zip:1:2:3", "clips.zip::"):
        assert "(not file.zip:offset:length)" in refused_row(tmp_path, clip)


def test_a_missing_zip_is_named(tmp_path):
    assert f"feature file {tmp_path}/clips.zip is missing" in refused_row(tmp_path, "clips.zip:60:200")


def test_a_compressed_member_is_named(tmp_path):
    arrays = {f"{number}.npy": np.full((4, 6), number) for number in range(3)}
    places = packed(tmp_path, arrays, zipfile.ZIP_DEFLATED)
    assert "if it is compressed in the zip, store it there as it is" in refused_row(tmp_path, row(places["1.npy"]))


def test_check_files_knows_packed_clips(tmp_path, arrays):
    (start, length), size = packed(tmp_path, arrays)["half.npy"], (tmp_path / "clips.zip").stat().st_size
    broken = [row((start, 40)), row((size - 10, length)), row((start, length), "gone.zip"), "clips.zip:x:9", "gone.npy"]
    lines = [str(tmp_path), *(f"{clip}\t4\t6\tp" for clip in [row((start, length)), *broken])]
    for n_lines, n_broken in ((2, 0), (3, 1), (7, 5)):
        (tmp_path / "train.tsv").write_text("\n".join(lines[:n_lines]))
        manifest = read_manifest(tmp_path / "train.tsv")
        if n_broken:
            sentence = rf"train\.tsv:3: feature file .*{re.escape(broken[0])} is missing or truncated \({n_broken} such"
            with pytest.raises(InputError, match=sentence):
                check_files(manifest)
        else:
            check_files(manifest)


def test_an_open_zip_survives_pickling_forking_and_replacement(tmp_path, arrays):
    clips = {name: row(place) for name, place in packed(tmp_path, arrays).items()}
    files = ClipFiles(tmp_path)
    files.read(clips["half.npy"], 4, 6, WHERE)
    copy = pickle.loads(pickle.dumps(files))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        work = [(clip, 4, 6, WHERE) for clip in clips.values()] * 20
        for name, clip in zip(list(arrays) * 20, pool.starmap(files.read, work), strict=True):
            np.testing.assert_array_equal(clip, arrays[name].astype(np.float32))
    packed(tmp_path, {"other.npy": np.zeros((4, 6))}, name="new.zip")
    (tmp_path / "new.zip").replace(tmp_path / "clips.zip")
    np.testing.assert_array_equal(files.read(clips["half.npy"], 4, 6, WHERE), arrays["half.npy"])
    with pytest.raises(InputError):
        copy.read(clips["odd name.npy"], 4, 6, WHERE)


def test_a_zip_is_closed_with_its_reader(tmp_path, arrays):
    place = packed(tmp_path, arrays)["half.npy"]

    def open_files():
        return [
            os.readlink(f"/proc/self/fd/{number}")
            for number in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{number}")
        ]

    files = ClipFiles(tmp_path)
    files.read(row(place), 4, 6, WHERE)
    assert str(tmp_path / "clips.zip") in open_files()
    del files
    gc.collect()
    assert str(tmp_path / "clips.zip") not in open_files()


# ---- names in results ----------------------------------------------------------------------------------------------


def test_results_name_packed_clips_by_their_members(tmp_path, arrays):
    places = packed(tmp_path, arrays)
    name_of = ClipNames(tmp_path)
    assert [name_of(row(place)) for place in places.values()] == list(arrays)
    assert name_of("loose/a.npy") == "loose/a.npy"
    inside = row((places["half.npy"][0] + 1, 9))
    assert name_of(inside) == inside
    assert name_of("gone.zip:1:2") == "gone.zip:1:2"


def test_members_that_other_tools_packed_are_found_behind_their_extra_fields(tmp_path):
    """Two lengths of the extra field: one before the data, another in the directory."""
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as contents:
        entry = zipfile.ZipInfo("a.npy")
        entry.extra = b"\x99\x99\x04\x00abcd"
        contents.writestr(entry, b"0123456789")
        contents.filelist[0].extra = b""
    (member,) = read_directory(tmp_path / "clips.zip").values()
    assert (tmp_path / "clips.zip").read_bytes()[member.offset :][: member.length] == b"0123456789"


def test_what_is_no_whole_zip_is_a_value_error(tmp_path, arrays):
    packed(tmp_path, arrays)
    data = (tmp_path / "clips.zip").read_bytes()
    for broken in (b"", data[:-30], b"PK" * 100):
        (tmp_path / "clips.zip").write_bytes(broken)
        with pytest.raises(ValueError, match=r"clips\.zip is not a whole zip"):
            read_directory(tmp_path / "clips.zip")
