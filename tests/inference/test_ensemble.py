"""An ensemble by the commands: figures, files and controls by hand from its models' own, and every refusal."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import spoken
import tiny
import torch

import fairseq_neupronet
from fairseq_neupronet.cli import main
from fairseq_neupronet.evaluation.controls import CONTROLS
from fairseq_neupronet.profiles.groups import Grouping

PROTOCOLS = ("single", "enrol-3", "full", "batch-4")
SHUFFLED = ("shuffled_profiles", "shuffled_within_class")
FINER = {"n_mels": 24, "sample_rate": 22050, "hop_length": 220}  # whose windows are not a whole number of samples
MODELS = {
    "base": {},
    "pooled": {"profiling": True, "protocol_seed": 5},
    "normalized": {"profiling": True, "profile_normalize": True, "model": {"pooling": "mean"}, "seed": 3},
}
NAMES = [*MODELS]
BACKWARDS = list(reversed(tiny.CLASSES))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Sounds prepared by two recipes, ``sounds`` and ``finer``, and a checkpoint of each model; that of ``normalized``
    has the classes in another order."""
    folder = tmp_path_factory.mktemp("ensemble")
    for name, recipe in (("sounds", {}), ("finer", FINER)):
        spoken.write_corpus(folder / name, **recipe)
    for name, options in MODELS.items():
        built = spoken.build(data_of(folder, name), **options)
        state = {"classes": BACKWARDS} if name == "normalized" else {}
        path = spoken.save(folder / f"{name}.pt", *built, **state)
        torch.save(torch.load(path, weights_only=True) | {"last_optimizer_state": None}, path)
        change(path, lambda state: state["cfg"].update(criterion={"_name": "NeuProNet"}))
    return folder


def change(path, how, to=None):
    """Change a checkpoint's contents."""
    state = torch.load(path, weights_only=True)
    how(state)
    torch.save(state, to or path)
    return to or path


def data_of(folder, name):
    return folder / ("finer" if name == "pooled" else "sounds") / "data"


def paths_of(folder, names=NAMES):
    return [part for name in names for part in ("--path", str(folder / f"{name}.pt"))]


def evaluate(folder, out, names, *options, data=None):
    data = [data_of(folder, name) for name in names] if data is None else data
    data = [part for each in data for part in ("--data", str(each))]
    arguments = ["--out", str(out), "--protocol", ",".join(PROTOCOLS), "--device", "cpu", "--workers", "0"]
    return main(["evaluate", *paths_of(folder, names), *data, *arguments, *options])


def probabilities(folder, evaluation):
    with open(folder / "test" / evaluation / "predictions.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return np.array([[float(row[name]) for name in tiny.CLASSES] for row in rows])


def by_hand(each):
    odds = np.exp(np.mean(np.log(each), axis=0))
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def evaluated(place, tmp_path_factory):
    """Results of the ensemble, and of each model by itself with the first one's seed."""
    out = tmp_path_factory.mktemp("evaluated")
    assert evaluate(place, out / "ensemble", NAMES) == 0
    for name in NAMES:
        assert evaluate(place, out / name, [name], "--seed", "1") == 0
    return out


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_probabilities_are_the_geometric_mean_of_the_models(evaluated, protocol):
    expected = by_hand([probabilities(evaluated / name, protocol) for name in NAMES])
    np.testing.assert_allclose(probabilities(evaluated / "ensemble", protocol), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("control", SHUFFLED)
@pytest.mark.parametrize("protocol", PROTOCOLS[1:])
def test_profiles_are_shuffled_alike_for_all_models(evaluated, protocol, control):
    each = [probabilities(evaluated / "base", protocol)]  # which makes no use of them
    each += [probabilities(evaluated / name, f"{protocol}+{control}") for name in NAMES[1:]]
    found = probabilities(evaluated / "ensemble", f"{protocol}+{control}")
    np.testing.assert_allclose(found, by_hand(each), rtol=0, atol=1e-6)
    assert np.abs(found - probabilities(evaluated / "ensemble", protocol)).max() > 1e-4


@pytest.mark.parametrize("control", CONTROLS)
def test_other_controls_are_made_of_the_ensembles_outputs_for_each_clip_alone(place, evaluated, control):
    alone = np.log(by_hand([probabilities(evaluated / name, "single") for name in NAMES]))
    names = spoken.profiles_of_test(place / "sounds")
    groups = Grouping.partition(np.unique(names, return_inverse=True)[1])
    found = probabilities(evaluated / "ensemble", f"full+{control}")
    np.testing.assert_allclose(found, CONTROLS[control](alone, groups), rtol=0, atol=1e-5)


def test_files_say_which_models_made_them_and_metrics_are_those_of_the_mean(place, evaluated):
    folder = evaluated / "ensemble" / "test" / "full"
    summary = json.loads((folder / "metrics.json").read_text())
    assert summary["checkpoint"] == [str(place / f"{name}.pt") for name in NAMES]
    assert all(len(digest) == 64 for digest in summary["sha256"]) and len(set(summary["sha256"])) == 3
    table = list(csv.DictReader((folder / "predictions.tsv").read_text().splitlines(), delimiter="\t"))
    assert [row["profile"] for row in table] == spoken.profiles_of_test(place / "sounds")
    hits = [row["target"] == row["prediction"] for row in table]
    assert summary["metrics"]["accuracy"] == pytest.approx(np.mean(hits))
    rows = list(csv.DictReader((evaluated / "ensemble" / "results.csv").read_text().splitlines()))
    full = {row["metric"]: row["value"] for row in rows if row["protocol"] == "full" and not row["control"]}
    assert float(full["accuracy"]) == pytest.approx(np.mean(hits))
    assert not [name for name in full if name.startswith("loss")]
    assert {row["metric"] for row in rows if row["protocol"] == "enrol-3"} >= {"short_of_enrolment"}


def predict(folder, names, capsys, *options):
    capsys.readouterr()
    assert main(["predict", *paths_of(folder, names), "--csv", *map(str, options)]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    places = [(row["path"], row["start"], row["end"]) for row in rows]
    return places, np.array([[float(row[name]) for name in tiny.CLASSES] for row in rows])


def test_predict_and_enrol_take_several_models(place, tmp_path, capsys):
    files = spoken.files_of_test(place / "sounds")
    banks = {}
    for names in (NAMES, NAMES[1:2], NAMES[2:]):
        banks[len(names), names[-1]] = bank = str(tmp_path / f"{len(names)}{names[-1]}.npz")
        for files_of in (files[:3], files[3:5]):
            assert main(["enrol", *paths_of(place, names), "--bank", bank, "--profile", "ann", *files_of]) == 0
    together, expected = predict(place, NAMES, capsys, *files, "--profile", "ann", "--bank", banks[3, "normalized"])
    each = [predict(place, ["base"], capsys, *files)[1]]
    for name in NAMES[1:]:
        each.append(predict(place, [name], capsys, *files, "--profile", "ann", "--bank", banks[1, name])[1])
    np.testing.assert_allclose(expected, by_hand(each), rtol=0, atol=2e-5)
    assert [Path(path).name for path, *_ in together] == [Path(file).name for file in files]
    capsys.readouterr()
    assert main(["enrol", "--bank", banks[3, "normalized"], "--list"]) == 0
    assert capsys.readouterr().out == "ann\t5\n"
    assert main(
        ["predict", *paths_of(place, NAMES[::-1]), files[0], "--profile", "ann", "--bank", banks[3, "normalized"]]
    )
    assert "a profile bank of another model" in capsys.readouterr().err


def test_a_long_sound_is_cut_alike_whatever_the_models_rates(place):
    """At one rate the sound ends with a window's end, at the other one three samples later, which would be a window."""
    rng = np.random.default_rng(2)
    ensemble = fairseq_neupronet.load([place / f"{name}.pt" for name in NAMES])
    sound, how = 0.1 * rng.normal(size=14406), {"window": 0.3001, "sample_rate": 16000}
    alone = [fairseq_neupronet.load(place / f"{name}.pt").predict([sound], **how)[0].times for name in NAMES]
    assert [len(each) for each in alone] == [3, 4, 3]
    (prediction,) = ensemble.predict([sound], **how)
    np.testing.assert_array_equal(prediction.times, alone[0])
    times = [model.predict([sound], **how)[0].times for model in ensemble.models]
    np.testing.assert_allclose(times[1], times[0], rtol=0, atol=4 / 22050)
    for n_samples, n_windows in ((9600, 1), (9700, 1), (9800, 2), (19200, 2), (19201, 3), (30000, 4)):
        (prediction,) = ensemble.predict([sound := 0.1 * rng.normal(size=n_samples)], sample_rate=16000)
        assert len(prediction.times) == n_windows
        assert ensemble.enrol(f"of {n_samples}", [sound], sample_rate=16000) == n_windows


# ---- what is refused ---------------------------------------------------------------------------------------------


def other_classes(state):
    state["task_state"]["classes"] = ["cough", "laugh", "sneeze"]


def longer_window(state):
    state["task_state"]["fixed_frames"] *= 2


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            other_classes,
            "changed.pt: its classes are cough, laugh, sneeze, those of {base} are cough, laugh, sniff; an ensemble "
            "takes models of the same classes",
        ),
        (
            longer_window,
            "{base}: takes 0.6099 s of sound at once, {changed} 1.21 s; an ensemble takes models of one window",
        ),
    ],
)
def test_models_that_do_not_go_together_are_refused(place, tmp_path, capsys, how, said):
    changed = change(place / "base.pt", how, tmp_path / "changed.pt")
    paths = ["--path", str(place / "base.pt"), "--path", str(changed)]
    said = said.format(base=place / "base.pt", changed=changed)
    assert main(["predict", *paths, spoken.files_of_test(place / "sounds")[0]]) == 1
    assert said in capsys.readouterr().err
    with pytest.raises(ValueError, match="an ensemble takes models of"):
        fairseq_neupronet.load([place / "base.pt", changed])
    data = place / "sounds" / "data"
    if how is other_classes:  # which the data must have too, for that model
        return
    assert main(["evaluate", *paths, "--data", str(data), "--out", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("embed", ["--out", "e.npz", "x.wav"]),
        ("show", ["x.wav"]),
        ("serve", []),
        ("export", ["--format", "pt2", "--out", "x.pt2"]),
    ],
)
def test_other_commands_take_one_model(place, tmp_path, monkeypatch, capsys, command, options):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fairseq_neupronet.serving.server.require_gradio", lambda: None)
    assert main([command, *paths_of(place), *options]) == 1
    said = capsys.readouterr().err
    assert "--path is given 3 times: this command takes one model; an ensemble of several works with" in said


def test_in_python_an_ensemble_says_what_it_cannot(place, tmp_path):
    ensemble = fairseq_neupronet.load([place / f"{name}.pt" for name in NAMES])
    with pytest.raises(ValueError, match="an ensemble has no embeddings of its own; load one of its models"):
        ensemble.embed(["x.wav"])
    with pytest.raises(ValueError, match="an ensemble cannot be shown in one picture; load one of its models"):
        ensemble.inspect("x.wav")
    with pytest.raises(ValueError, match="sample_rate is missing: models take 16000 and 22050 Hz"):
        ensemble.predict(np.zeros(4000))
    with pytest.raises(ValueError, match="recipe: 2 are given for 3 models; give one for all, or one a model"):
        fairseq_neupronet.load([place / f"{name}.pt" for name in NAMES], recipe=[None, None])
    with pytest.raises(ValueError, match="no checkpoint is given"):
        fairseq_neupronet.load([])
    with pytest.raises(ValueError, match="was trained without profiles .* none can be enrolled"):
        fairseq_neupronet.load([place / "base.pt"] * 2).enrol("ann", [np.zeros(4000)])
    assert type(fairseq_neupronet.load([place / "base.pt"])) is type(fairseq_neupronet.load(place / "base.pt"))
    gone = ensemble.stream([str(tmp_path / "gone.wav"), *spoken.files_of_test(place / "sounds")[:1]])
    first, second = gone
    assert "gone.wav" in first.sentence and second.label in tiny.CLASSES


def spoil(name, line, before, after):
    """A change of a folder: in a file, a line's text by another."""

    def change(data):
        lines = (data / name).read_text().splitlines()
        assert before in lines[line - 1]
        lines[line - 1] = lines[line - 1].replace(before, after)
        (data / name).write_text("\n".join(lines) + "\n")

    return change


def shorten(data):
    for name in ("test.tsv", "test.label"):
        (data / name).write_text("\n".join((data / name).read_text().splitlines()[:-1]) + "\n")


FOLDERS = {
    "label": (
        spoil("test.label", 2, "laugh", "cough"),
        "test.label:2: label is 'cough', in {first}/test.label it is 'laugh'",
    ),
    "profile": (spoil("test.tsv", 4, "p0", "p1"), "test.tsv:4: profile is 'p1', in {first}/test.tsv it is 'p0'"),
    "clip": (
        spoil("test.tsv", 3, "test1", "test9"),
        "test.tsv:3: clip is 'test9.npy', in {first}/test.tsv it is 'test1.npy'",
    ),
    "fewer": (shorten, "test.tsv:15: clip is none, in {first}/test.tsv it is 'test13.npy'"),
    "class": (
        lambda data: (data / "dict.label.txt").write_text("laugh 4\ncough 4\nsniff 4\n"),
        "dict.label.txt:1: class is 'laugh', in {first}/dict.label.txt it is 'cough'",
    ),
    "recording": (
        lambda data: (data / "test.recording").write_text("r\n" * 14),
        "test.recording:1: recording is 'r', in {first}/test.recording it is none",
    ),
}


@pytest.mark.parametrize("difference", FOLDERS)
def test_folders_that_do_not_hold_the_same_are_refused(place, tmp_path, capsys, difference):
    how, said = FOLDERS[difference]
    shutil.copytree(place / "finer" / "data", tmp_path / "data")
    how(tmp_path / "data")
    first = place / "sounds" / "data"
    assert evaluate(place, tmp_path / "out", ["base", "pooled"], data=[first, tmp_path / "data"]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{tmp_path / 'data'}/{said.format(first=first)}; the folders of an ensemble hold the same" in last
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_evaluated_is_one_sentence(place, tmp_path, capsys):
    first, out = place / "sounds" / "data", tmp_path / "out"
    for options, data, said in (
        ([], [first] * 2, "--data: 2 folders for 3 models; give one for all, or one a model, in the order of --path"),
        (["--embeddings"], None, "--embeddings: an ensemble has none of its own; evaluate its models one at a time"),
        ([], [first], "test.tsv: 8 mel bands, the model has 24; prepare this data with the model's recipe"),
    ):
        assert evaluate(place, out, NAMES, *options, data=data) == 1
        assert said in capsys.readouterr().err
    change(place / "base.pt", lambda state: state["cfg"]["task"].update(min_sample_size=25), tmp_path / "least.pt")
    paths = ["--path", str(tmp_path / "least.pt"), "--path", str(place / "base.pt")]
    assert main(["evaluate", *paths, "--data", str(first), "--out", str(out), "--device", "cpu", "--workers", "0"]) == 1
    said = f"base.pt: labels 14 clips of test, {tmp_path / 'least.pt'} 9 (task.min_sample_size); an ensemble takes"
    assert said in capsys.readouterr().err
