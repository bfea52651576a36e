"""progress.json: what it says of a training, how often it is written, and that it is whole whenever it is read."""

import json
import logging
import math
import shutil
import subprocess
import threading
import time
from pathlib import Path

import forked
import pytest
import tiny

from fairseq_neupronet import training_progress
from fairseq_neupronet.runs.log import LOG, read
from fairseq_neupronet.training_progress import NAME, Progress, ProgressWriter, finish_progress, read_progress

FIELDS = ("update", "of", "epoch", "seconds", "seconds_left", "metric", "value", "state")


class Clock:
    """Seconds that a test sets."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def state_after(writer: ProgressWriter, folder, clock: Clock, now: float, state="training", **options) -> Progress:
    clock.now = now
    writer.write(state, **options)
    return read_progress(folder)


# ---- the file ------------------------------------------------------------------------------------------------------


def test_it_says_where_the_training_is_and_when_it_will_be_done(tmp_path):
    clock = Clock()
    writer = ProgressWriter(tmp_path, "accuracy", clock=clock)
    assert read_progress(tmp_path) is None
    writer.move(30, 120, 2)
    assert state_after(writer, tmp_path, clock, 1060) == Progress(30, 120, 2, 60.0, 180.0, "accuracy", None, "training")
    writer.validated(0.625)
    assert state_after(writer, tmp_path, clock, 1090, "validating") == Progress(
        30, 120, 2, 90.0, 270.0, "accuracy", 0.625, "validating"
    )
    assert tuple(json.loads((tmp_path / NAME).read_text())) == FIELDS


def test_what_cannot_be_known_is_null(tmp_path):
    clock = Clock()
    writer = ProgressWriter(tmp_path, "auc", clock=clock)
    writer.move(5, None, 1)
    writer.validated(math.nan)
    shown = state_after(writer, tmp_path, clock, 1001)
    assert (shown.of, shown.seconds_left, shown.value) == (None, None, None)


def test_a_resumed_training_goes_by_its_own_pace(tmp_path):
    """100 updates were made before; 10 in 5 seconds since."""
    clock = Clock()
    writer = ProgressWriter(tmp_path, "accuracy", 0.5, 100, clock)
    shown = state_after(writer, tmp_path, clock, 1001)
    assert (shown.update, shown.seconds_left, shown.value) == (100, None, 0.5)
    writer.move(110, 200, 3)
    assert state_after(writer, tmp_path, clock, 1005).seconds_left == 45.0


def test_it_is_written_once_a_second_at_most_and_at_once_when_asked(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(training_progress, "_write", lambda folder, progress: written.append(progress.update))
    clock = Clock()
    writer = ProgressWriter(tmp_path, "accuracy", clock=clock)
    for update in range(1, 101):  # ten updates a second
        clock.now += 0.1
        writer.move(update, 100, 1)
        writer.write("training")
        writer.write("validating")
    assert 10 <= len(written) <= 11
    writer.write("training", at_once=True)
    assert written[-1] == 100


def test_whoever_reads_while_it_is_written_finds_it_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(training_progress, "_EVERY", 0.0)
    writer, stop = ProgressWriter(tmp_path, "accuracy"), threading.Event()

    def write():
        update = 0
        while not stop.is_set():
            update = (update + 1) % 10**6
            writer.move(10 ** update.bit_length(), None, update)  # of many lengths
            writer.write("training")

    thread = threading.Thread(target=write)
    writer.write("training")
    thread.start()
    try:
        texts, deadline = [], time.monotonic() + 60
        while len(texts) < 3000 or (len(set(texts)) <= 10 and time.monotonic() < deadline):
            texts.append((tmp_path / NAME).read_text())
    finally:
        stop.set()
        thread.join()
    assert len(set(texts)) > 10 and all(tuple(json.loads(text)) == FIELDS for text in texts)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("text", ["", '{"update": 1', "[]", '{"update": 1}', "\xff"])
def test_a_file_that_is_none_is_no_progress(tmp_path, text):
    (tmp_path / NAME).write_text(text, encoding="latin-1")
    assert read_progress(tmp_path) is None


def test_a_training_that_is_done_says_so_and_one_that_wrote_nothing_stays_silent(tmp_path):
    finish_progress(tmp_path)
    assert read_progress(tmp_path) is None
    writer = ProgressWriter(tmp_path, "accuracy")
    writer.move(7, 9, 1)  # stopped early
    writer.write("training")
    finish_progress(tmp_path)
    done = read_progress(tmp_path)
    assert (done.update, done.of, done.seconds_left, done.state) == (7, 9, 0.0, "done")


def test_a_training_goes_on_where_it_cannot_be_written(tmp_path, caplog):
    (tmp_path / "file").touch()
    writer = ProgressWriter(tmp_path / "file" / "folder", "accuracy")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            writer.write("training")
    (record,) = caplog.records
    assert "cannot be written" in record.message and "the training goes on" in record.message


# ---- a training ----------------------------------------------------------------------------------------------------


def keep_all(history):
    """Have a training write after every step, and keep all that it writes."""

    def prepare():
        write = training_progress._write

        def write_and_keep(folder, progress):
            write(folder, progress)
            with history.open("a") as file:
                file.write((Path(folder) / NAME).read_text())

        training_progress._EVERY = 0.0
        training_progress._write = write_and_keep

    return prepare


def train(corpus, folder, *overrides) -> list[Progress]:
    """A training of 5 updates an epoch, validated after each epoch; all that it wrote of its progress."""
    history = folder.with_suffix(".history")
    history.unlink(missing_ok=True)
    arguments = tiny.training("finetuning", "vocalsound", f"task.data={corpus}", f"hydra.run.dir={folder}", *overrides)
    ended = forked.train(arguments, folder.parent, prepare=keep_all(history))
    assert ended.code == 0, ended.printed
    return [Progress(**json.loads(line)) for line in history.read_text().splitlines()]


def figures(folder) -> dict[int, float]:
    """Accuracy of each validation, by update, from the training's log."""
    return {int(row["updates"]): float(row["valid_accuracy"]) for row in read(folder / "checkpoints" / LOG)}


def test_a_training_tells_every_update_its_validations_and_its_end_and_a_resumed_one_goes_on(corpus, tmp_path):
    folder = tmp_path / "run"
    told = train(corpus, folder, "optimization.max_update=12", "checkpoint.save_interval_updates=8")
    known = figures(folder)
    assert sorted(known) == [5, 8, 10, 12]
    assert {one.of for one in told} == {12} and {one.metric for one in told} == {"accuracy"}
    assert list(dict.fromkeys((one.update, one.epoch) for one in told)) == [(n, 1 + (n - 1) // 5) for n in range(1, 13)]
    assert sorted({one.update for one in told if one.state == "validating"}) == sorted(known)
    # The figure is the last validation's, while the next one is at work as well.
    of_validating = {one.update: one.value for one in told if one.state == "validating"}
    assert of_validating == pytest.approx({5: None, 8: known[5], 10: known[8], 12: known[10]}, abs=1e-6)
    assert told[-2].value == told[-1].value == pytest.approx(known[12], abs=1e-6)
    assert [one.seconds for one in told] == sorted(one.seconds for one in told)
    assert [one.state for one in told].count("done") == 1
    assert read_progress(folder / "checkpoints") == told[-1] and told[-1].state == "done"

    # As if it had been killed after update 8, amid a write.
    record = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps(record | {"finished": False}))
    shutil.copy(folder / "checkpoints" / "checkpoint_2_8.pt", folder / "checkpoints" / "checkpoint_last.pt")
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = folder / "checkpoints" / f".{NAME}.{ended.pid}.tmp"
    left.touch()
    resumed = train(corpus, folder, "optimization.max_update=12", "checkpoint.save_interval_updates=8")
    assert list(dict.fromkeys(one.update for one in resumed)) == [9, 10, 11, 12]
    assert resumed[0].value == pytest.approx(known[8], abs=1e-6) and {one.of for one in resumed} == {12}
    assert resumed[-1].state == "done" and not left.exists()


def test_updates_in_all_follow_from_epochs_where_these_end_first(corpus, tmp_path):
    """36 clips in batches of 8 are 5 batches, 3 updates of two batches each; the last has one."""
    overrides = ["optimization.max_update=100", "optimization.max_epoch=3", "optimization.update_freq=[2]"]
    told = train(corpus, tmp_path / "run", *overrides)
    assert {one.of for one in told} == {9} and told[-1].update == 9
    assert told[0].seconds_left == pytest.approx(8 * told[0].seconds, abs=0.5)


def test_a_training_writes_it_beside_its_checkpoints(run_folder):
    done = read_progress(run_folder / "checkpoints")
    assert (done.update, done.of, done.state) == (4, 4, "done")
    assert done.value == pytest.approx(figures(run_folder)[4], abs=1e-6)
