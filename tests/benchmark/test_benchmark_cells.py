"""What a cell of a benchmark keeps of earlier work, and what it does again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import small_benchmark
import stand_in_cells
import tiny
from stand_in_cells import (
    EVALUATE,
    ROWS_PER_CELL,
    RUNNER,
    TRAIN,
    children_of,
    pretrained,
    rows,
    run,
    started,
    starts,
)

from fairseq_neupronet.benchmark import cells, runner, running_cell
from fairseq_neupronet.benchmark.benchmark import Benchmark
from fairseq_neupronet.benchmark.cell_folder import evaluation_command
from fairseq_neupronet.benchmark.cells import plan_cells
from fairseq_neupronet.benchmark.config import read_config
from fairseq_neupronet.benchmark.results import COLUMNS, read_rows
from fairseq_neupronet.benchmark.runner import Progress
from fairseq_neupronet.benchmark.running_cell import CellLock
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import start_time

# As the real ones: what has ended is not done again, and an evaluation wants a checkpoint.
TRAIN_ONCE = f"""
import json, pathlib, sys
record = pathlib.Path(sys.argv[1]) / "training.json"
if record.is_file() and json.loads(record.read_text()).get("finished"):
    sys.exit(0)
{TRAIN}
record.write_text('{{"finished": true}}')
"""
EVALUATE_CHECKPOINT = f"""
import pathlib, sys
if not pathlib.Path(sys.argv[2]).is_file():
    sys.exit("no such file")
{EVALUATE}
"""
ONE = {"variant": ["base"], "fold": [1], "seed": [1]}


@pytest.fixture
def faithful(monkeypatch):
    """Stand-ins that know what they have done."""
    stand_in_cells.install(monkeypatch, TRAIN_ONCE, EVALUATE_CHECKPOINT)


class _Beside(Progress):
    """Lets another benchmark finish a cell once this one has looked which are finished."""

    def __init__(self, other: Benchmark):
        super().__init__()
        self._other = other

    def begin(self, waiting, kept):
        super().begin(waiting, kept)
        runner.run_cells(self._other.cells, self._other.settings, Progress())


def test_a_cell_that_another_benchmark_finished_meanwhile_is_kept(small_config, tmp_path, faithful):
    ours = Benchmark.load(small_config, tmp_path / "out", only={"variant": ["base"], "seed": [1]})
    other = Benchmark.load(small_config, tmp_path / "out", only={"variant": ["base"], "seed": [1], "fold": [3]})
    tally = runner.run_cells(ours.cells, ours.settings, _Beside(other))
    assert (len(tally.finished), [cell.fold for cell in tally.kept], tally.failed) == (2, [3], {})
    assert ours.collect() == 3 * ROWS_PER_CELL
    assert set(starts(tmp_path / "out").values()) == {1}


def test_a_cell_finished_and_collected_while_this_one_collects_stays_in_the_table(
    small_config, tmp_path, faithful, monkeypatch
):
    ours = Benchmark.load(small_config, tmp_path / "out", only=ONE)
    other = Benchmark.load(small_config, tmp_path / "out", only=ONE | {"seed": [2]})
    run(ours)
    look = Benchmark._finished_folders

    def look_and_be_overtaken(benchmark):
        folders = look(benchmark)
        monkeypatch.setattr(Benchmark, "_finished_folders", look)
        run(other)
        return folders

    monkeypatch.setattr(Benchmark, "_finished_folders", look_and_be_overtaken)
    assert ours.collect() == 2 * ROWS_PER_CELL
    assert {row["seed"] for row in rows(ours.results)} == {"1", "2"}


@pytest.mark.parametrize("lost", ["cell.json", "results.csv"])
def test_a_finished_cell_that_lost_a_file_is_run_again(small_config, tmp_path, faithful, lost):
    benchmark = Benchmark.load(small_config, tmp_path / "out", only=ONE)
    run(benchmark)
    folder = benchmark.settings.folder(benchmark.cells[0])
    (folder.path / lost).unlink()
    assert benchmark.collect() == 0
    tally = run(benchmark)
    assert (len(tally.finished), tally.failed) == (1, {})
    assert len(rows(benchmark.results)) == ROWS_PER_CELL


def test_where_the_evaluation_alone_changes_a_kept_training_is_kept(small_config, tmp_path, faithful, capsys):
    keep = "keep_checkpoints=true"
    first = Benchmark.load(small_config, tmp_path / "out", [keep], only=ONE)
    run(first)
    other = Benchmark.load(small_config, tmp_path / "out", [keep, "protocols=[single,enrol-1]"], only=ONE)
    assert first.settings.folder(first.cells[0]).digest != other.settings.folder(other.cells[0]).digest
    assert other.collect() == 0
    run(other)
    assert "its evaluation has changed; the training is kept" in capsys.readouterr().out
    assert list(starts(tmp_path / "out").values()) == [1]
    longer = Benchmark.load(small_config, tmp_path / "out", [keep, "overrides=[optimization.max_update=9]"], only=ONE)
    run(longer)
    assert "stale, its config or data have changed" in capsys.readouterr().out
    assert list(starts(tmp_path / "out").values()) == [1]  # counted in a folder that was cleared


def test_without_its_checkpoint_a_training_is_not_kept(small_config, tmp_path, faithful):
    run(Benchmark.load(small_config, tmp_path / "out", only=ONE))
    tally = run(Benchmark.load(small_config, tmp_path / "out", ["protocols=[single,enrol-1]"], only=ONE))
    assert (len(tally.finished), tally.failed) == (1, {})


def test_a_subset_of_another_name_is_part_of_the_digest(small_config, tmp_path, small_folds):
    folder = shutil.copytree(small_folds / "fold01", tmp_path / "data")
    for kind in ("tsv", "label"):
        shutil.copy(folder / f"test.{kind}", folder / f"heldout.{kind}")

    def digest() -> str:
        cells.data_digest.cache_clear()
        given = ["subsets=[heldout]", f"datasets.tiny.data={folder}", "datasets.tiny.folds=[1]"]
        benchmark = Benchmark.load(small_config, tmp_path / "out", given, only=ONE)
        return benchmark.settings.folder(benchmark.cells[0]).digest

    before = digest()
    labels = (folder / "heldout.label").read_text().splitlines()
    (folder / "heldout.label").write_text("\n".join(reversed(labels)) + "\n")
    assert digest() != before


def test_rows_of_a_finished_cell_stay_where_its_data_are_gone(tmp_path, small_folds, faithful):
    folds = shutil.copytree(small_folds, tmp_path / "folds")
    config = small_benchmark.write_config(tmp_path / "small.yaml", folds)
    only = {"variant": ["base"], "seed": [1]}
    run(Benchmark.load(config, tmp_path / "out", only=only | {"fold": [1]}))
    shutil.rmtree(folds / "fold01")
    cells.data_digest.cache_clear()
    benchmark = Benchmark.load(config, tmp_path / "out", only=only | {"fold": [2]})
    run(benchmark)
    assert [row["fold"] for row in rows(benchmark.results)] == ["1"] * ROWS_PER_CELL + ["2"] * ROWS_PER_CELL


def test_seconds_of_a_stopped_attempt_count(small_config, tmp_path, faithful):
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-c",
        RUNNER,
        "benchmark",
        small_config,
        "--out",
        out,
        "--only",
        "variant=base",
        "--only",
        "fold=1",
        "--only",
        "seed=1",
    ]
    process = subprocess.Popen(list(map(str, command)), env=tiny.environment() | {"NAP": "600"}, stdout=subprocess.PIPE)
    while not starts(out):
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    (spent,) = [json.loads(path.read_text())["seconds"] for path in out.rglob("cell.json")]
    assert spent >= 1
    benchmark = Benchmark.load(small_config, out, only=ONE)
    run(benchmark)
    assert benchmark.settings.folder(benchmark.cells[0]).state()["seconds"] > spent


def test_somebody_impatient_leaves_no_training_behind(small_config, tmp_path):
    """Trainings that take a while to save: the second Ctrl-C comes while the first is waited for."""
    process, children = started(small_config, tmp_path / "out", nap=600)
    for child in children:
        os.kill(child, signal.SIGSTOP)  # so that no SIGTERM is answered
    # A SIGTERM that arrives before the child has stopped would end it.
    while not all(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "T" for child in children):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None and children == children_of(tmp_path / "out")
    for child in children:
        os.kill(child, signal.SIGCONT)
    assert process.wait(60) == 130
    assert not any(start_time(child) for child in children)


def test_a_second_ctrl_c_while_a_cell_is_just_being_started_ends_it_as_well(tmp_path, monkeypatch):
    """The first comes before the runner knows of the cell, the second while its training is waited for."""
    stand_in_cells.install(monkeypatch)
    monkeypatch.setenv("NAP", "600")
    data = small_benchmark.write_folds(tmp_path / "folds", 1)
    config = small_benchmark.write_config(tmp_path / "small.yaml", data)
    benchmark = Benchmark.load(config, tmp_path / "out", [], only=ONE)
    begun, waited = [], running_cell.end_group

    def interrupted(lock, leader):
        begun.extend([leader] * bool(leader))
        if leader:
            raise KeyboardInterrupt

    def end_group(leader, *arguments):
        signal.raise_signal(signal.SIGINT)
        waited(leader, *arguments)

    monkeypatch.setattr(CellLock, "set_group", interrupted)
    monkeypatch.setattr(running_cell, "end_group", end_group)
    with pytest.raises(KeyboardInterrupt):
        run(benchmark)
    assert len(begun) == 1 and not any(start_time(child) for child in begun)


def test_a_cell_that_is_at_work_here_is_not_begun_twice(tmp_path):
    held = CellLock(tmp_path / "lock")
    held.take()
    with pytest.raises(InputError, match=f"another benchmark, process {os.getpid()}, works in this cell"):
        CellLock(tmp_path / "lock").take()
    held.release()
    assert CellLock(tmp_path / "lock").take() is None


def test_a_mistake_in_a_table_is_told_by_its_line(tmp_path):
    table = Path(tmp_path / "results.csv")
    line = "tiny,base,1,1,test,full,accuracy,{},abc,0.1.0,1.0\n"
    header = "dataset,variant,fold,seed,subset,protocol,metric,value,config_hash,version,seconds\n"
    table.write_text(header + "\n" + line.format("0.5") + "\n" + line.format("half"))
    with pytest.raises(InputError, match=r"results.csv:5: value is 'half'"):
        read_rows(table, set(COLUMNS))


def test_what_makes_a_cell_stale(tmp_path):
    data = small_benchmark.write_folds(tmp_path / "folds", 1)
    config = small_benchmark.write_config(tmp_path / "small.yaml", data)

    def digest(*settings) -> str:
        cells.data_digest.cache_clear()
        benchmark = Benchmark.load(config, tmp_path / "out", list(settings), only=ONE)
        return benchmark.settings.folder(benchmark.cells[0]).digest

    labels, found = data / "fold01" / "test.label", [digest()]
    found += [digest("protocols=[single]"), digest("evaluation=[--seed,9]"), digest("embeddings=true")]
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    found.append(digest())
    (data / "fold01" / "test.recording").write_text("r\n" * len(lines))
    found.append(digest())
    seeds = Benchmark.load(config, tmp_path / "out", only={"variant": ["base"], "fold": [1]})
    found += [seeds.settings.folder(cell).digest for cell in seeds.cells]
    assert len(set(found)) == 7 and found[5] == found[6]  # of seed 1, once with each call


def test_a_changed_extractor_makes_stale_what_starts_from_it(small_config, tmp_path):
    def digests(*settings) -> dict[str, str]:
        benchmark = Benchmark.load(small_config, tmp_path / "out", list(settings), only={"fold": [1], "seed": [1]})
        return {cell.variant: benchmark.settings.folder(cell).digest for cell in benchmark.cells}

    pretrained(small_config)
    before, after = digests(), digests("datasets.tiny.pretraining.overrides=[optimization.max_update=5]")
    assert {variant for variant in before if before[variant] != after[variant]} == {"extractor", "dot"}


def test_the_evaluation_is_of_the_best_checkpoint_under_all_protocols(small_config, tmp_path):
    settings = ["protocols=[single,enrol-3]", "subsets=[valid,test]", "evaluation=[--seed,9]"]
    benchmark = Benchmark.load(small_config, tmp_path / "out", settings, only=ONE)
    (cell,) = benchmark.cells
    command = evaluation_command(benchmark.settings.folder(cell), benchmark.settings.evaluation, True)
    given = dict(pairwise(command))
    assert given["--path"].endswith("train/checkpoints/checkpoint_best.pt")
    assert (given["--protocol"], given["--subset"], given["--seed"]) == ("single,enrol-3", "valid,test", "9")
    assert given["--data"] == cell.data and "--embeddings" in command


def test_a_table_holds_what_the_evaluations_said(small_config, tmp_path, faithful):
    benchmark = Benchmark.load(small_config, tmp_path / "out", only={"fold": [1], "seed": [1]})
    run(benchmark)
    said = []
    for cell in benchmark.cells:
        table = benchmark.settings.folder(cell).evaluation / "results.csv"
        said += [line.split(",")[4] for line in table.read_text().splitlines()[1:]]
    assert [row["value"] for row in rows(benchmark.results)] == said and len(set(said)) > 2


def test_overrides_of_the_variant_come_after_the_data_sets_and_those_of_all_last(small_config):
    content = read_config(small_config)
    content["datasets"]["tiny"]["overrides"], content["variants"]["base"]["overrides"] = ["a=1"], ["a=2"]
    content["overrides"] = ["a=3"]
    assert plan_cells(content)[0].overrides == ("a=1", "a=2", "a=3")
