"""``neupronet evaluate``: the figures of fairseq-validate, controls beside them, files and refusals."""

import csv
import itertools
import json
import logging
import shutil

import numpy as np
import pytest
import tiny
import torch
from fairseq import tasks
from omegaconf import OmegaConf

from fairseq_neupronet.cli import main
from fairseq_neupronet.evaluation.controls import CONTROLS
from fairseq_neupronet.profiles.enrolment import enrol, path_keys
from fairseq_neupronet.profiles.groups import Grouping

PROTOCOLS = ("single", "full", "enrol-2", "batch-5")


@pytest.fixture(scope="module")
def trained(place, checkpoint, tmp_path_factory):
    """Checkpoints as fairseq writes them: the base model, and one with profiles and normalisation over them."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(place / "data", folder / "data")
    state = torch.load(checkpoint, weights_only=True)
    for name, used in (("base", False), ("both", True)):
        config = OmegaConf.create(state["cfg"])
        config.task.update(data=str(folder / "data"), profiling=used, profile_normalize=used)
        config.model.update(profiling=used, profile_extractor_path=None)
        torch.manual_seed(3)
        task = tasks.setup_task(config.task)
        model = task.build_model(config.model)
        with torch.no_grad():  # so that clips differ clearly
            for parameter in model.head.parameters():
                parameter.mul_(4)
        own = {"cfg": OmegaConf.to_container(config), "model": model.state_dict(), "task_state": task.state_dict()}
        torch.save(state | own, folder / f"{name}.pt")
    return folder


def evaluate(trained, out, name="both", *options, protocols=PROTOCOLS):
    arguments = {"--path": trained / f"{name}.pt", "--data": trained / "data", "--out": out}
    arguments |= {"--protocol": ",".join(protocols), "--device": "cpu", "--workers": 0}
    given = [str(part) for option, value in arguments.items() if option not in options for part in (option, value)]
    return main(["evaluate", *given, *options])


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated")
    for name in ("base", "both"):
        assert evaluate(trained, out / name, name, "--subset", "test,valid", "--embeddings", "--batch-size", "8") == 0
    return out


def rows_of(folder):
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def predictions(folder):
    header, *rows = [line.split("\t") for line in (folder / "predictions.tsv").read_text().splitlines()]
    return rows, np.array([[float(value) for value in row[4:]] for row in rows])


def cases(*quick):
    """Every model, protocol and subset; those that are not among the quick ones are slow, for fairseq is."""
    every = itertools.product(("base", "both"), PROTOCOLS, ("test", "valid"))
    return [pytest.param(*case, marks=() if case in quick else pytest.mark.slow) for case in every]


@pytest.mark.parametrize(
    ("name", "protocol", "subset"),
    cases(("base", "single", "valid"), ("both", "enrol-2", "test"), ("both", "batch-5", "valid")),
)
def test_figures_are_those_of_fairseq_validate_to_the_digit(
    trained, evaluated, tmp_path, caplog, name, protocol, subset
):
    caplog.set_level(logging.INFO)
    options = ["--protocol", protocol, "--results-path", tmp_path]
    tiny.fairseq_validate(
        trained / f"{name}.pt", trained / "data", *options, task="spectrogram_finetuning", split=subset
    )
    ours = evaluated / name / subset / protocol
    assert (ours / "predictions.tsv").read_text() == (tmp_path / "predictions.tsv").read_text()
    summary, expected = (json.loads((folder / "metrics.json").read_text()) for folder in (ours, tmp_path))
    assert summary == expected
    found = {
        row["metric"]: row
        for row in rows_of(evaluated / name)
        if (row["subset"], row["protocol"], row["control"]) == (subset, protocol, "")
    }
    for metric, value in expected["metrics"].items():
        if value is not None:
            assert float(found[metric]["value"]) == value
            assert int(found[metric]["clips"]) == expected["clips"]
    printed = [line for line in caplog.messages if f"protocol {protocol}" in line and " loss " in line]
    loss = float(printed[-1].split(" loss ")[1].split()[0])
    assert loss == pytest.approx(float(found["loss"]["value"]), rel=1e-5)


@pytest.mark.slow
def test_full_and_enrol_are_the_same_at_any_batch_size_and_number_of_workers(trained, tmp_path):
    """Profiles of 1, 2, 40 and 557 clips."""
    data = tiny.write_corpus(tmp_path / "data", clips={"train": 6, "valid": 6, "test": 600})
    profiles = ["alone", "two", "two", *["some"] * 40, *["many"] * 557]
    root, *lines = (data / "test.tsv").read_text().splitlines()
    rows = ["\t".join([*line.split("\t")[:3], profile]) for line, profile in zip(lines, profiles, strict=True)]
    (data / "test.tsv").write_text("\n".join([root, *rows]) + "\n")
    protocols, found = ("full", "enrol-3"), {}
    for batch_size, workers in itertools.product((1, 7, 64, 512), (0, 1, 2)):
        out = tmp_path / f"{batch_size}-{workers}"
        options = ["--data", str(data), "--batch-size", str(batch_size), "--workers", str(workers), "--no-controls"]
        assert evaluate(trained, out, "both", *options, protocols=protocols) == 0
        for protocol in protocols:
            found.setdefault(protocol, []).append(predictions(out / "test" / protocol)[1])
    for same in found.values():
        assert np.ptp(same, axis=0).max() < 1e-6
    assert np.abs(found["full"][0] - found["enrol-3"][0]).max() > 1e-3


def test_batch_size_and_seed_of_the_draw(trained, evaluated, tmp_path):
    evaluate(trained, tmp_path / "a", "both", "--batch-size", "3", "--no-controls")
    evaluate(trained, tmp_path / "b", "both", "--seed", "9", "--no-controls")
    expected = predictions(evaluated / "both" / "test" / "enrol-2")[1]
    np.testing.assert_allclose(predictions(tmp_path / "a" / "test" / "enrol-2")[1], expected, atol=1e-6)
    assert np.abs(predictions(tmp_path / "b" / "test" / "enrol-2")[1] - expected).max() > 1e-4
    assert not list((tmp_path / "a" / "test").glob("*+*"))
    full = [predictions(folder / "test" / "full")[1] for folder in (tmp_path / "b", evaluated / "both")]
    np.testing.assert_allclose(*full, atol=1e-6)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("protocol", ["full", "enrol-2"])
def test_controls_are_of_the_outputs_for_each_clip_alone(evaluated, protocol, control):
    for name in ("base", "both"):
        rows, alone = predictions(evaluated / name / "test" / "single")
        _, codes = np.unique([row[1] for row in rows], return_inverse=True)
        grouping = Grouping.partition(codes)
        if protocol == "enrol-2":
            grouping = Grouping.listed(enrol(codes, path_keys(row[0] for row in rows), 2, seed=1), 2)
        expected = CONTROLS[control](np.log(alone), grouping)
        folder = evaluated / name / "test" / f"{protocol}+{control}"
        np.testing.assert_allclose(predictions(folder)[1], expected, atol=1e-5)
        summary = json.loads((folder / "metrics.json").read_text())
        assert (summary["control"], summary["protocol"]) == (control, protocol)
        targets = [summary["classes"].index(row[2]) for row in rows]
        assert summary["metrics"]["accuracy"] == np.mean(expected.argmax(axis=1) == targets)


@pytest.mark.parametrize(
    ("control", "among"), [("shuffled_profiles", "all_clips"), ("shuffled_within_class", "clips_of_a_class")]
)
@pytest.mark.parametrize(
    "protocol",
    ["enrol-2", pytest.param("full", marks=pytest.mark.slow), pytest.param("batch-5", marks=pytest.mark.slow)],
)
def test_shuffled_profiles_are_those_of_fairseq_validate_with_shuffled_profiles(
    trained, evaluated, tmp_path, protocol, control, among
):
    overrides = f"{{'protocol': '{protocol}', 'shuffle_profiles': 1, 'shuffle_profiles_among': '{among}'}}"
    tiny.fairseq_validate(
        trained / "both.pt", trained / "data", "--model-overrides", overrides, "--results-path", tmp_path
    )
    expected = (tmp_path / "predictions.tsv").read_text()
    folder = evaluated / "both" / "test" / f"{protocol}+{control}"
    assert (folder / "predictions.tsv").read_text() == expected
    plain = evaluated / "both" / "test" / protocol
    assert expected != (plain / "predictions.tsv").read_text()
    # Clips, their own profiles, which the paired test draws, and targets are the same.
    assert [row[:3] for row in predictions(folder)[0]] == [row[:3] for row in predictions(plain)[0]]


def test_a_model_without_profiles_has_no_shuffled_ones(evaluated):
    for control in ("shuffled_profiles", "shuffled_within_class"):
        assert list((evaluated / "both" / "test").glob(f"*+{control}"))
    assert not list((evaluated / "base" / "test").glob("*shuffled*"))


def test_batch_norm_adapts_in_a_model_that_was_trained_before_that_was_an_option(trained, tmp_path):
    state = torch.load(trained / "base.pt", weights_only=True)
    config = OmegaConf.create(state["cfg"])
    config.model.backbone = "resnet18"
    task = tasks.setup_task(config.task)
    model = task.build_model(config.model)
    for norm in model.backbone.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_()
    state |= {"cfg": OmegaConf.to_container(config), "model": model.state_dict()}
    torch.save(state, trained / "later.pt")
    del state["cfg"]["task"]["adaptive_batch_norm"]
    torch.save(state, trained / "earlier.pt")
    state["cfg"]["task"]["adaptive_batch_norm"] = 2.0
    torch.save(state, trained / "adaptive.pt")

    protocols = ("single", "full", "enrol-2")
    for name, options in {
        "later": ["--adaptive-batch-norm", "2"],
        "earlier": ["--adaptive-batch-norm", "2"],
        "adaptive": [],
        "plain": [],
    }.items():
        checkpoint = "later" if name == "plain" else name
        assert evaluate(trained, tmp_path / name, checkpoint, *options, protocols=protocols) == 0
    assert rows_of(tmp_path / "later") == rows_of(tmp_path / "earlier") == rows_of(tmp_path / "adaptive")
    assert (tmp_path / "later" / "test" / "full+shuffled_profiles").exists()
    assert not (tmp_path / "plain" / "test" / "full+shuffled_profiles").exists()
    for protocol in protocols:
        found, plain = (predictions(tmp_path / name / "test" / protocol)[1] for name in ("later", "plain"))
        assert (np.abs(found - plain).max() > 1e-3) == (protocol != "single")


@pytest.mark.parametrize("name", ["base", "both"])
@pytest.mark.parametrize("protocol", ["full", "enrol-2"])
def test_a_control_names_the_clips_that_the_model_was_asked_about(evaluated, name, protocol):
    folder = evaluated / name / "test"
    clips = [row[:3] for row in predictions(folder / protocol)[0]]
    for control in ("majority_vote", "centred_logits", "balanced_assignment"):
        assert [row[:3] for row in predictions(folder / f"{protocol}+{control}")[0]] == clips


def test_clips_short_of_enrolment_are_reported(trained, evaluated):
    profiles = [line.split("\t")[3] for line in (trained / "data" / "test.tsv").read_text().splitlines()[1:]]
    short = sum(profiles.count(profile) < 3 for profile in profiles)
    summary = json.loads((evaluated / "both" / "test" / "enrol-2" / "metrics.json").read_text())
    assert summary["short_of_enrolment"] == short > 0
    assert "short_of_enrolment" not in json.loads((evaluated / "both" / "test" / "full" / "metrics.json").read_text())


def test_embeddings_lead_to_the_logits(trained, evaluated):
    state = torch.load(trained / "both.pt", weights_only=True)["model"]
    weight, bias = state["head.0.weight"].numpy(), state["head.0.bias"].numpy()
    rows, probabilities = predictions(evaluated / "both" / "test" / "enrol-2")
    arrays = np.load(evaluated / "both" / "test" / "enrol-2" / "embeddings.npz")
    assert arrays["path"].tolist() == [row[0] for row in rows]
    np.testing.assert_allclose(arrays["fused"], np.concatenate([arrays["clip"], arrays["pooled"]], axis=1), atol=1e-6)
    np.testing.assert_allclose(arrays["fused"] @ weight.T + bias, arrays["logits"], atol=1e-5)
    odds = np.exp(arrays["logits"])
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), probabilities, atol=1e-6)
    assert arrays["profile"].shape == arrays["clip"].shape
    profiles = [row[1] for row in rows]
    codes = arrays["profile_code"].tolist()
    assert len(set(zip(codes, profiles, strict=True))) == len(set(codes)) == len(set(profiles))
    base = np.load(evaluated / "base" / "test" / "full" / "embeddings.npz")
    assert not {"profile", "pooled"} & set(base.files)


def test_every_number_is_stored_with_its_subset_protocol_and_control(evaluated):
    rows = rows_of(evaluated / "both")
    expected = {(protocol, control) for protocol in ("full", "enrol-2") for control in ("", *CONTROLS)}
    expected |= {("single", ""), ("batch-5", "")}
    expected |= {
        (protocol, control)
        for protocol in ("full", "enrol-2", "batch-5")
        for control in ("shuffled_profiles", "shuffled_within_class")
    }
    for subset in ("test", "valid"):
        assert {(row["protocol"], row["control"]) for row in rows if row["subset"] == subset} == expected
    assert all(row["metric"] and isinstance(float(row["value"] or "nan"), float) for row in rows)


def test_an_earlier_evaluation_is_kept_unless_forced(trained, tmp_path, capsys):
    assert evaluate(trained, tmp_path, "base", protocols=["single"]) == 0
    before = (tmp_path / "results.csv").read_text()
    assert evaluate(trained, tmp_path, "base", protocols=["full"]) == 1
    assert "results.csv: is there already; give another --out, or --force" in capsys.readouterr().err
    assert (tmp_path / "results.csv").read_text() == before
    assert evaluate(trained, tmp_path, "base", "--force", protocols=["full"]) == 0
    assert (tmp_path / "results.csv").read_text() != before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--protocol", "enrol-x"], "Unknown protocol 'enrol-x'"),
        (["--subset", "tests"], "--subset tests: "),
        (["--subset", "train"], "--subset train: fairseq trains on a split of such a name"),
        (["--subset", "test,"], "--subset 'test,': holds an empty name"),
        (["--batch-size", "0"], "--batch-size 0: give a whole number from 1 up"),
        (["--workers", "-1"], "--workers -1: give a whole number from 0 up"),
        (["--seed", "-1"], "--seed -1: give a whole number from 0 up"),
        (["--device", "tpu9"], "--device tpu9: torch cannot use it here"),
        (["--path", "nowhere.pt"], "--path nowhere.pt: no such file"),
        (["--data", "nowhere"], "--data nowhere: no such folder"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(trained, tmp_path, capsys, options, said):
    assert evaluate(trained, tmp_path / "out", "base", *options) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("neupronet: error: ") and said in last
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_folder_should_be_is_one_sentence(trained, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert evaluate(trained, tmp_path / "out", "base") == 1
    assert f"--out {tmp_path / 'out'}: is a file; name a folder" in capsys.readouterr().err
