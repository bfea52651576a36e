"""A training's output folder: its name, resumption, and whose it is."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import tiny
import torch

from fairseq_neupronet.runs.run import run_name


def test_outputs_are_named_by_config_and_overrides_without_a_clock(place, run_folder):
    overrides = [*tiny.TINY_FINETUNING, *tiny.FROM_EXTRACTOR]
    assert run_folder.name == run_name(overrides)
    assert not re.search(r"20\d\d-\d\d-\d\d|\d\d-\d\d-\d\d", str(run_folder.relative_to(place)))
    assert json.loads((run_folder / "training.json").read_text())["finished"] is True
    assert sorted(path.name for path in (run_folder / "checkpoints").iterdir()) == [
        "MODEL_CARD.md",
        "checkpoint_best.pt",
        "checkpoint_last.pt",
        "progress.json",
        "training.csv",
    ]


def test_the_extractor_started_from_the_pretraining_checkpoint(place):
    assert "model.profile_extractor_path=pretrained/checkpoints/checkpoint_last.pt: " in (place / "log.txt").read_text()
    assert "starts fresh" not in (place / "log.txt").read_text()


def test_the_folder_name_does_not_depend_on_the_order_of_overrides_and_is_unique():
    assert run_name(["b=1", "a=2"]) == run_name(["a=2", "b=1"]) == "a=2,b=1"
    assert run_name([]) == "default"
    names = {run_name([f"task.data={path}"]) for path in ("a/b", "a_b", "a b", "x" * 300, "x" * 300 + "y")}
    assert len(names) == 5
    assert all(len(name.encode()) < 255 and "/" not in name for name in names)


def test_the_same_command_says_finished_and_trains_no_more(place, run_folder, checkpoint):
    (place / "pretrained" / "checkpoints").mkdir(parents=True)
    shutil.copy(place / "put_aside.pt", place / "pretrained" / "checkpoints" / "checkpoint_last.pt")
    before = checkpoint.stat().st_mtime_ns
    again = tiny.train("finetuning", "vocalsound", *reversed(tiny.FROM_EXTRACTOR), cwd=place)
    shutil.rmtree(place / "pretrained")
    assert again.returncode == 0, again.stderr
    assert f"neupronet: finished already: {run_folder}" in again.stdout
    assert checkpoint.stat().st_mtime_ns == before
    assert len(list((place / "outputs" / "vocalsound").iterdir())) == 1


def test_another_configuration_does_not_write_into_the_folder(place, run_folder, checkpoint):
    before = checkpoint.stat().st_mtime_ns
    quoted = str(run_folder).replace("'", r"\'")
    other = tiny.train(
        "finetuning",
        "vocalsound",
        "task.data=data",
        "optimization.max_update=9",
        f"hydra.run.dir='{quoted}'",
        cwd=place,
    )
    sentence = tiny.one_sentence(other)
    assert "holds a training with other settings" in sentence
    assert "optimization.max_update" in sentence
    assert "task.profiling" in sentence
    assert checkpoint.stat().st_mtime_ns == before
    assert json.loads((run_folder / "training.json").read_text())["finished"] is True


def run_until(arguments, cwd, wanted, most_lines=20000) -> list[str]:
    """Start a training, wait for a line that ``wanted`` likes, and end it with SIGTERM; all lines until then."""
    program = Path(sys.executable).with_name("fairseq-hydra-train")
    with subprocess.Popen(
        [program, *arguments],
        cwd=cwd,
        env=tiny.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        lines = []
        try:
            for line in process.stdout:
                lines.append(line)
                if wanted(line):
                    return lines
                assert len(lines) < most_lines
        finally:
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
    raise AssertionError("".join(lines))


def updates_of(line) -> int:
    found = re.search(r"\[train_inner\].*num_updates=(\d+)", line)
    return int(found.group(1)) if found else 0


def test_the_same_command_resumes_after_an_interruption(place):
    """Run from a folder beside the data, which is given as ../data."""
    (place / "beside").mkdir()
    arguments = tiny.training(
        "finetuning",
        "vocalsound",
        "task.data=../data",
        "optimization.max_update=100000",
        "hydra.run.dir=long",
        "checkpoint.save_interval_updates=3",
        "dataset.validate_interval=100000",
        "checkpoint.keep_interval_updates=1",
    )
    record, last = (place / "beside" / "long" / name for name in ("training.json", "checkpoints/checkpoint_last.pt"))
    run_until(arguments, place / "beside", lambda line: updates_of(line) >= 8)
    assert json.loads(record.read_text())["finished"] is False
    saved = torch.load(last, weights_only=True)["optimizer_history"][-1]["num_updates"]
    assert saved >= 3
    ended = subprocess.Popen(["true"])
    ended.wait()
    half_written = last.with_name(f".training.csv.{ended.pid}.tmp")
    half_written.write_text("half")
    lines = run_until(arguments, place / "beside", lambda line: updates_of(line) > 0)
    assert any(f"neupronet: resuming {place / 'beside' / 'long'}" in line for line in lines)
    assert not half_written.exists()
    assert updates_of(lines[-1]) == saved + 1


def test_without_validation_no_validation_split_is_asked_for(tmp_path):
    """As ``neupronet prepare icbhi --valid-share 0`` leaves a folder: training and test."""
    data = tiny.write_corpus(tmp_path / "data", clips={"train": 12, "test": 6})
    assert not (data / "valid.tsv").exists()
    trained = tiny.train(
        "finetuning",
        "vocalsound",
        "task.data=data",
        "dataset.disable_validation=true",
        "hydra.run.dir=run",
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    assert "next: neupronet evaluate --path run/checkpoints/checkpoint_last.pt" in trained.stdout
    assert "--subset test" in trained.stdout
    assert (tmp_path / "run" / "checkpoints" / "MODEL_CARD.md").is_file()


def test_an_extractor_of_other_spectrograms_is_warned_of(place, tmp_path, caplog):
    data = shutil.copytree(place / "data", tmp_path / "data")
    for changes, normalize, said in (
        ({}, False, None),
        ({"hop_length": 512}, False, "hop_length 160, here 512"),
        ({}, True, "task.normalize=False, here True"),
    ):
        tiny.write_recipe(data, **changes)
        caplog.clear()
        task = tiny.build_task(data, profiling=True, normalize=normalize)
        tiny.build_model(task, profile_extractor_path=str(place / "put_aside.pt"))
        warned = [record.message for record in caplog.records if "pretrained on other spectrograms" in record.message]
        assert len(warned) == (said is not None)
        assert said is None or said in warned[0]
