"""neupronet benchmark with stand-ins for training and evaluation: real processes, real signals, no networks."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_benchmark
import stand_in_cells
import tiny
import yaml
from filelock import FileLock, Timeout
from stand_in_cells import ROWS_PER_CELL, pretrained, rows, run, started, starts

from fairseq_neupronet import training_progress
from fairseq_neupronet.benchmark import cells
from fairseq_neupronet.benchmark.benchmark import Benchmark, updates_of
from fairseq_neupronet.benchmark.cell_folder import training_command
from fairseq_neupronet.benchmark.cells import chosen, plan_cells
from fairseq_neupronet.benchmark.config import read_config
from fairseq_neupronet.benchmark.runner import Progress
from fairseq_neupronet.benchmark.running_cell import CellLock, end_group
from fairseq_neupronet.cli import main
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import lives, start_time


@pytest.fixture
def stand_ins(monkeypatch):
    """Trainings and evaluations of a moment."""
    stand_in_cells.install(monkeypatch)


def test_the_plan_is_datasets_by_variants_by_folds_by_seeds_in_the_order_of_the_config(small_config):
    names = [cell.name for cell in plan_cells(read_config(small_config))]
    assert names == [
        f"tiny/{variant}/fold-{fold}/seed-{seed}"
        for variant in ("base", "dot")
        for fold in (1, 2, 3)
        for seed in (1, 2)
    ]


def test_the_training_is_the_command_that_a_user_would_type(small_config, tmp_path):
    benchmark = Benchmark.load(small_config, tmp_path / "out")
    cell = benchmark.cells[9]
    command = training_command(benchmark.settings.folder(cell), None)
    assert Path(command[0]).name == "fairseq-hydra-train"
    assert command[command.index("--config-name") + 1] == "vocalsound"
    assert "ablation=in_batch" in command
    assert {"common.seed=2", f"task.data='{Path(cell.data).resolve()}'"} < set(command)
    assert cell.data.endswith("fold02")


def test_updates_and_clips_of_a_schedule(small_config, tmp_path):
    """24 clips in batches of 8 are 3 updates an epoch."""
    base = Benchmark.load(small_config, tmp_path / "out").cells[0]
    assert updates_of(base) == (4, 32)
    epochs = Benchmark.load(
        small_config,
        tmp_path / "out",
        ["overrides=[dataset.batch_size=8,optimization.max_update=0,optimization.max_epoch=5]"],
    ).cells[0]
    assert updates_of(epochs) == (15, 120)


@pytest.mark.parametrize(
    ("optimization", "expected"),
    [
        ("update_freq=[4],optimization.max_update=0,optimization.max_epoch=5", (5, 120)),
        ("update_freq=[4],optimization.max_update=100", (100, 2400)),
    ],
)
def test_updates_of_several_batches_are_counted_as_such(small_config, tmp_path, optimization, expected):
    """24 clips in batches of 8 are 3 batches an epoch."""
    overrides = f"overrides=[dataset.batch_size=8,'optimization.{optimization}']".replace(",opt", "','opt")
    assert updates_of(Benchmark.load(small_config, tmp_path / "out", [overrides]).cells[0]) == expected


def test_hours_of_batches_by_frames_are_unknown(small_config, tmp_path, capsys):
    sized = "overrides=[dataset.batch_size=null,dataset.max_tokens=2000,optimization.max_update=7]"
    assert main(["benchmark", str(small_config), "--out", str(tmp_path / "out"), "--dry-run", sized]) == 0
    printed = capsys.readouterr().out
    assert "7        ?  tiny / base" in printed and "hours unknown" in printed


def test_all_cells_run_and_are_collected_in_order(small_config, tmp_path, stand_ins):
    benchmark = Benchmark.load(small_config, tmp_path / "out", jobs=3)
    tally = run(benchmark)
    assert (len(tally.finished), len(tally.failed)) == (12, 0)
    found = rows(benchmark.results)
    assert len(found) == 12 * ROWS_PER_CELL
    assert [(row["variant"], row["fold"], row["seed"]) for row in found[:4]] == [
        ("base", "1", "1"),
        ("base+majority_vote", "1", "1"),
        ("base", "1", "2"),
        ("base+majority_vote", "1", "2"),
    ]
    header = benchmark.results.read_text().splitlines()[0]
    assert header == "dataset,variant,fold,seed,subset,protocol,metric,value,config_hash,version,seconds"
    assert not list((tmp_path / "out").rglob("lock"))
    assert {path.name for path in (tmp_path / "out").rglob("checkpoints/*")} == {"training.csv"}
    assert "a line of the training" in benchmark.settings.folder(benchmark.cells[0]).log.read_text()


def test_checkpoints_stay_where_the_config_says_so(small_config, tmp_path, stand_ins):
    run(Benchmark.load(small_config, tmp_path / "out", ["keep_checkpoints=true"], only={"fold": [1], "seed": [1]}))
    assert len(list((tmp_path / "out").rglob("*.pt"))) == 4


def test_a_finished_cell_is_not_run_again(small_config, tmp_path, stand_ins):
    run(Benchmark.load(small_config, tmp_path / "out", only={"fold": [1]}))
    tally = run(Benchmark.load(small_config, tmp_path / "out", jobs=4))
    assert len(tally.kept) == 4
    assert set(starts(tmp_path / "out").values()) == {1}
    assert len(rows(tmp_path / "out" / "results.csv")) == 12 * ROWS_PER_CELL


def test_a_changed_config_makes_its_cells_stale_and_leaves_the_others(small_config, tmp_path, stand_ins, capsys):
    chosen_cells = {"fold": [1], "seed": [1]}
    first = Benchmark.load(small_config, tmp_path / "out", only=chosen_cells)
    run(first)
    changed = small_benchmark.config(Path(first.cells[0].data).parent)
    changed["variants"]["dot"]["overrides"].append("model.temperature=3")
    small_config.write_text(yaml.safe_dump(changed))
    tally = run(Benchmark.load(small_config, tmp_path / "out", only=chosen_cells))
    assert [cell.variant for cell in tally.finished] == ["dot"]
    assert [cell.variant for cell in tally.kept] == ["base"]
    assert "tiny/dot/fold-1/seed-1: stale" in capsys.readouterr().out
    assert len({row["config_hash"] for row in rows(first.results)}) == 2


def test_changed_data_make_a_cell_stale(tmp_path):
    data = small_benchmark.write_folds(tmp_path / "folds", 1)
    config = small_benchmark.write_config(tmp_path / "small.yaml", data)

    def digest():
        cells.data_digest.cache_clear()
        one = Benchmark.load(config, tmp_path / "out", only={"fold": [1]})
        return one.settings.folder(one.cells[0]).digest

    before = digest()
    assert digest() == before
    manifest = data / "fold01" / "train.tsv"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([str(data / "fold01" / "features"), *lines[1:]]) + "\n")
    assert digest() == before  # the same clips elsewhere
    manifest.write_text("\n".join([lines[0], lines[2], lines[1], *lines[3:]]) + "\n")
    assert digest() != before


def test_a_failed_cell_is_named_at_the_end_and_the_others_are_done(
    small_config, tmp_path, stand_ins, monkeypatch, capsys
):
    monkeypatch.setenv("SPOIL", "dot/fold-2/seed-1")
    out = tmp_path / "out"
    assert main(["benchmark", str(small_config), "--out", str(out), "--only", "seed=1", "--jobs", "3"]) == 1
    error = capsys.readouterr().err
    assert "1 of 6 cells failed" in error
    assert f"tiny/dot/fold-2/seed-1: training ended with exit code 3; its output is in {out}" in error
    assert len(rows(out / "results.csv")) == 5 * ROWS_PER_CELL
    monkeypatch.setenv("SPOIL", "nothing")
    assert main(["benchmark", str(small_config), "--out", str(out), "--only", "seed=1"]) == 0
    assert starts(out)["tiny/dot/fold-2/seed-1"] == 2


def test_an_extractor_is_pretrained_once_a_fold_before_the_cells_that_need_it(small_config, tmp_path, stand_ins):
    benchmark = Benchmark.load(pretrained(small_config), tmp_path / "out", only={"fold": [1, 2]}, jobs=3)
    assert [cell.variant for cell in benchmark.cells].count("extractor") == 2
    tally = run(benchmark)
    assert len(tally.finished) == 10
    for cell in benchmark.cells:
        if cell.variant == "dot":
            assert tally.finished.index(cell.extractor) < tally.finished.index(cell)
            folder, extractor = (benchmark.settings.folder(one) for one in (cell, cell.extractor))
            assert f"model.profile_extractor_path='{extractor.best.resolve()}'" in training_command(folder, extractor)
            assert extractor.best.is_file()
    assert {path.name for path in (tmp_path / "out").rglob("*.pt")} == {"checkpoint_best.pt"}
    assert {row["variant"] for row in rows(benchmark.results)} == {
        f"{name}{control}" for name in ("base", "dot") for control in ("", "+majority_vote")
    }


def test_without_its_extractor_a_cell_fails_unrun(small_config, tmp_path, stand_ins, monkeypatch):
    monkeypatch.setenv("SPOIL", "/extractor/")
    benchmark = Benchmark.load(pretrained(small_config), tmp_path / "out", only={"fold": [1], "seed": [1]})
    tally = run(benchmark)
    assert {cell.variant: reason.split(" ")[1] for cell, reason in tally.failed.items()} == {
        "extractor": "ended",
        "dot": "extractor",
    }
    assert [cell.variant for cell in tally.finished] == ["base"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_what_the_cells_training_tells_of_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    told = training_progress.Progress(30, 120, 4, 31.0, 93.0, "accuracy", 0.81234, "training")
    folder = SimpleNamespace(checkpoints=tmp_path)
    at_work = SimpleNamespace(
        cell=SimpleNamespace(name="tiny/dot/fold-1/seed-1"), folder=folder, step="training", seconds=lambda: 65.0
    )
    shown = []
    for write in (False, True):
        if write:
            (tmp_path / training_progress.NAME).write_text(json.dumps(asdict(told)))
        terminal = _Terminal()
        Progress(terminal).show([at_work])
        shown.append(terminal.getvalue().splitlines()[1].split())
    assert shown[0] == ["tiny/dot/fold-1/seed-1", "training", "0:01:05"]
    news = "epoch 4 update 30/120, 0:01:33 left, validation accuracy 0.8123"
    assert " ".join(shown[1]) == f"tiny/dot/fold-1/seed-1 training 0:01:05 {news}"


# ---- kills and other runners ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_training_survives_the_end_of_its_runner(small_config, tmp_path, number):
    process, children = started(small_config, tmp_path / "out", nap=600)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    assert not any(start_time(child) for child in children)
    assert not list(tmp_path.rglob("lock"))


def test_after_a_sigkill_the_orphans_are_ended_and_the_cells_go_on(small_config, tmp_path, stand_ins, capsys):
    out = tmp_path / "out"
    process, children = started(small_config, out, nap=600)
    process.kill()
    process.wait()
    assert all(start_time(child) for child in children)
    for lock in out.rglob("lock"):  # as if the kill had come a moment earlier
        lock.with_name(f".config.yaml.{process.pid}.tmp").write_text("half")
    tally = run(Benchmark.load(small_config, out, only={"seed": [1]}, jobs=2))
    assert len(tally.finished) == 6
    assert not list(out.rglob("*.tmp"))
    assert not any(start_time(child) for child in children)
    said = capsys.readouterr().out
    assert all(f"ended process {child}" in said for child in children)
    assert said.count("goes on where it was interrupted") == 2
    unbroken = Benchmark.load(small_config, tmp_path / "unbroken", only={"seed": [1]}, jobs=2)
    run(unbroken)
    assert rows(out / "results.csv", "value") == [
        {key: value for key, value in row.items() if key != "seconds"} | {"seconds": other["seconds"]}
        for row, other in zip(rows(unbroken.results, "value"), rows(out / "results.csv", "value"), strict=True)
    ]  # the stand-in's value tells the folder; order, hashes and names are the same


# A runner that is killed: it takes a lock, starts what sleeps (or nothing), and ends without freeing the lock.
KILLED = """
import os, pathlib, subprocess, sys
from fairseq_neupronet.benchmark.runner import Progress
from fairseq_neupronet.benchmark.running_cell import CellLock
lock = CellLock(pathlib.Path(sys.argv[1]))
lock.take()
child, quiet = 0, subprocess.DEVNULL
if sys.argv[2] != "0":
    command = [sys.executable, "-c", f"import time; time.sleep({sys.argv[2]})"]
    child = subprocess.Popen(command, pass_fds=lock.handles, start_new_session=True, stdout=quiet, stderr=quiet).pid
    if sys.argv[3] == "noted":
        lock.set_group(child)
print(child, flush=True)
os._exit(9)
"""


def killed(lock: Path, nap: float, noted: bool = True) -> int:
    """Let a runner be killed that holds the lock; returns the process that it has left at work."""
    command = [sys.executable, "-c", KILLED, lock, nap, "noted" if noted else "at once"]
    ended = subprocess.run(list(map(str, command)), env=tiny.environment(), capture_output=True, text=True)
    assert ended.returncode == 9, ended.stderr
    return int(ended.stdout)


def test_a_lock_that_a_kill_left_on_a_finished_cell_is_removed(small_config, tmp_path, stand_ins):
    benchmark = Benchmark.load(small_config, tmp_path / "out", only={"fold": [1], "seed": [1]})
    run(benchmark)
    lock = benchmark.settings.folder(benchmark.cells[0]).lock
    killed(lock, nap=0)
    assert lock.exists()
    assert len(run(benchmark).kept) == 2
    assert not lock.exists()


def test_what_a_killed_runner_left_at_work_holds_its_lock_until_it_ends(tmp_path):
    child = killed(tmp_path / "lock", nap=600)
    try:
        assert start_time(child)
        with pytest.raises(Timeout):
            FileLock(tmp_path / "lock").acquire(timeout=0.3)
    finally:
        os.kill(child, signal.SIGKILL)
    FileLock(tmp_path / "lock").acquire(timeout=10)


def test_what_a_killed_runner_left_at_work_is_ended_by_the_next(tmp_path):
    child = killed(tmp_path / "lock", nap=600)
    lock = CellLock(tmp_path / "lock")
    assert lock.take() == f"ended process {child}, which a killed run had left at work"
    assert not start_time(child)
    lock.release()
    assert not (tmp_path / "lock").exists()


def test_the_lock_of_the_dead_is_free_at_once(tmp_path):
    killed(tmp_path / "lock", nap=0)
    before = time.monotonic()
    assert CellLock(tmp_path / "lock").take() is None
    assert time.monotonic() - before < 1


def test_what_was_started_in_the_moment_of_the_kill_is_waited_for(tmp_path):
    child = killed(tmp_path / "lock", nap=600, noted=False)
    try:
        with pytest.raises(InputError, match="what a killed benchmark, process [0-9]+, had just started works in this"):
            CellLock(tmp_path / "lock").take()
        assert start_time(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_living_runner_keeps_its_cells(small_config, tmp_path, stand_ins):
    process, children = started(small_config, tmp_path / "out", nap=600)
    try:
        tally = run(Benchmark.load(small_config, tmp_path / "out", only={"seed": [1], "fold": [1]}))
        ((cell, reason),) = tally.failed.items()
        assert cell.variant == "base" and f"process {process.pid}" in reason
        assert [cell.variant for cell in tally.finished] == ["dot"]  # nobody's
        assert all(start_time(child) for child in children)
    finally:
        process.terminate()
        process.wait(60)


def test_a_number_that_was_given_again_is_not_the_runner(tmp_path):
    """The lock is held by a process whose dead runner's number another process, this one, has now."""
    child = killed(tmp_path / "lock", nap=600)
    assert not lives(os.getpid(), "1")
    holder = json.loads((tmp_path / "lock").read_text())
    (tmp_path / "lock").write_text(json.dumps(holder | {"runner": os.getpid(), "started": "1"}))
    assert f"ended process {child}" in CellLock(tmp_path / "lock").take()


def test_a_lock_of_another_machine_is_respected(tmp_path):
    lock = CellLock(tmp_path / "lock")
    lock.take()
    holder = json.loads((tmp_path / "lock").read_text())
    (tmp_path / "lock").write_text(json.dumps(holder | {"host": "elsewhere", "runner": 2**22 + 1, "group": 2**22 + 2}))
    with pytest.raises(InputError, match="on elsewhere, works in this cell"):
        CellLock(tmp_path / "lock").take()


def test_what_ignores_the_polite_signal_is_ended_too():
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']);"
        "print(child.pid, flush=True); time.sleep(100)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    child = int(process.stdout.readline())
    end_group(process.pid, patience=0.5)
    assert process.wait(10) == -signal.SIGKILL
    until = time.monotonic() + 10
    while start_time(child):
        assert time.monotonic() < until
        time.sleep(0.05)


# ---- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"protocol": ["full"]}, "unknown key protocol; did you mean protocols?"),
        ({"seeds": 3}, r"seeds must be a list, as \[3\]"),
        ({"variants": {}}, "variants is empty"),
        ({"reference": "bass"}, "reference 'bass' is not among the variants"),
        ({"variants": {"a+b": {}}}, "choose a name without"),
        ({"datasets": {"tiny": {"data": "one", "recipe": "vocalsound", "folds": [1, 2]}}}, "2 folds of one folder"),
        ({"datasets": {"tiny": {"recipe": "vocalsound"}}}, "datasets.tiny.data is not set"),
        ({"datasets": {"tiny": {"data": "nowhere", "recipe": "vocalsound"}}}, "nowhere: holds no train.tsv"),
        ({"variants": {"base": {"recipe": "vocalsund"}}}, "has no recipe 'vocalsund'; known are .*icbhi"),
        ({"variants": {"base": {"overrides": ["model.temprature=1"]}}}, "Could not override 'model.temprature'"),
        ({"variants": {"base": {"pretrained": True}}}, "variant base is pretrained and datasets.tiny has no section"),
        ({"only": {"folds": [1]}}, "not by 'folds'"),
        ({"protocols": ["single", "ful"]}, "protocols: Unknown protocol 'ful'; known are single"),
        ({"subsets": ["tset"]}, "fold01: holds no tset.tsv, which the benchmark evaluates"),
        ({"subsets": ["train"]}, "subsets holds train; fairseq trains on a split of such a name"),
        ({"evaluation": ["--wrkers", 0]}, "evaluation: unrecognized arguments: --wrkers 0; neupronet evaluate --help"),
        ({"evaluation": ["--batch-size", 0]}, "evaluation: --batch-size 0: give a whole number from 1 up"),
        ({"metrics": ["acuracy"]}, "metrics holds 'acuracy', which .* did you mean accuracy?"),
        ({"jobs": 0}, "jobs is 0; give a whole number from 1 up"),
        ({"jobs": "two"}, "jobs is 'two'; give a whole number from 1 up"),
        ({"seeds": []}, "seeds is empty; name at least one"),
        ({"seeds": [1, 2, 1]}, "seeds holds 1 twice; name each once"),
        ({"seeds": ["a"]}, "seeds holds 'a'; give whole numbers from 0 up"),
        ({"recipes": 5}, "recipes is 5; give text"),
        ({"keep_checkpoints": "yes"}, "keep_checkpoints is 'yes'; give true or false"),
        ({"variants": {"base": {"recipe": 5}}}, "variants.base.recipe is 5; give text"),
        ({"variants": {"base": {"ms_per_clip": "fast"}}}, "variants.base.ms_per_clip is 'fast'; give milliseconds"),
        ({"variants": {"extractor": {}}}, "variants.extractor: the pretraining of extractors is called so"),
        ({"overrides": ["dataset.batch_size=0"]}, "dataset.batch_size=0 leaves no clip in a batch"),
        ({"only": {"fold": [9]}}, "there is no fold '9' in this benchmark; known are 1, 2, 3"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, small_folds, capsys, changes, sentence):
    config = small_benchmark.write_config(tmp_path / "small.yaml", small_folds, **changes)
    assert main(["benchmark", str(config), "--out", str(tmp_path / "out"), "--dry-run"]) == 1
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("seeds=[1", "error: seeds=[1: is not to be understood"),
        ("jobs=0", "jobs is 0; give a whole number from 1 up"),
        ("datasets.tiny.folds=[a]", "fold 'a' and seed 1 cannot be put in"),
        ("datasets.tiny.folds=[1,1]", "datasets.tiny.folds holds 1 twice"),
    ],
)
def test_a_mistaken_setting_is_blamed_on_itself(small_config, tmp_path, capsys, setting, sentence):
    assert main(["benchmark", str(small_config), "--out", str(tmp_path / "out"), "--dry-run", setting]) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("content", ["- a list", "a: [", "datasets: ${nothing}"])
def test_no_yaml_of_a_benchmark_is_one_sentence(tmp_path, capsys, content):
    (tmp_path / "bad.yaml").write_text(content)
    assert main(["benchmark", str(tmp_path / "bad.yaml"), "--dry-run"]) == 1
    assert f"error: {tmp_path}/bad.yaml: " in capsys.readouterr().err


def test_quick_is_laid_over_the_rest(tmp_path, small_folds):
    config = small_benchmark.write_config(
        tmp_path / "small.yaml",
        small_folds,
        quick={"seeds": [7], "overrides": ["optimization.max_update=4"], "only": {"variant": ["dot"]}},
    )
    plain, quick = read_config(config), read_config(config, quick=True)
    assert (plain["seeds"], quick["seeds"]) == ([1, 2], [7])
    assert quick["overrides"] == ["optimization.max_update=4"]
    assert {cell.variant for cell in chosen(plan_cells(quick), quick["only"])} == {"dot"}
    assert quick["datasets"] == plain["datasets"]


PAPER = {"base", "multibranch", "profile_only", "whole_split", "in_batch", "shuffled_profiles", "early_stop"}
NORMALIZED = {
    "base",
    "multibranch",
    "profile_only",
    "in_batch",
    "profile_normalize",
    "profile_normalize_random",
    "adaptive_batch_norm",
    "transformer",
}


@pytest.mark.parametrize("quick", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("name", "ablations"),
    [("urbansound8k", PAPER), ("vocalsound", PAPER), ("icbhi", PAPER), ("arabic_digits", NORMALIZED)],
)
def test_the_shipped_benchmarks_compose_every_recipe(tmp_path, name, ablations, quick):
    data = small_benchmark.write_folds(tmp_path, {"urbansound8k": 10, "arabic_digits": 5}.get(name, 1))
    path = tiny.ROOT / "configs" / "benchmark" / f"{name}.yaml"
    datasets = yaml.safe_load(path.read_text(encoding="utf-8"))["datasets"]
    settings = [f"datasets.{dataset}.data={data}/fold{{fold:02d}}" for dataset in datasets]
    benchmark = Benchmark.load(path, tmp_path / "out", settings, quick)
    assert all(updates_of(cell)[0] > 0 for cell in benchmark.cells)
    if not quick:
        used = [
            override.partition("=")[2]
            for cell in benchmark.cells
            for override in cell.overrides
            if override.startswith("ablation=")
        ]
        assert set(used) == ablations
        assert len(used) == len([cell for cell in benchmark.cells if cell.stage == "finetuning"])


def test_settings_may_stand_behind_the_options(small_config, tmp_path, capsys):
    given = ["seeds=[1]", "--out", str(tmp_path / "out"), "--dry-run", "datasets.tiny.folds=[1,2]"]
    assert main(["benchmark", str(small_config), *given]) == 0
    assert "4  cells, 0 finished" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["benchmark", str(small_config), "--dry-run", "--quik", "seeds=[1]"])
    assert "unrecognized arguments: --quik" in capsys.readouterr().err


def test_a_dry_run_prints_the_plan_and_starts_nothing(small_config, tmp_path, capsys):
    assert main(["benchmark", str(small_config), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "tiny / dot (vocalsound)" in printed
    assert "12  cells, 0 finished" in printed
    assert not (tmp_path / "out").exists()
