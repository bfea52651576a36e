"""Strangers' checkpoints: each refused by its sentence, and nothing of it run."""

import os
import pickle
import pickletools
import tracemalloc
import zipfile
import zlib

import numpy as np
import official_checkpoints as fakes
import pytest
import torch
from conversions import converted

from fairseq_neupronet.checkpoints.plain import MAX_PICKLE_BYTES, read_plain_checkpoint
from fairseq_neupronet.cli import main
from fairseq_neupronet.errors import InputError

MEBIBYTE = 2**20


def refusal(path, tmp_path, capsys) -> str:
    """The one sentence of a refusal; no output file is there."""
    capsys.readouterr()
    assert main(["convert", str(path), str(tmp_path / "out.pt")]) == 1
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    (sentence,) = [line for line in printed.splitlines() if line.startswith("neupronet: error: ")]
    assert not list(tmp_path.glob("*out.pt*"))
    assert str(path) in sentence
    return sentence


class Creates:
    """Unpickled, it creates a file."""

    def __init__(self, path, function=os.system):
        self.call = (function, (f"touch {path}",)) if function is os.system else (function, (str(path), "w"))

    def __reduce__(self):
        return self.call


# ---- classes -------------------------------------------------------------------------------------------------------


# Python 3.11 names the module of open io, 3.12 _io.
@pytest.mark.parametrize(
    ("function", "name"), [(os.system, "posix.system"), (open, f"{open.__module__}.open")], ids=["system", "open"]
)
def test_a_pickle_that_would_create_a_file_is_refused_by_the_name_of_its_function(tmp_path, capsys, function, name):
    state = fakes.classifier()
    state["extra_state"]["surprise"] = Creates(tmp_path / "created", function)
    path = fakes.save(state, tmp_path / "official.pt")
    assert f"asks for {name}, which is neither a tensor nor a plain container" in refusal(path, tmp_path, capsys)
    assert not (tmp_path / "created").exists()
    # The file is as dangerous as it is said to be.
    torch.load(path, weights_only=False)
    assert (tmp_path / "created").exists()


@pytest.mark.parametrize("protocol", [4, 5])
def test_later_pickle_protocols_name_their_functions_otherwise_and_are_refused_too(tmp_path, capsys, protocol):
    path = tmp_path / "official.pt"
    torch.save({"cfg": Creates(tmp_path / "created")}, path, pickle_protocol=protocol)
    assert "asks for posix.system, " in refusal(path, tmp_path, capsys)
    assert not (tmp_path / "created").exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"(S'touch CREATED'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch CREATED'\no.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02ctorch\nTensor\nJ\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86R.",
        b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.",
    ],
    ids=["INST", "OBJ", "EXT1", "bytearray", "torch.Tensor", "eval"],
)
def test_other_instructions_and_functions_that_allocate_are_refused(tmp_path, capsys, pickled, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fakes.save({"a": 1}, tmp_path / "plain.pt")
    path = fakes.repack(tmp_path / "plain.pt", tmp_path / "official.pt", lambda _: pickled)
    sentence = refusal(path, tmp_path, capsys)
    assert "which is neither a tensor nor a plain container; nothing" in sentence or "has the instruction" in sentence
    assert not (tmp_path / "CREATED").exists()


@pytest.mark.parametrize("save", [torch.save, pickle.dump])
def test_a_hostile_file_that_is_no_archive_is_refused_unread(tmp_path, capsys, save):
    path = tmp_path / "official.pt"
    options = {"_use_new_zipfile_serialization": False} if save is torch.save else {}
    with open(path, "wb") as stream:
        save({"model": Creates(tmp_path / "created")}, stream, **options)
    sentence = "written by torch before 1.6" if save is torch.save else "not a checkpoint of torch"
    assert sentence in refusal(path, tmp_path, capsys)
    assert not (tmp_path / "created").exists()


def test_namespaces_of_older_fairseq_are_refused_by_name(tmp_path, capsys):
    import argparse

    path = fakes.save(fakes.classifier() | {"args": argparse.Namespace(arch="x")}, tmp_path / "official.pt")
    assert "asks for argparse.Namespace, " in refusal(path, tmp_path, capsys)


def test_single_numbers_of_numpy_are_read_as_pythons(tmp_path):
    """A metric that numpy computed is one in the official checkpoint."""
    state = fakes.classifier()
    state["extra_state"] |= {"best": np.float64(71.875), "previous_training_time": np.float32(8.5)}
    state["optimizer_history"][0]["lr_scheduler_state"] = {"best": np.int64(25)}
    extra = converted(state, tmp_path)["extra_state"]
    assert (extra["best"], extra["previous_training_time"]) == (0.71875, 8.5)
    values = [np.bool_(True), np.uint8(200), np.int16(-3), np.float16(0.5), np.array(7, ">i4")[()]]
    read = read_plain_checkpoint(fakes.save({"values": values}, tmp_path / "numbers.pt"))["values"]
    assert read == [True, 200, -3, 0.5, 7]
    assert [type(value) for value in read] == [bool, int, int, float, int]


@pytest.mark.parametrize("value", [np.zeros(3), np.str_("text"), np.datetime64("2022-01-01")])
def test_other_values_of_numpy_are_refused(tmp_path, value):
    with pytest.raises(InputError):
        read_plain_checkpoint(fakes.save({"value": value}, tmp_path / "official.pt"))


# ---- texts that a library would evaluate ---------------------------------------------------------------------------


def payload(tmp_path) -> str:
    return f"__import__('os').system('touch {tmp_path}/created')"


@pytest.mark.parametrize("where", ["used", "unused"])
def test_an_eval_payload_in_a_convolution_specification(tmp_path, capsys, where):
    state = fakes.classifier()
    model = state["cfg"]["model"]
    section = model["w2v_args"]["model"] if where == "used" else model
    section["conv_feature_layers"] = f"[(64, 3, 1, {payload(tmp_path)})]"
    sentence = refusal(fakes.save(state, tmp_path / "official.pt"), tmp_path, capsys)
    assert "conv_feature_layers: conv_feature_layers may hold lists, tuples, integers, + and * only" in sentence
    assert not (tmp_path / "created").exists()


@pytest.mark.parametrize(
    "text",
    [
        "PAYLOAD",
        "(0.9, PAYLOAD)",
        "(0.9, 0.98) if PAYLOAD else 0",
        "(0.9,)",
        "(0.9, 1.0)",
        "(0.9, float('nan'))",
        "(0.9, -.1)",
        "[" * 90,
        "9" * 99,
        "(0.9, True)",
        "0.9, 0.98, 0",
    ],
)
@pytest.mark.parametrize("where", ["used", "unused"])
def test_an_eval_payload_in_adam_betas(tmp_path, capsys, text, where):
    state = fakes.classifier()
    if where == "unused":
        state["cfg"]["model"]["w2v_args"]["optimizer"] = {"adam_betas": "(0.9, 0.98)"}
    section = state["cfg"]["optimizer"] if where == "used" else state["cfg"]["model"]["w2v_args"]["optimizer"]
    section["adam_betas"] = text.replace("PAYLOAD", payload(tmp_path))
    sentence = refusal(fakes.save(state, tmp_path / "official.pt"), tmp_path, capsys)
    assert "optimizer.adam_betas is " in sentence
    assert "not two numbers from 0 to below 1, as (0.9, 0.98); it was not evaluated" in sentence
    assert not (tmp_path / "created").exists()


def test_betas_are_written_anew_from_their_numbers(tmp_path):
    for given in ("( 0.9 ,0.98 )", "[0.9, 0.98]", [0.9, 0.98], (0.9, 0.98)):
        state = fakes.classifier()
        state["cfg"]["optimizer"]["adam_betas"] = given
        assert converted(state, tmp_path, "--force")["cfg"]["optimizer"]["adam_betas"] == "(0.9, 0.98)"


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "a ${x} b", "${hydra:runtime.cwd}", "\\${x}"])
@pytest.mark.parametrize("where", ["value", "list", "key", "unused"])
def test_a_resolver_in_the_configuration(tmp_path, capsys, text, where):
    state = fakes.classifier()
    task = state["cfg"]["task"]
    if where == "value":
        task["labels"] = text
    elif where == "list":
        task["labels"] = ["label", {"deep": (text,)}]
    elif where == "key":
        task[text] = 1
    else:
        state["cfg"]["model"]["w2v_args"]["job_logging_cfg"] = {"root": {"level": text}}
    sentence = refusal(fakes.save(state, tmp_path / "official.pt"), tmp_path, capsys)
    key = "model.w2v_args.job_logging_cfg.root.level" if where == "unused" else "task."
    assert f"configuration key {key}" in sentence
    assert "holds a resolver (${…})" in sentence


@pytest.mark.parametrize("subset", ["../../secret", "/etc/x", "a b", ""])
def test_splits_that_are_paths_are_refused(tmp_path, capsys, subset):
    state = fakes.classifier()
    state["cfg"]["dataset"]["valid_subset"] = subset
    sentence = refusal(fakes.save(state, tmp_path / "official.pt"), tmp_path, capsys)
    assert "configuration key dataset.valid_subset" in sentence


# ---- sizes ---------------------------------------------------------------------------------------------------------


def zeros_of(n_mebibytes: int) -> bytes:
    """A raw deflate stream of that many zeros, put together from one mebibyte's."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(MEBIBYTE)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return block * n_mebibytes + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def add_deflated(archive: zipfile.ZipFile, name: str, stream: bytes, size: int) -> None:
    member = zipfile.ZipInfo(name)
    member.compress_type, member.file_size, member.compress_size = zipfile.ZIP_DEFLATED, size, len(stream)
    member.CRC = 0
    member.header_offset = archive.fp.tell()
    archive.fp.write(member.FileHeader(zip64=True) + stream)
    archive.start_dir = archive.fp.tell()
    archive.filelist.append(member)
    archive.NameToInfo[name] = member
    archive._didModify = True


def test_the_bomb_of_these_tests_is_one():
    assert zlib.decompress(zeros_of(3), -15) == bytes(3 * MEBIBYTE)


@pytest.mark.parametrize("member", ["data/0", "data.pkl"])
def test_a_zip_bomb_of_ten_gigabytes_of_zeros(tmp_path, capsys, member):
    path = tmp_path / "official.pt"
    n_mebibytes = 10 * 1024
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        if member != "data.pkl":
            archive.writestr("official/data.pkl", fakes.pickled({"a": 1}))
        add_deflated(archive, f"official/{member}", zeros_of(n_mebibytes), n_mebibytes * MEBIBYTE)
    assert path.stat().st_size < 20 * MEBIBYTE
    tracemalloc.start()
    try:
        sentence = refusal(path, tmp_path, capsys)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert f"member official/{member} is compressed" in sentence
    assert f"bytes of {10 * 2**30}; torch never compresses" in sentence
    assert peak < 5 * MEBIBYTE


def test_members_that_share_their_bytes_are_refused(tmp_path, capsys):
    """Stored members that overlap: a small file whose directory claims much more than it has."""
    path = tmp_path / "official.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("official/data.pkl", fakes.pickled({"a": 1}))
        archive.writestr("official/data/0", bytes(MEBIBYTE))
        first = archive.getinfo("official/data/0")
        for number in range(1, 100):
            again = zipfile.ZipInfo(f"official/data/{number}")
            again.file_size = again.compress_size = MEBIBYTE
            again.CRC, again.header_offset = first.CRC, first.header_offset
            archive.filelist.append(again)
        archive._didModify = True
    assert "members claim 1048" in refusal(path, tmp_path, capsys)


def test_a_pickle_of_many_megabytes_is_refused(tmp_path, capsys):
    path = fakes.save({"cfg": "x" * MAX_PICKLE_BYTES}, tmp_path / "official.pt")
    assert f"more than {MAX_PICKLE_BYTES}" in refusal(path, tmp_path, capsys)


def test_a_tensor_that_repeats_one_number_is_refused(tmp_path, capsys):
    """Strides of 0: 10 ** 12 numbers that take four bytes of the file."""
    state = fakes.classifier()
    state["model"]["decoder.0.weight"] = torch.zeros(1).expand(10**6, 10**6)
    path = fakes.save(state, tmp_path / "official.pt")
    assert "its tensors claim more numbers than the file holds" in refusal(path, tmp_path, capsys)


def test_a_storage_larger_than_its_member_is_refused(tmp_path, capsys):
    fakes.save({"cfg": {}, "model": {"a": torch.ones(4)}}, tmp_path / "plain.pt")
    many = b"J\x00\x00\x00\x40"  # 2 ** 30, where 4 was written
    path = fakes.repack(
        tmp_path / "plain.pt",
        tmp_path / "official.pt",
        lambda pickled: pickled.replace(b"K\x04t", many + b"t").replace(b"K\x04\x85", many + b"\x85"),
    )
    assert "damaged, torch cannot read it" in refusal(path, tmp_path, capsys)


def test_widths_without_their_matrices_build_no_network(tmp_path, capsys):
    """A vector of 300,000 numbers would ask for attention matrices of 90 milliard each."""
    state = fakes.classifier()
    for name in [name for name in state["model"] if name.startswith("profile_extractor.")]:
        del state["model"][name]
    state["cfg"]["task"]["profiling"] = False
    width = 300_000
    state["model"]["encoder.w2v_model.mask_emb"] = torch.zeros(width)
    network = state["cfg"]["model"]["w2v_args"]["model"]
    network["encoder_embed_dim"] = width
    network["conv_pos_groups"] = width // 16
    state["last_optimizer_state"] = None
    sentence = refusal(fakes.save(state, tmp_path / "official.pt"), tmp_path, capsys)
    assert "their shapes contradict one another" in sentence


def test_containers_in_themselves_and_a_billion_laughs_are_refused(tmp_path, capsys):
    laughs = ["ha"]
    for _ in range(12):
        laughs = [laughs] * 10
    itself = []
    itself.append(itself)
    for name, value in (("laughs", laughs), ("itself", itself)):
        path = fakes.save(fakes.classifier() | {"extra": value}, tmp_path / f"{name}.pt")
        assert "values, or 64 containers in one another" in refusal(path, tmp_path, capsys)


# ---- damaged and foreign files -------------------------------------------------------------------------------------


def test_a_half_downloaded_file_says_so(tmp_path, capsys):
    whole = fakes.save(fakes.classifier(), tmp_path / "whole.pt").read_bytes()
    for share in (0.001, 0.5, 0.999):
        (tmp_path / "half.pt").write_bytes(whole[: int(len(whole) * share)])
        assert "cut short, perhaps half downloaded" in refusal(tmp_path / "half.pt", tmp_path, capsys)


def test_a_flipped_byte_is_found(tmp_path, capsys):
    path = fakes.save(fakes.classifier(), tmp_path / "official.pt")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "(checksum); fetch or make the file again" in refusal(path, tmp_path, capsys)


def test_files_of_other_kinds_are_named(tmp_path, capsys):
    kinds = {"text.pt": b"hello\n", "empty.pt": b"", "pickle.pt": pickle.dumps({"model": 1})}
    for name, content in kinds.items():
        (tmp_path / name).write_bytes(content)
        assert "not a checkpoint of torch; give a .pt file" in refusal(tmp_path / name, tmp_path, capsys)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "a zip archive without data.pkl" in refusal(tmp_path / "other.zip", tmp_path, capsys)
    assert "no such file" in refusal(tmp_path / "absent.pt", tmp_path, capsys)
    torch.save(fakes.classifier(), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    assert "written by torch before 1.6" in refusal(tmp_path / "legacy.pt", tmp_path, capsys)
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    assert "TorchScript archive, which holds code" in refusal(tmp_path / "script.pt", tmp_path, capsys)


@pytest.mark.parametrize("cut", [0, 1, 10, 30])
def test_a_pickle_that_ends_early_is_damaged(tmp_path, capsys, cut):
    fakes.save({"cfg": {"a": "b"}, "model": {}}, tmp_path / "plain.pt")
    path = fakes.repack(tmp_path / "plain.pt", tmp_path / "official.pt", lambda pickled: pickled[:-1][:cut])
    assert "damaged" in refusal(path, tmp_path, capsys)


def test_random_pickles_of_allowed_instructions_end_in_a_sentence(tmp_path):
    """Whatever the instructions do together, the outcome is a value that is checked or a sentence."""
    rng = np.random.default_rng(0)
    fakes.save({"cfg": {"a": [1, 2.0, None, True]}, "model": {"a": torch.ones(3)}}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as archive:
        pickled = archive.read("plain/data.pkl")
    positions = [position for *_, position in pickletools.genops(pickled)]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(300):
        order = sorted(rng.choice(positions[1:-1], size=len(positions) - 6, replace=False))
        pieces = [pickled[start : positions[positions.index(start) + 1]] for start in order]
        shuffled = b"\x80\x02" + b"".join(pieces) + b"."
        path = fakes.repack(tmp_path / "plain.pt", tmp_path / "official.pt", lambda _, data=shuffled: data)
        try:
            read_plain_checkpoint(path)
            outcomes["read"] += 1
        except InputError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 100
