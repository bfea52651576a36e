"""The commands with a trained model, in this process, against the model's own methods."""

import csv
import io
import json

import numpy as np
import pytest
import spoken
import tiny

import fairseq_neupronet
from fairseq_neupronet.cli import main
from fairseq_neupronet.export import export as exporting


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return spoken.write_corpus(tmp_path_factory.mktemp("spoken"))


@pytest.fixture(scope="module")
def model_path(sounds):
    task, network, config = spoken.build(sounds / "data", profiling=True)
    return spoken.save(sounds / "model.pt", task, network, config)


@pytest.fixture
def run(capsys):
    """Exit code, output and errors of a command."""

    def command(*arguments):
        code = main([*map(str, arguments)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code or 0, captured.out, captured.err

    return command


def test_predict_prints_csv_into_a_pipe(run, sounds, model_path):
    code, out, _ = run("predict", "--path", model_path, sounds / "audio")
    rows = list(csv.DictReader(io.StringIO(out)))
    names = sorted(str(path) for path in (sounds / "audio").glob("*.wav"))
    assert code == 0 and [row["path"] for row in rows] == names
    for row, expected in zip(rows, fairseq_neupronet.load(model_path).predict(names), strict=True):
        assert (row["label"], row["profile"], float(row["start"])) == (expected.label, "", 0.0)
        found = [float(row[name]) for name in tiny.CLASSES]
        np.testing.assert_allclose(found, expected.probabilities, rtol=1e-5)


def test_unreadable_files_are_named_at_the_end_with_exit_code_1(run, sounds, model_path, tmp_path):
    (tmp_path / "text.wav").write_text("not a sound")
    (tmp_path / "empty.wav").touch()
    good = spoken.files_of_test(sounds)[:2]
    code, out, errors = run(
        "predict",
        "--path",
        model_path,
        "--json",
        "--top",
        2,
        good[0],
        tmp_path / "text.wav",
        tmp_path / "empty.wav",
        good[1],
    )
    assert code == 1
    assert [record["path"] for record in json.loads(out)] == good
    assert [len(record["top"]) for record in json.loads(out)] == [2, 2]
    first, second, last = errors.splitlines()[-3:]
    assert "text.wav" in first and "empty.wav" in second and "2 of 4 files could not be read" in last


def test_predict_prints_a_table_on_a_terminal(run, sounds, model_path, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    file = spoken.files_of_test(sounds)[0]
    _, out, _ = run("predict", "--path", model_path, "--top", 1, file)
    (line,) = out.splitlines()
    expected = fairseq_neupronet.load(model_path).predict(file)[0]
    assert line.endswith(f"00:00.00–00:00.60  {expected.label} {expected.probability:.3f}") and len(line) <= 100


def test_enrolled_profiles_are_used_listed_and_forgotten(run, sounds, model_path, tmp_path):
    files, bank = spoken.files_of_test(sounds), tmp_path / "bank.npz"
    assert run("enrol", "--path", model_path, "--bank", bank, "--profile", "ann", *files[:2])[0] == 0
    assert run("enrol", "--path", model_path, "--bank", bank, "--profile", "ann", files[2])[0] == 0
    assert run("enrol", "--path", model_path, "--bank", bank, "--profile", "bob", files[3])[0] == 0
    assert run("enrol", "--bank", bank, "--list")[1] == "ann\t3\nbob\t1\n"
    model = fairseq_neupronet.load(model_path)
    model.enrol("ann", files[:3])
    expected = model.predict(files[5], "ann")[0]
    for options in (("--profile", "ann", "--bank", bank), ("--profile-from", *files[:3])):
        _, out, _ = run("predict", "--json", "--path", model_path, files[5], *options)
        assert json.loads(out)[0]["probability"] == pytest.approx(expected.probability, abs=1e-6)
    assert run("enrol", "--bank", bank, "--forget", "ann")[0] == 0
    code, _, errors = run("predict", "--path", model_path, files[5], "--profile", "ann", "--bank", bank)
    assert code == 1 and "'ann' is not enrolled; known are: bob" in errors


def test_a_table_of_profiles_is_protocol_full(run, sounds, model_path, tmp_path):
    files, profiles = spoken.files_of_test(sounds), spoken.profiles_of_test(sounds)
    table = tmp_path / "profiles.csv"
    rows = [f"{file},{profile}\n" for file, profile in zip(files, profiles, strict=True)]
    table.write_text("path,profile\n" + "".join(rows), encoding="utf-8")
    _, out, _ = run("predict", "--json", "--path", model_path, "--profiles", table)
    expected = fairseq_neupronet.load(model_path).predict(files, profiles, together=True)
    found = [record["probability"] for record in json.loads(out)]
    np.testing.assert_allclose(found, [each.probability for each in expected], rtol=1e-5)


def test_embed_goes_on_after_an_unreadable_file(run, sounds, model_path, tmp_path):
    files = spoken.files_of_test(sounds)[:3]
    code, _, errors = run(
        "embed", "--path", model_path, "--out", tmp_path / "e.npz", files[0], tmp_path / "gone.wav", *files[1:]
    )
    assert code == 1 and "gone.wav" in errors and "1 of 4 files" in errors
    found = np.load(tmp_path / "e.npz")
    assert found["path"].tolist() == files
    expected = fairseq_neupronet.load(model_path).embed(files)
    for name in ("clip", "profile", "pooled", "fused", "logits", "times"):
        np.testing.assert_allclose(found[name], getattr(expected, name), atol=2e-6)


def test_embed_of_unreadable_files_only_writes_nothing(run, model_path, tmp_path):
    code, _, errors = run("embed", "--path", model_path, "--out", tmp_path / "e.npz", tmp_path / "gone.wav")
    assert code == 1 and "gone.wav: no such audio file" in errors
    assert not (tmp_path / "e.npz").exists()


def test_export_writes_a_graph_that_runs(run, sounds, model_path, tmp_path):
    torch = pytest.importorskip("torch")
    if not exporting.can_export():
        pytest.skip("torch before 2.9")
    code, out, _ = run(
        "export", "--format", "pt2", "--features", "outside", "--path", model_path, "--out", tmp_path / "model.pt2"
    )
    assert code == 0 and "agrees with the model" in out
    logits, profile = torch.export.load(tmp_path / "model.pt2").module()(torch.zeros(2, 8, 30), torch.zeros(0, 16))
    assert (logits.shape, profile.shape) == ((2, 3), (2, 16))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--profile", "ann"), "--bank FILE"),
        (("--bank", "b.npz"), "--profile NAME"),
        (("--top", "0"), "--top 0"),
        (("--profile-from", "gone.wav"), "gone.wav"),
        (("--profile", "ann", "--bank", "gone.npz"), "gone.npz"),
    ],
)
def test_options_that_do_not_go_together_are_explained(run, sounds, model_path, options, words):
    code, out, errors = run("predict", "--path", model_path, spoken.files_of_test(sounds)[0], *options)
    assert code == 1 and out == ""
    assert errors.startswith("neupronet: error: ") and words in errors and errors.count("\n") == 1
