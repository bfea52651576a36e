"""The benchmark's runner, on comparisons of known figures (bench_rows.py). No test asserts a time."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import bench_rows
import pytest
import tiny
import torch
from bench import command, contrast
from bench.catalogue import catalogue
from bench.child import decode_options, encode_options
from bench.comparison import Figure, Options, Wanted
from bench.material import write_audio
from bench.report import table
from bench.runner import measure, rows_of

from fairseq_neupronet.errors import InputError


@pytest.fixture(autouse=True)
def _rows_for_children(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tiny.ROOT / "tests" / "helpers"))


@pytest.fixture
def options(tmp_path):
    return Options(tmp_path, quick=True)


def measured(name: str, options: Options) -> list[dict]:
    (comparison,) = (each for each in bench_rows.catalogue(options) if each.name == name)
    return rows_of(comparison, measure("bench_rows", comparison, options))


def turns(options: Options) -> list[tuple[str, str]]:
    return [tuple(line.split()) for line in (options.scratch / "turns").read_text().splitlines()]


def alive(process: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, 0)
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    return False


def test_the_sides_take_turns_in_two_processes_after_a_warm_up(options):
    measured("pair", options)
    taken = turns(options)
    assert [side for side, _ in taken] == ["ours", "yardstick"] * 4
    assert len(set(taken)) == 2


def test_medians_without_the_warm_up_and_their_ratio(options):
    time_row, speed_row = measured("pair", options)
    assert (time_row["ours"], time_row["yardstick"], time_row["ratio"], time_row["runs"]) == (3, 9, 3, 3)
    assert (time_row["ours_runs"], time_row["yardstick_runs"]) == (bench_rows.OURS[1:], bench_rows.YARDSTICK[1:])
    assert (time_row["wanted"], time_row["met"]) == ("ratio ≥ 2", True)
    assert (speed_row["ours"], speed_row["ratio"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert "wanted" not in speed_row


def test_a_side_alone_has_no_ratio(options):
    (row,) = measured("alone", options)
    assert (row["ours"], row["yardstick"], row["ratio"], row["yardstick_runs"]) == (3, None, None, [])
    assert (row["yardstick_peak_mib"], row["met"]) == (None, False)


def test_fresh_runs_are_the_first_of_their_process(options):
    (row,) = measured("fresh", options)
    taken = turns(options)
    assert [side for side, _ in taken] == ["ours", "yardstick"] * 2 and len(set(taken)) == 4
    assert (row["ours"], row["yardstick"]) == (100, 100)


def test_the_peak_is_that_of_the_sides_own_process(options):
    (row,) = measured("memory", options)
    assert 195 < row["ours_peak_mib"] - row["yardstick_peak_mib"] < 220


def test_growth_is_counted_from_the_present_not_from_an_earlier_peak(options):
    (row,) = measured("growth", options)
    assert row["ours_runs"] == pytest.approx([50, 50, 50], abs=2)


def test_a_side_has_the_allocator_settings_that_it_names_and_not_the_users(options, monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
    (row,) = measured("environment", options)
    assert (row["ours"], row["yardstick"]) == (3, 0)


@pytest.mark.parametrize(
    "name, sentence",
    [
        (
            "broken",
            r"row broken, the yardstick: its process ended with code 1 \(RuntimeError: no such luck\); nothing was",
        ),
        ("killed", "row killed, the yardstick: its process was killed by SIGSEGV.*; nothing was written"),
        ("refusing", "row refusing, our side: clip.wav: is no audio; give another"),
    ],
)
def test_a_child_that_fails_is_one_sentence(options, name, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        measured(name, options)
    assert "\n" not in str(caught.value)


def test_the_other_child_ends_with_the_one_that_crashed(options, monkeypatch):
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self.pid)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    with pytest.raises(InputError, match="SIGSEGV"):
        measured("killed", options)
    assert len(started) == 2 and not any(map(alive, started))


def test_a_crash_leaves_no_json_and_no_handler_of_signals(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InputError, match="row broken"):
        command.run(quick=True, only=["pair", "broken"], json_path=str(tmp_path / "out.json"), module="bench_rows")
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_and_kill_end_the_children_with_one_sentence_and_no_json(tmp_path, name):
    script = (
        "import signal, tempfile; from bench import command; from fairseq_neupronet.errors import InputError\n"
        # A shell's background job ignores it, and so would all that it starts.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"tempfile.tempdir = {str(tmp_path / 'scratch')!r}\n"
        "try:\n"
        f"    command.run(only=['waiting'], json_path={str(tmp_path / 'out.json')!r}, module='bench_rows')\n"
        "except InputError as error: print(error)"
    )
    (tmp_path / "scratch").mkdir()
    path = os.pathsep.join([str(tiny.ROOT / "tests" / "helpers"), str(tiny.ROOT / "scripts")])
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    deadline = time.monotonic() + 60
    while not (waiting := list(tmp_path.glob("scratch/*/waiting"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.1)
    child = int(waiting[0].read_text())
    process.send_signal(signal.Signals[name])
    output, errors = process.communicate(timeout=30)
    assert output.splitlines()[-1] == (
        "the benchmark was interrupted; its processes are ended and nothing was written"
    ), errors
    assert "Traceback" not in errors and not alive(child)
    assert not (tmp_path / "out.json").exists() and list((tmp_path / "scratch").iterdir()) == []


def test_json_and_table_hold_every_row_and_say_what_was_left_out(tmp_path, capsys):
    path = tmp_path / "made" / "out.json"
    command.run(quick=True, only=["skipped", "pair", "alone"], json_path=str(path), module="bench_rows")
    result = json.loads(path.read_text())
    assert set(result["machine"]) >= {"cpu", "cores", "torch_threads", "torch", "ram_gib", "gpu"}
    rows = result["rows"]
    assert [(row["row"], row["name"]) for row in rows] == [
        ("pair", "a time"),
        ("pair", "a speed"),
        ("alone", "a time alone"),
        ("skipped", "a time"),
    ]
    assert all(set(row) >= {"name", "ours", "yardstick", "ratio", "unit", "runs"} for row in rows)
    assert rows[3]["not_measured"] == "give --audio DIR" and rows[3]["ours"] is None and rows[3]["runs"] == 0
    printed, progress = capsys.readouterr()
    lines = [[cell.strip() for cell in line.split("|")] for line in printed.splitlines() if line.startswith("| a ")]
    assert lines[0][1:8] == ["a time", "3.00", "9.00", "ms", "3.00", "ratio ≥ 2: met", "3"]
    assert lines[2][1:7] == ["a time alone", "3.00", "", "ms", "", "ours ≤ 1: NOT MET"]
    assert lines[3][1:3] == ["a time", "not measured: give --audio DIR"]
    assert "skipped: not measured: give --audio DIR" in progress


@pytest.mark.parametrize(
    "value, text",
    [
        (0.0, "0.000"),
        (0.00042, "4.2e-04"),
        (0.1234, "0.123"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (-12.34, "-12.3"),
        (12345.6, "12346"),
    ],
)
def test_numbers_have_three_digits(value, text):
    row = {
        "name": "n",
        "ours": value,
        "yardstick": None,
        "unit": "",
        "ratio": None,
        "runs": 1,
        "ours_peak_mib": 1.0,
        "yardstick_peak_mib": None,
    }
    assert table([row]).splitlines()[2].split("|")[2].strip() == text


@pytest.mark.parametrize(
    "wanted, met",
    [
        (Wanted("ratio", least=2), True),
        (Wanted("ratio", least=2.1), False),
        (Wanted("ratio", most=2), True),
        (Wanted("ours", most=4), False),
        (Wanted("ours", most=5), True),
        (Wanted("ours", least=6), False),
        (Wanted("excess", most=-5), True),
        (Wanted("excess", most=-6), False),
    ],
)
def test_what_is_wanted(wanted, met):
    assert wanted.met(5.0, 10.0, Figure("f", "f", "s").ratio_of(5.0, 10.0)) is met


def test_a_ratio_is_the_yardstick_over_ours_unless_said_otherwise():
    assert Figure("f", "f", "s").ratio_of(5.0, 10.0) == 2
    assert Figure("f", "f", "s", ratio="ours / yardstick").ratio_of(5.0, 10.0) == 0.5
    assert Figure("f", "f", "s").ratio_of(5.0, None) is None


def test_options_reach_the_children_as_they_are(tmp_path):
    for options in (Options(tmp_path), Options(tmp_path, True, tmp_path / "a b", tmp_path / "c", "cuda")):
        assert decode_options(encode_options(options)) == options


def test_mistakes_are_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments, sentence in (
        (["--only", "stpe-128"], "--only stpe-128: no such row; the rows are step-128, step-32, profile"),
        (["--json", str(tmp_path)], f"--json {tmp_path}: cannot be written"),
        (["--json", str(tmp_path / "file" / "x.json")], "cannot be written; give a file in a folder"),
        (["--audio", str(tmp_path / "absent")], f"--audio {tmp_path / 'absent'}: no such folder"),
    ):
        assert command.main(arguments) == 1
        assert sentence in capsys.readouterr().err


def bench(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """The script as a user starts it."""
    words = [sys.executable, str(tiny.ROOT / "scripts" / "bench"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(tiny.ROOT)}
    return subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=folder, env=environment)


def test_the_script_measures_and_refuses_from_any_folder(tmp_path):
    measured = bench("--quick", "--only", "negatives", "--json", "out.json", folder=tmp_path)
    assert measured.returncode == 0, measured.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {row["row"] for row in rows} == {"negatives"} and all(row["ours"] is not None for row in rows)
    refused = bench("--only", "stpe-128", folder=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith("bench: error: --only stpe-128: no such row; the rows are step-128")
    assert refused.stderr.count("\n") == 1


def test_the_list_names_every_row_and_what_it_lacks(tmp_path):
    listed = bench("--list", folder=tmp_path)
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()
    names = [line.split(":")[0] for line in lines]
    assert {
        "step-128",
        "step-32",
        "profile",
        "pooling",
        "infonce",
        "infonce-memory",
        "negatives",
        "manifest",
        "items",
        "spectrogram",
        "preparation-wav",
        "validation",
        "memory-base",
        "memory-profile",
    } <= set(names)
    assert [line for line in lines if "not measured: give --audio DIR" in line][0].startswith("preparation-audio: ")


@pytest.mark.parametrize("quick", [True, False])
def test_the_catalogue_is_sound(tmp_path, quick):
    comparisons = catalogue(Options(tmp_path, quick))
    names = [comparison.name for comparison in comparisons]
    assert len(set(names)) == len(names)
    for comparison in comparisons:
        assert comparison.figures and (comparison.fresh or comparison.runs is None)
        assert comparison.yardstick or not any(figure.compared for figure in comparison.figures)


def test_on_a_gpu_what_runs_on_the_cpu_alone_is_left_out_and_nothing_is_wanted(tmp_path):
    comparisons = catalogue(Options(tmp_path, vocalsound=tmp_path, audio=tmp_path, device="cuda"))
    measured = {comparison.name: comparison for comparison in comparisons if not comparison.lacks}
    assert set(measured) == {"step-128", "step-32", "profile", "pooling", "infonce", "infonce-memory", "negatives"}
    wanted = {figure.wanted for comparison in measured.values() for figure in comparison.figures}
    assert wanted == {None, Wanted("ours", most=1e-4)}  # equal gradients, everywhere
    assert {comparison.lacks for comparison in comparisons if comparison.name not in measured} == {
        "measured on the CPU only; leave out --device"
    }


def test_a_gpu_that_is_not_there_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main(["--device", "cuda"]) == 1
    assert "--device cuda: torch finds no GPU here; leave it out" in capsys.readouterr().err


# The yardsticks do the same work

on_each_device = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)


@on_each_device
def test_pooling_and_its_loop_are_equal(device):
    torch.testing.assert_close(contrast.our_pooling(device)(), contrast.pooling_by_loop(device)(), rtol=1e-4, atol=1e-4)


@on_each_device
def test_infonce_and_its_gathered_form_are_equal(device):
    torch.testing.assert_close(
        contrast.our_infonce(device)(), contrast.gathered_infonce(device)(), rtol=1e-5, atol=1e-5
    )


@on_each_device
def test_the_loop_over_anchors_draws_what_ours_may_draw(device):
    clip, step, candidate, group = contrast._anchors(device)
    drawn = contrast.negatives_by_loop(device)()
    assert drawn.shape == contrast.our_negatives(device)().index.shape
    owner = torch.arange(candidate.numel(), device=device).div(candidate.shape[1], rounding_mode="floor")[drawn]
    assert (owner[:, :20] == clip[:, None]).all() and (group[owner[:, 20:]] != group[clip][:, None]).all()
    assert (drawn != (clip * candidate.shape[1] + step)[:, None]).all()


@pytest.mark.slow
def test_the_light_rows_can_be_measured(tmp_path, capsys):
    names = [
        "pooling",
        "infonce",
        "infonce-memory",
        "negatives",
        "manifest",
        "items",
        "spectrogram",
        "preparation-wav",
        "preparation-audio",
    ]
    write_audio(tmp_path / "audio", 3)
    out, audio = str(tmp_path / "out.json"), str(tmp_path / "audio")
    assert command.main(["--quick", "--json", out, "--audio", audio, "--only", *names]) == 0
    rows = json.loads(Path(out).read_text())["rows"]
    assert {row["row"] for row in rows} == set(names)
    assert all(row["ours"] > 0 and row["runs"] == 3 for row in rows)
