"""Trainings that are told to stop, that lose a process or a disk, or that are killed before they said to be done."""

import re
import shutil
import signal
import socket
import subprocess

import forked
import pytest
from test_resumption import PROFILES, UPDATES, arguments, started_from, trained
from training_comparison import difference, figures

from fairseq_neupronet.checkpoints import durable as checkpoint_files

EXIT_STOPPED = 75
LAST = "checkpoints/checkpoint_last.pt"
NOT_EVERY_UPDATE = ["checkpoint.save_interval_updates=0", "checkpoint.no_epoch_checkpoints=true"]


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """Unbroken trainings, by kind, and what they printed."""
    known = {}

    def train(kind: str):
        if kind not in known:
            folder = tmp_path_factory.mktemp(kind) / "whole"
            known[kind] = folder, trained(kind, corpus, folder, *NOT_EVERY_UPDATE).printed
        return known[kind]

    return train


def slow_down(update: int):
    """For a test to have the time to send a signal: the training waits after this update, until the signal is there."""

    def prepare():
        from fairseq import trainer

        from fairseq_neupronet.trainer import stopping

        step = trainer.Trainer.train_step

        def slow_step(self, samples, raise_oom=False):
            result = step(self, samples, raise_oom)
            if self.get_num_updates() == update:
                print("waiting for a signal", flush=True)
                while not stopping.received():
                    signal.pause()
            return result

        trainer.Trainer.train_step = slow_step

    return prepare


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "number", "update", "whole_group"),
    [
        ("plain", signal.SIGTERM, 7, False),
        ("plain", signal.SIGUSR1, 5, False),
        ("profile_batches", signal.SIGTERM, 4, False),
        ("profile_batches", signal.SIGUSR1, 8, True),
    ],
)
def test_a_training_that_is_told_to_stop_saves_and_resumes(corpus, tmp_path, whole, kind, number, update, whole_group):
    """Amid an epoch, and at its end; with and without processes that load, which may get the signal too."""
    expected, unbroken = whole(kind)
    command = arguments(kind, corpus, tmp_path / "run", *NOT_EVERY_UPDATE)
    training = forked.Training(command, tmp_path, tmp_path / "first.log", slow_down(update))
    training.wait_for("waiting for a signal")
    training.kill(number, whole_group)
    stopped = training.end()
    assert stopped.code == EXIT_STOPPED, stopped.printed
    assert "Traceback" not in stopped.printed
    assert f"stopped by {number.name}: update {update} is saved; the same command resumes" in stopped.printed
    assert checkpoint_files.updates_of(tmp_path / "run" / LAST) == update
    resumed = forked.train(command, tmp_path)
    assert resumed.code == 0, resumed.printed
    assert not difference(tmp_path / "run" / LAST, expected / LAST)
    assert figures(stopped.printed) | figures(resumed.printed) == figures(unbroken)


@pytest.mark.slow
def test_a_training_killed_after_its_last_checkpoint_trains_no_more(corpus, tmp_path, whole):
    expected, _ = whole("plain")
    part = started_from("checkpoint_last.pt", expected, tmp_path / "part")
    ended = trained("plain", corpus, part, *NOT_EVERY_UPDATE)
    assert not figures(ended.printed)
    assert "neupronet: finished: " in ended.printed
    assert not difference(part / LAST, expected / LAST)


@pytest.mark.slow
def test_early_stopping_counts_on_after_a_resumption(corpus, tmp_path):
    """A model that does not move: the first of the figures stays the best, and the fourth validation is the last."""
    options = ["optimization.lr=[1e-12]", "checkpoint.patience=3"]
    ended = trained("plain", corpus, tmp_path / "whole", *options)
    assert checkpoint_files.updates_of(tmp_path / "whole" / LAST) == 4 < UPDATES, ended.printed
    for start in (2, 3):
        part = started_from(f"checkpoint_1_{start}.pt", tmp_path / "whole", tmp_path / str(start))
        trained("plain", corpus, part, *options)
        assert not difference(part / LAST, tmp_path / "whole" / LAST)
    part = started_from("checkpoint_last.pt", tmp_path / "whole", tmp_path / "stopped")
    assert not figures(trained("plain", corpus, part, *options).printed)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_torn_checkpoint_is_said_in_one_line_and_the_training_ends_the_same(corpus, tmp_path, how):
    trained("plain", corpus, tmp_path / "whole")
    part = started_from("checkpoint_2_8.pt", tmp_path / "whole", tmp_path / "part")
    last = part / LAST
    shutil.copy(tmp_path / "whole" / "checkpoints" / "checkpoint_1_3.pt", part / "checkpoints" / "checkpoint_best.pt")
    if how == "cut":
        last.write_bytes(last.read_bytes()[:5000])
    else:
        last.unlink()
    ended = trained("plain", corpus, part)
    said = {"cut": "damaged", "gone": "missing"}[how]
    assert ended.printed.count(f"{said}: the training resumes from checkpoint_best.pt, of update 3") == 1
    assert not difference(last, tmp_path / "whole" / LAST)


@pytest.mark.slow
def test_a_disk_that_fills_up_stops_the_training_with_one_sentence_and_it_goes_on_later(corpus, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        command = arguments("plain", corpus, disk / "run")
        ended = forked.train(command, tmp_path)
        assert ended.code == 1
        assert "Traceback" not in ended.printed, ended.printed
        errors = [line for line in ended.printed.splitlines() if line.startswith("neupronet: error: ")]
        assert len(errors) == 1
        assert re.search(r"\.pt: cannot be written \(No space left on device\); .*checkpoints are kept", errors[0])
        assert 0 < checkpoint_files.updates_of(disk / "run" / LAST) < UPDATES
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert forked.train(command, tmp_path).code == 0
        trained("plain", corpus, tmp_path / "whole")
        assert not difference(disk / "run" / LAST, tmp_path / "whole" / LAST)
    finally:
        subprocess.run(["umount", disk], check=True)


# ---- two processes -------------------------------------------------------------------------------------------------

TWO = [
    "common.cpu=true",
    "distributed_training.distributed_world_size=2",
    "distributed_training.distributed_backend=gloo",
    "distributed_training.distributed_no_spawn=true",
    "distributed_training.device_id=0",
]
BATCHES = ["task.profile_batches=true", "task.clips_per_profile=2", "model.gather_profiles=true"]


def start_two(corpus, folder, *options, prepare=lambda: None) -> list[forked.Training]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    return [
        forked.Training(
            arguments(
                "plain",
                corpus,
                folder,
                *PROFILES,
                *BATCHES,
                *TWO,
                f"distributed_training.distributed_rank={rank}",
                f"distributed_training.distributed_init_method={meeting}",
                *options,
            ),
            folder.parent,
            folder.parent / f"{folder.name}{rank}.log",
            prepare,
        )
        for rank in range(2)
    ]


def trained_by_two(corpus, folder, *options) -> str:
    """What the first of two processes printed. 5 batches an epoch: one of them is without a batch at its end."""
    ended = [training.end() for training in start_two(corpus, folder, *options)]
    assert [each.code for each in ended] == [0, 0], ended[0].printed + ended[1].printed
    return ended[0].printed


@pytest.fixture(scope="module")
def two_whole(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "whole"
    trained_by_two(corpus, folder)
    return folder


@pytest.fixture(scope="module")
def two_whole_seldom_saved(corpus, tmp_path_factory):
    """Its folder, and what the first process printed."""
    folder = tmp_path_factory.mktemp("seldom") / "whole"
    return folder, trained_by_two(corpus, folder, *NOT_EVERY_UPDATE)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_of_two_processes_is_killed_the_other_ends_with_a_sentence_and_both_resume(
    corpus, tmp_path, two_whole, rank
):
    trainings = start_two(corpus, tmp_path / "run")
    trainings[0].wait_for("num_updates=6")
    trainings[rank].kill()
    killed, other = trainings[rank].end(), trainings[1 - rank].end(120)
    assert killed.code == -signal.SIGKILL
    assert other.code == 1, other.printed
    assert "Traceback" not in other.printed, other.printed
    assert other.printed.count("neupronet: error: another process of this training has ended") == 1
    trained_by_two(corpus, tmp_path / "run")
    assert not difference(tmp_path / "run" / LAST, two_whole / LAST)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_of_two_processes_is_told_to_stop_both_save_and_end_as_if_never_stopped(
    corpus, tmp_path, two_whole_seldom_saved, rank
):
    whole, unbroken = two_whole_seldom_saved
    trainings = start_two(corpus, tmp_path / "run", *NOT_EVERY_UPDATE)
    trainings[0].wait_for("num_updates=6")
    trainings[rank].kill(signal.SIGTERM)
    ended = [training.end() for training in trainings]
    assert [each.code for each in ended] == [EXIT_STOPPED] * 2, ended[0].printed + ended[1].printed
    assert "stopped by SIGTERM" in ended[rank].printed
    assert "stopped by a stop signal of another process" in ended[1 - rank].printed
    stopped = checkpoint_files.updates_of(tmp_path / "run" / LAST)
    assert 6 <= stopped < UPDATES
    resumed = trained_by_two(corpus, tmp_path / "run", *NOT_EVERY_UPDATE)
    assert f"@ {stopped} updates" in resumed
    for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
        assert not difference(tmp_path / "run" / "checkpoints" / name, whole / "checkpoints" / name)
    assert figures(ended[0].printed) | figures(resumed) == figures(unbroken)
