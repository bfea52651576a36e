"""Every bad input of tests/bad/make.py: one sentence with the words expected, nothing run, nothing half-written."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from bad.make import CASES

from fairseq_neupronet.cli import main
from fairseq_neupronet.data.clip_files import check_files
from fairseq_neupronet.errors import InputError

MOST_SECONDS, MOST_BYTES = 60, 3 << 30


@pytest.fixture(autouse=True)
def _bounded(tmp_path, monkeypatch):
    """A pipe that is waited for, or memory taken on a stranger's word, ends the test."""

    def stop(*_):
        raise TimeoutError

    statm = Path("/proc/self/statm")  # of Linux
    pages = int(statm.read_text().split()[0]) if statm.exists() else None
    limits = resource.getrlimit(resource.RLIMIT_AS)
    earlier = signal.signal(signal.SIGALRM, stop)
    monkeypatch.chdir(tmp_path)
    signal.alarm(MOST_SECONDS)
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, earlier)


def command(*arguments, capsys) -> str:
    """The sentence of a ``neupronet`` command that fails."""
    assert main([str(argument) for argument in arguments]) == 1
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("neupronet: error: ")]
    return sentence


def sentence_of(read, *arguments) -> str:
    with pytest.raises(InputError) as raised:
        read(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def load(data, checked: bool = True) -> None:
    """What training and validation read of a folder."""
    task = tiny.build_task(data, profiling=True)
    for split in ("train", "valid"):
        task.load_dataset(split)
        if checked:
            check_files(task.dataset(split).manifest)
    for split in ("train", "valid"):
        dataset = task.dataset(split)
        for number in range(len(dataset)):
            dataset[number]


def _prepare(given, out, capsys):
    table, *options = given if isinstance(given, list) else [given]
    return command("prepare", "table", "--metadata", table, "--out", out, "--workers", 1, *options, capsys=capsys)


def _checkpoint_command(name):
    def run(given, out, capsys):
        data = tiny.write_corpus(given.parent / "data", clips={"train": 3, "test": 3})
        return command(name, "--path", given, "--data", data, "--out", out, capsys=capsys)

    return run


def _report(given, out, capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    sentence = command("report", given, "--out", out, "--metrics", "accuracy", capsys=capsys)
    pyplot.close("all")  # which the end of a command does
    return sentence


def _validate(given, out, capsys):
    data = tiny.write_corpus(given.parent / "data", clips={"train": 3, "test": 3})
    return sentence_of(tiny.fairseq_validate, given, data, "--results-path", str(out))


READERS = {
    "prepared": lambda given, out, capsys: sentence_of(load, given),
    "unchecked": lambda given, out, capsys: sentence_of(load, given, False),
    "prepare": _prepare,
    "benchmark": lambda given, out, capsys: command("benchmark", given, "--out", out, "--dry-run", capsys=capsys),
    "report": _report,
    "bank": lambda given, out, capsys: command("enrol", "--bank", given, "--list", capsys=capsys),
    "convert": lambda given, out, capsys: command("convert", given, out / "out.pt", capsys=capsys),
    "evaluate": _checkpoint_command("evaluate"),
    "predict": lambda given, out, capsys: command("predict", "--path", given, given, capsys=capsys),
    "validate": _validate,
}
# Features that were computed, and the recipe they belong to, are kept for the next run.
KEPT = {"features", "recipe.yaml", "0.npy", "1.npy", "3.npy"}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_gets_its_sentence(name, tmp_path, capsys):
    case, out = CASES[name], tmp_path / "out"
    given = case.make(tmp_path / "input")
    capsys.readouterr()
    sentence = READERS[case.kind](given, out, capsys)
    place = 0
    for word in case.words:
        assert word in sentence[place:], sentence
        place = sentence.index(word, place) + len(word)
    assert sentence.isprintable(), sentence
    assert len(sentence) < 1000
    written = {path.name for path in out.rglob("*")} if out.exists() else set()
    assert written <= KEPT
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("CREATED"))


def test_the_corpus_is_as_large_as_is_said():
    assert len(CASES) >= 60


def test_the_good_input_that_the_cases_spoil_is_read(tmp_path, capsys):
    """Otherwise a case could be answered for another fault than its own."""
    from bad import make

    load(make.prepared(tmp_path / "prepared"))
    table = make.sounds(tmp_path / "sounds")
    assert main(["prepare", "table", "--metadata", str(table), "--out", str(tmp_path / "a"), "--workers", "1"]) == 0
    table, _, recipe = make.with_recipe(tmp_path / "recipe", make.GOOD_RECIPE)
    arguments = ["prepare", "table", "--metadata", str(table), "--recipe", str(recipe), "--out", str(tmp_path / "b")]
    assert main(arguments) == 0
    results = make.results(tmp_path / "results")
    assert main(["report", str(results), "--out", str(tmp_path / "c"), "--metrics", "accuracy"]) == 0


@pytest.mark.parametrize("claimed", [2**32 // 2, 2**36 - 1])
def test_a_header_that_claims_gigabytes_takes_no_memory_for_them(claimed, tmp_path):
    """What is there is read, as by any player: libsndfile itself mends the sizes of some formats."""
    from bad import make

    from fairseq_neupronet.audio.decode import load_audio

    (tmp_path / "a.wav").write_bytes(make.wav_header(0xFFFFFFF0) + bytes(32000))
    assert len(load_audio(tmp_path / "a.wav", make.RATE)) == 16000
    (tmp_path / "b.flac").write_bytes(make.flac_claiming(tmp_path, claimed))
    try:
        n_samples = len(load_audio(tmp_path / "b.flac", make.RATE))
    except InputError as error:
        assert "does not decode as audio" in str(error)
    else:
        assert n_samples == make.RATE


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["audio_text", "table_a_pipe", "recipe_of_a_billion_laughs", "checkpoint_with_a_program_for_convert"]
)
def test_the_real_commands_say_the_same(name, tmp_path):
    case = CASES[name]
    given = case.make(tmp_path / "input")
    given = given if isinstance(given, list) else [given]
    arguments = ["convert", *given, tmp_path / "out.pt"]
    if case.kind == "prepare":
        arguments = ["prepare", "table", "--metadata", *given, "--out", tmp_path / "out"]
    finished = subprocess.run(
        [sys.executable, "-m", "fairseq_neupronet", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=tiny.environment(),
    )
    sentence = tiny.one_sentence(finished)
    assert all(word in sentence for word in case.words), sentence
