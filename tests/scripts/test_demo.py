"""The demo's table and sentence from made-up predictions, its options, and what its screen shows of its steps."""

import fcntl
import json
import math
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import demo
import demo_table
import pytest
from demo_table import AMONG_ALL, BASE, NORMALIZED, OFFICIAL, PROTOCOLS, WITHIN_CLASS

ROOT = Path(__file__).parents[2]

SOURCES, CLIPS = 24, 20
EVALUATIONS = [(model, protocol, None) for model in (BASE, OFFICIAL, NORMALIZED) for protocol in PROTOCOLS] + [
    (model, protocol, control)
    for model in (OFFICIAL, NORMALIZED)
    for protocol in PROTOCOLS[1:]
    for control in (WITHIN_CLASS, AMONG_ALL)
]


def write(out: Path, right: dict, otherwise: int = 8) -> Path:
    """A demo's predictions.

    Args:
        out: its folder.
        right: (model, protocol, control) → how many of a source's clips are right, a number for all sources or one for
            each; the first so many are.
        otherwise: of the evaluations that are not named.
    """
    for model, protocol, control in EVALUATIONS:
        counts = right.get((model, protocol, control), otherwise)
        counts = [counts] * SOURCES if isinstance(counts, int) else counts
        folder = out / model / "evaluation" / "test" / (f"{protocol}+{control}" if control else protocol)
        folder.mkdir(parents=True)
        lines = ["path\tprofile\ttarget\tprediction\thiss\tknock"]
        for source, count in enumerate(counts):
            for clip in range(CLIPS):
                profile = "" if model == BASE else f"source{source}"
                lines.append(f"{source}/{clip}.wav\t{profile}\thiss\t{'hiss' if clip < count else 'knock'}\t.5\t.5")
        (folder / "predictions.tsv").write_text("\n".join(lines) + "\n")
    return out


def rows(text: str) -> dict[tuple[str, str], list[str]]:
    table = [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line.startswith("|")]
    assert table[0] == ["model", "protocol", "accuracy", "− base", "shuffled within class", "shuffled"]
    return {tuple(row[:2]): row[2:] for row in table[2:]}


def said(out: Path) -> str:
    return demo_table.sentence(demo_table.Predictions(out))


def test_the_table_holds_every_model_under_every_protocol_beside_base_and_the_controls(tmp_path):
    right = {
        (NORMALIZED, "single", None): 10,
        (NORMALIZED, "enrol-3", None): 11,
        (NORMALIZED, "full", None): 13,
        (NORMALIZED, "enrol-3", WITHIN_CLASS): 9,
        (NORMALIZED, "full", AMONG_ALL): 7,
        (OFFICIAL, "full", None): 6,
    }
    text = demo_table.report(write(tmp_path, right), "made up")
    found = rows(text)
    assert list(found) == [(model, protocol) for model in (BASE, OFFICIAL, NORMALIZED) for protocol in PROTOCOLS]
    assert all(found[BASE, protocol] == [".400 (.400 … .400)", "", "", ""] for protocol in PROTOCOLS)
    assert found[NORMALIZED, "single"] == [".500 (.500 … .500)", "+.100 (+.100 … +.100)", "", ""]
    assert found[NORMALIZED, "enrol-3"] == [".550 (.550 … .550)", "+.150 (+.150 … +.150)", ".450", ".400"]
    assert found[NORMALIZED, "full"] == [".650 (.650 … .650)", "+.250 (+.250 … +.250)", ".400", ".350"]
    assert found[OFFICIAL, "full"] == [".300 (.300 … .300)", "−.100 (−.100 … −.100)", ".400", ".400"]
    assert text.startswith("made up; accuracy\n") and "24 of them, 480 clips" in text


def test_intervals_are_over_sources_not_clips(tmp_path):
    """Half of the sources are all right, half all wrong: 24 coins, however many clips each has."""
    coins = [CLIPS * (source % 2) for source in range(SOURCES)]
    found = rows(demo_table.report(write(tmp_path, {(NORMALIZED, "full", None): coins}), "made up"))
    accuracy, gain, *_ = found[NORMALIZED, "full"]
    error = 1.96 * 0.5 / math.sqrt(SOURCES)
    shown, low, high = (float(word.strip("()")) for word in accuracy.replace("…", "").split())
    assert (shown, low, high) == (0.5, pytest.approx(0.5 - error, abs=0.03), pytest.approx(0.5 + error, abs=0.03))
    shown, low, high = (float(word.strip("()").replace("−", "-")) for word in gain.replace("…", "").split())
    assert (shown, low, high) == (0.1, pytest.approx(0.1 - error, abs=0.03), pytest.approx(0.1 + error, abs=0.03))


def test_clips_are_paired_by_name_whatever_their_order(tmp_path):
    write(tmp_path, {(NORMALIZED, "full", None): 12})
    table = tmp_path / NORMALIZED / "evaluation" / "test" / "full" / "predictions.tsv"
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([header, *reversed(lines)]) + "\n")
    assert rows(demo_table.report(tmp_path, "made up"))[NORMALIZED, "full"][1] == "+.200 (+.200 … +.200)"


FIRST = {
    "gain": (13, "Knowing the source is worth +25 points (25 to 25) at full; "),
    "little": (9, "Knowing the source is worth +5 points (5 to 5) at full; "),
    "none": (8, "Knowing the source gains nothing at full: 0 points (0 to 0); "),
    "loss": (6, "Knowing the source gains nothing at full: −10 points (−10 to −10); "),
}
CONTROL = {
    "none": (8, "other sources' clips of the same classes gain nothing: 0 points (0 to 0); "),
    "loss": (7, "other sources' clips of the same classes gain nothing: −5 points (−5 to −5); "),
}
THIRD = {
    "gain": (10, "the official form gains +10 points (10 to 10)."),
    "none": (8, "the official form gains nothing: 0 points (0 to 0)."),
    "loss": (5, "the official form gains nothing: −15 points (−15 to −15)."),
}


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("control", CONTROL)
@pytest.mark.parametrize("third", THIRD)
def test_the_sentence_follows_from_the_figures(tmp_path, first, control, third):
    right = {
        (NORMALIZED, "full", None): FIRST[first][0],
        (NORMALIZED, "full", WITHIN_CLASS): CONTROL[control][0],
        (OFFICIAL, "full", None): THIRD[third][0],
    }
    assert said(write(tmp_path, right)) == FIRST[first][1] + CONTROL[control][1] + THIRD[third][1]


@pytest.mark.parametrize(("control", "worth"), [(11, "+15 points (15 to 15)"), (13, "+25 points (25 to 25)")])
def test_a_gain_that_other_sources_give_in_part_or_as_well(tmp_path, control, worth):
    text = said(write(tmp_path, {(NORMALIZED, "full", None): 13, (NORMALIZED, "full", WITHIN_CLASS): control}))
    known = "Knowing the source is worth +25 points (25 to 25) at full"
    only_a_group = "A group is worth +25 points (25 to 25) at full, but not for its source"
    assert text.startswith(known if control == 11 else only_a_group)
    assert f"; other sources' clips of the same classes are worth {worth}; " in text


def test_a_difference_whose_interval_holds_0_is_no_gain(tmp_path):
    """The same 5 points on average, from a few sources that win much."""
    few = [8 + 12 * (source < 2) for source in range(SOURCES)]
    lost = [8 - 8 * (source < 3) for source in range(SOURCES)]
    text = said(write(tmp_path, {(NORMALIZED, "full", None): few, (OFFICIAL, "full", None): lost}))
    assert text.startswith("Knowing the source gains nothing at full: +5 points (0 to ")
    assert "the official form gains nothing: −5 points (−10 to 0)." in text


# ---- the screen ----------------------------------------------------------------------------------------------------


def python(name: str, code: str, made: Path | None = None) -> demo.Step:
    return demo.Step(name, [sys.executable, "-c", code], made=made)


def test_without_a_terminal_there_is_a_line_a_step_and_the_output_is_in_files(tmp_path, capsys):
    demo.run([[python("one step", "print('words')"), python("another", "")], [python("beside", "")]], tmp_path)
    printed = capsys.readouterr()
    assert sorted(line.rpartition(" ")[0] for line in printed.out.splitlines()) == [
        "demo: another: done in",
        "demo: beside: done in",
        "demo: one step: done in",
    ]
    assert not printed.err and (tmp_path / "one-step.log").read_text() == "words\n"


def test_what_is_made_is_not_made_again(tmp_path, capsys):
    made = tmp_path / "made"
    step = python("writing", f"open({str(made)!r}, 'x').close()", made)
    for _ in range(2):
        demo.run([[step]], tmp_path)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_failure_shows_the_end_of_the_log_and_its_path_and_ends_what_runs_beside(tmp_path):
    failing = python("failing", "for number in range(100): print(number)\nraise SystemExit(3)")
    slow = python("slow", f"import time; time.sleep(60); open({str(tmp_path / 'late')!r}, 'x')")
    with pytest.raises(SystemExit) as end:
        demo.run([[slow], [failing, python("next", f"open({str(tmp_path / 'next')!r}, 'x')")]], tmp_path)
    lines = str(end.value).splitlines()
    assert lines[-1] == f"demo: failing: failed; all that it printed is in {tmp_path / 'failing.log'}"
    assert lines[:-1] == [str(number) for number in range(85, 100)]
    assert not (tmp_path / "late").exists() and not (tmp_path / "next").exists()


def test_a_bar_tells_updates_time_left_and_the_last_figure(tmp_path):
    """On a terminal of its own, with a progress.json that is there already."""
    (tmp_path / "progress.json").write_text(
        json.dumps(
            {"update": 30, "of": 120, "epoch": 2, "seconds": 61.0, "seconds_left": 183.0}
            | {"metric": "accuracy", "value": 0.4321, "state": "training"}
        )
    )
    code = (
        "import demo, sys; from pathlib import Path; folder = Path(sys.argv[1]); "
        "demo.run([[demo.Step('training x', ['sleep', '1'], checkpoints=folder)]], folder)"
    )
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    command = [sys.executable, "-c", code, tmp_path]
    subprocess.run(command, cwd=ROOT / "scripts", stdout=terminal, stderr=terminal, timeout=120, check=True)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    os.close(terminal)
    assert "training x   25 % |" in shown and "| 30/120 updates, 3:03 left, accuracy 0.432" in shown
    assert "demo: training x: done in 0:0" in shown


# ---- options -------------------------------------------------------------------------------------------------------


def commands(*options: str) -> dict[str, str]:
    plan = demo.Demo(demo.parse([*options, "--out", "somewhere"]))
    steps = [step for lane in (plan.preparation(), *plan.trainings()) for step in lane]
    return {step.name: " ".join(step.command[1:]) for step in steps}


def test_the_seed_reaches_synthesis_trainings_and_draws():
    found = commands("--seed", "7")
    assert "--seed 7" in found.pop("synthetic sound")
    found.pop("features")
    assert len(found) == 7
    for name, command in found.items():
        assert ("common.seed=7" if name.startswith("training") else "--seed 7") in command


def test_vocalsound_takes_the_place_of_the_synthetic_sound():
    found = commands("--vocalsound", "corpora/vocalsound")
    assert list(found)[0] == "features"
    assert "prepare vocalsound --root corpora/vocalsound --train-speakers-every 3" in found["features"]


def test_a_folder_that_holds_another_demo_is_refused(tmp_path):
    out = str(tmp_path / "out")
    for _ in range(2):
        demo.Demo(demo.parse(["--out", out])).claim()
    for options in (["--seed", "2"], ["--smallest"]):
        with pytest.raises(SystemExit, match="holds another demo, or something else; remove it, or name another"):
            demo.Demo(demo.parse(["--out", out, *options])).claim()
    (tmp_path / "out" / "demo.json").unlink()
    (tmp_path / "out" / "corpus").mkdir()
    with pytest.raises(SystemExit, match="holds another demo"):
        demo.Demo(demo.parse(["--out", out])).claim()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--seed", "-1"], "demo: --seed needs a whole number from 0 up"),
        (["--seed"], "demo: --seed needs a whole number from 0 up"),
        (["--out"], "demo: --out needs a folder"),
        (["--vocalsound", "no/such"], "no/such: no such folder; unpack VocalSound and give its folder"),
        (
            ["--other"],
            "demo: unknown option --other; the options are --vocalsound DIR, --seed S, --out DIR and --smallest",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_before_set_up(given, sentence):
    refused = subprocess.run(["bash", "scripts/demo.sh", *given], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert refused.returncode == 1 and not refused.stdout
    assert refused.stderr.strip().endswith(sentence)
