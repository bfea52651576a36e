"""Checkpoints on a disk that fills up, is cut off, or has been tampered with."""

import errno
import logging
import os
import subprocess
from unittest import mock

import pytest
import torch

from fairseq_neupronet.checkpoints import durable as checkpoint_files
from fairseq_neupronet.errors import InputError


def state(updates: int) -> dict:
    return {
        "model": {"weight": torch.full((1000,), float(updates))},
        "optimizer_history": [{"num_updates": updates}],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": updates}},
    }


def updates_in(path) -> int:
    return torch.load(path, weights_only=True)["optimizer_history"][-1]["num_updates"]


@pytest.fixture
def folder(tmp_path):
    """The last checkpoint of update 9, and others."""
    for name, updates in (("_last", 9), ("_best", 3), ("_1_6", 6), ("2", 5)):
        checkpoint_files.write(state(updates), tmp_path / f"checkpoint{name}.pt")
    torch.save({"model": {}}, tmp_path / "crash.pt")
    return tmp_path


def damage(path, how: str):
    data = bytearray(path.read_bytes())
    if how == "garbage":
        data[1500:1600] = os.urandom(100)  # amid the weights, where torch would not notice
        assert torch.load(path, weights_only=True)
    path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "garbage": data, "text": b"not a checkpoint"}[how])


@pytest.mark.parametrize("how", ["empty", "cut", "garbage", "text"])
def test_a_damaged_checkpoint_is_replaced_by_the_newest_other_one_in_one_line(folder, caplog, how):
    last = folder / "checkpoint_last.pt"
    damage(last, how)
    damaged = last.read_bytes()
    with caplog.at_level(logging.WARNING):
        checkpoint_files.repair(last)
    assert updates_in(last) == updates_in(folder / "checkpoint_1_6.pt") == 6
    assert (folder / "checkpoint_last.pt.damaged").read_bytes() == damaged
    (record,) = caplog.records
    assert record.message == f"{last} is damaged: the training resumes from checkpoint_1_6.pt, of update 6"


def test_other_damaged_ones_are_passed_over(folder, caplog):
    for name in ("_last", "_1_6"):
        damage(folder / f"checkpoint{name}.pt", "cut")
    damage(folder / "checkpoint2.pt", "garbage")
    checkpoint_files.repair(folder / "checkpoint_last.pt")
    assert updates_in(folder / "checkpoint_last.pt") == 3


def test_a_missing_one_is_replaced_too(folder, caplog):
    (folder / "checkpoint_last.pt").unlink()
    checkpoint_files.repair(folder / "checkpoint_last.pt")
    assert updates_in(folder / "checkpoint_last.pt") == 6
    assert "checkpoint_last.pt is missing" in caplog.text


def test_without_another_one_the_training_starts_from_the_beginning_and_says_so(tmp_path, caplog):
    last = tmp_path / "checkpoint_last.pt"
    last.write_bytes(b"")
    checkpoint_files.repair(last)
    assert not last.exists()
    (record,) = caplog.records
    assert "there is no other checkpoint: the training starts from the beginning" in record.message


def test_nothing_is_said_or_done_where_all_is_well_or_nothing_is_there(folder, tmp_path, caplog):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    checkpoint_files.repair(folder / "checkpoint_last.pt")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (tmp_path / "new").mkdir()
    checkpoint_files.repair(tmp_path / "new" / "checkpoint_last.pt")
    assert not caplog.records and not list((tmp_path / "new").iterdir())


def test_what_a_killed_writer_left_is_swept_away(folder):
    (folder / ".checkpoint_last.pt.123.tmp").write_bytes(b"half")
    checkpoint_files.repair(folder / "checkpoint_last.pt")
    assert not list(folder.glob(".*"))


def test_the_only_checkpoint_is_kept_until_there_is_another(tmp_path):
    last, previous = tmp_path / "checkpoint_last.pt", tmp_path / "checkpoint_previous.pt"
    for updates in (1, 2, 3):
        checkpoint_files.keep_previous(last)
        checkpoint_files.write(state(updates), last)
    assert (updates_in(previous), updates_in(last)) == (2, 3)
    damage(last, "cut")
    assert updates_in(previous) == 2
    checkpoint_files.repair(last)
    assert updates_in(last) == 2
    checkpoint_files.write(state(3), tmp_path / "checkpoint_best.pt")
    checkpoint_files.keep_previous(last)
    assert not previous.exists()


def test_where_there_are_no_links_the_only_checkpoint_is_copied(tmp_path):
    last = tmp_path / "checkpoint_last.pt"
    checkpoint_files.write(state(1), last)
    with mock.patch("os.link", side_effect=PermissionError):
        checkpoint_files.keep_previous(last)
    assert updates_in(tmp_path / "checkpoint_previous.pt") == 1


def writes(last, best):
    return [lambda: checkpoint_files.write(state(10), last), lambda: checkpoint_files.copy(best, last)]


@pytest.mark.parametrize("number", [0, 1])
def test_a_disk_that_is_full_is_one_sentence_and_the_earlier_file_stays(folder, number):
    """A real one, where a file system can be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        last = disk / "checkpoint_last.pt"
        checkpoint_files.write(state(9), last)
        with pytest.raises(InputError) as raised:
            for _ in range(3):
                writes(last, folder / "checkpoint_best.pt")[number]()
                (disk / "more").write_bytes(bytes(5000))
        assert str(raised.value) == (
            f"{last}: cannot be written (No space left on device); free the disk or choose a folder you may write to; "
            "the training stops, earlier checkpoints are kept, and the same command goes on from the newest"
        )
        assert checkpoint_files.updates_of(last) is not None
        assert sorted(path.name for path in disk.iterdir()) == ["checkpoint_last.pt", "more"]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("number", [0, 1])
def test_a_disk_that_fails_to_sync_leaves_the_earlier_file(folder, number):
    last = folder / "checkpoint_last.pt"
    with mock.patch("os.fsync", side_effect=OSError(errno.EIO, "Input/output error")), pytest.raises(InputError):
        writes(last, folder / "checkpoint_best.pt")[number]()
    assert updates_in(last) == 9
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("number", [0, 1])
def test_a_checkpoint_is_on_the_disk_before_it_takes_its_name(folder, number):
    last, order = folder / "checkpoint_last.pt", []
    with (
        mock.patch("os.fsync", side_effect=lambda file: order.append(os.readlink(f"/proc/self/fd/{file}"))),
        mock.patch("os.replace", side_effect=lambda source, target: order.append(("replace", str(source)))),
    ):
        writes(last, folder / "checkpoint_best.pt")[number]()
    temporary = order[0]
    assert order == [temporary, ("replace", temporary), str(folder)]


def test_what_is_no_checkpoint_of_a_training_cannot_be_resumed_from(folder):
    assert checkpoint_files.updates_of(folder / "crash.pt") is None
    assert checkpoint_files.updates_of(folder / "checkpoint_best.pt") == 3
    assert checkpoint_files.updates_of(folder / "none.pt") is None
