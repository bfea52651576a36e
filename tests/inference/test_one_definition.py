"""predict, neupronet evaluate and fairseq-validate give a clip in its group the same logits, whatever the model."""

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import spoken
import tiny
import torch
from fairseq.dataclass.configs import FairseqConfig
from omegaconf import OmegaConf
from torch import nn

import fairseq_neupronet
from fairseq_neupronet.backbones.registry import Backbone, register_backbone
from fairseq_neupronet.cli import main
from fairseq_neupronet.criterions.neupronet import NeuProNetCriterionConfig
from fairseq_neupronet.evaluation.ensemble import EnsembleSession
from fairseq_neupronet.evaluation.plan import Plan
from fairseq_neupronet.profiles.protocols import Protocol

CNN = {"backbone": "two_convolutions"}
CMVN = {"profile_normalize": True, "profile_normalize_prior": 7.0}
OFFICIAL = {"head": "mlp", "normalize_embeddings": True, "temperature": 5.0}
MODELS = {
    "base": {"model": CNN},
    "mean": {"profiling": True, "model": OFFICIAL | {"pooling": "mean"}},
    "cosine": {"profiling": True, "model": OFFICIAL | {"pooling": "cosine"}},
    "dot": {"profiling": True, "model": OFFICIAL | {"pooling": "dot"}},
    "profile+cosine+dot": {"profiling": True, "model": OFFICIAL | {"pooling": "profile+cosine+dot"}},
    "cmvn": {"model": CNN, **CMVN},
    "adaptive": {"model": CNN, "adaptive_batch_norm": 3.0},
    "cmvn, pooled": {"profiling": True, "model": CNN, **CMVN},
    "adaptive, cmvn": {"model": CNN, "adaptive_batch_norm": 3.0, **CMVN},
    "adaptive, cmvn, pooled": {"profiling": True, "model": CNN, "adaptive_batch_norm": 3.0, **CMVN},
}
ENROLLED = "enrol-3"


@register_backbone("two_convolutions")
class TwoConvolutions(Backbone):
    """The smallest backbone whose second batch norm receives what the first one makes of a group."""

    def __init__(self, n_mels: int, embed_dim: int, config):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2), nn.BatchNorm2d(6), nn.SiLU(), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.SiLU()
        )
        self.project = nn.Linear(8, embed_dim)

    def forward(self, source, padding_mask):
        return self.project(self.layers(source.unsqueeze(1)).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return spoken.write_corpus(tmp_path_factory.mktemp("spoken"))


def compute_in_float64(network) -> None:
    """Let a network compute in float64 from float32 spectrograms."""
    network.double()
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))


def complete(path: Path) -> Path:
    """Add to a checkpoint what fairseq-validate reads beside task, model and weights."""
    state, sections = torch.load(path, weights_only=True), OmegaConf.structured(FairseqConfig())
    criterion = OmegaConf.structured(NeuProNetCriterionConfig())
    for name in sections:
        if not OmegaConf.is_missing(sections, name) and OmegaConf.is_config(sections[name]):
            state["cfg"][name] = OmegaConf.to_container(sections[name], resolve=True, enum_to_str=True)
    state["cfg"]["criterion"] = OmegaConf.to_container(criterion, enum_to_str=True) | {"_name": "NeuProNet"}
    history = {"criterion_name": "NeuProNet", "best_loss": None, "num_updates": 0, "lr_scheduler_state": {}}
    torch.save(state | {"optimizer_history": [history], "extra_state": {}, "last_optimizer_state": None}, path)
    return path


def drawn_for_each(task, files: list[str]) -> list[list[str]]:
    """The files that the protocol last evaluated enrols for each file."""
    dataset = task.dataset("test")
    offsets, members = dataset.pairs or dataset.grouping.enrolment
    by_name = {Path(file).stem: file for file in files}
    clips = [by_name[Path(clip).stem] for clip in dataset.manifest.clips]
    drawn = {clip: members[offsets[place] + 1 : offsets[place + 1]] for place, clip in enumerate(clips)}
    return [[clips[other] for other in drawn[file]] for file in files]


def logits(predictions) -> np.ndarray:
    return np.stack([prediction.logits[0] for prediction in predictions])


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_evaluation_in_float64(sounds, tmp_path, name):
    task, network, config = spoken.build(sounds / "data", **MODELS[name])
    path = spoken.save(tmp_path / "model.pt", task, network, config)
    model = fairseq_neupronet.load(path)
    for each in (network, model.network):
        compute_in_float64(each)
    files, profiles = spoken.files_of_test(sounds), spoken.profiles_of_test(sounds)
    found = {}
    for protocol in ("single", ENROLLED, "full"):
        sizes = (1, 7, 64) if protocol != "single" else (7,)
        evaluated = [spoken.evaluate(task, network, protocol, size) for size in sizes]
        evaluated = [np.stack([each[Path(file).stem] for file in files]) for each in evaluated]
        grouping = {"profiles": profiles, "together": True} if protocol == "full" else {}
        if protocol == "single" or not model.uses_profiles:
            grouping = {}
        elif protocol == ENROLLED:
            grouping = {"profiles": []}
            for file, others in zip(files, drawn_for_each(task, files), strict=True):
                grouping["profiles"].append(f"for {Path(file).stem}" if others else None)
                if others:
                    model.enrol(grouping["profiles"][-1], others)
        predicted = [logits(model.predict(files, batch_size=size, **grouping)) for size in sizes]
        for other in (*evaluated[1:], *predicted):
            np.testing.assert_allclose(other, evaluated[0], rtol=1e-6, atol=1e-6)
        found[protocol] = evaluated[0]
    assert np.ptp(found["single"], axis=0).max() > 1e-3  # clips differ, and so do their groups
    for one, other in (("single", ENROLLED), (ENROLLED, "full"), ("single", "full")):
        assert (np.abs(found[one] - found[other]).max() > 1e-5) == model.uses_profiles


def mean_by_hand(each: list[np.ndarray]) -> np.ndarray:
    """The softmax (N, K) of the mean of log-probabilities, from models' logits (N, K)."""
    logs = [rows - np.log(np.exp(rows).sum(axis=1, keepdims=True)) for rows in np.asarray(each, np.float64)]
    odds = np.exp(np.mean(logs, axis=0))
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def other_sounds(tmp_path_factory):
    """The same sounds, prepared by another recipe: rate, hop and number of mel bands."""
    return spoken.write_corpus(tmp_path_factory.mktemp("other"), n_mels=24, sample_rate=8000, hop_length=100)


@pytest.mark.parametrize(
    "names", [("cmvn, pooled", "cosine"), ("base", "cosine", "adaptive, cmvn")], ids=["two", "three"]
)
def test_an_ensemble_is_the_mean_of_its_models_in_predict_and_in_evaluate(sounds, other_sounds, tmp_path, names):
    folders = {name: other_sounds if name == "cosine" else sounds for name in names}
    built = {name: spoken.build(folders[name] / "data", seed=7, **MODELS[name]) for name in names}
    paths = [complete(spoken.save(tmp_path / f"{name}.pt", *built[name])) for name in names]
    ensemble = fairseq_neupronet.load(paths)
    for network in [network for _, network, _ in built.values()] + [model.network for model in ensemble.models]:
        compute_in_float64(network)
    sessions = {}
    for size in (1, 7, 64):
        data = [str(folders[name] / "data") for name in names]
        plan = Plan.of([*map(str, paths)], data, str(tmp_path / "out"), "test", "full", batch_size=size, workers=0)
        sessions[size] = EnsembleSession(plan)
        sessions[size].begin("test")
        for member in sessions[size]._members:
            compute_in_float64(member._network)
    files, profiles = spoken.files_of_test(sounds), spoken.profiles_of_test(sounds)
    found = []
    for protocol in ("single", ENROLLED, "full"):
        each = [spoken.evaluate(task, network, protocol) for task, network, _ in built.values()]
        expected = mean_by_hand([np.stack([rows[Path(file).stem] for file in files]) for rows in each])
        grouping = {"profiles": profiles, "together": True} if protocol == "full" else {}
        if protocol == ENROLLED:
            grouping = {"profiles": []}
            for file, others in zip(files, drawn_for_each(built["cosine"][0], files), strict=True):
                grouping["profiles"].append(f"for {Path(file).stem}" if others else None)
                if others:
                    assert ensemble.enrol(grouping["profiles"][-1], others) == len(others)
            ensemble.save_bank(tmp_path / "bank.npz")
            ensemble.load_bank(tmp_path / "bank.npz")
        for size, session in sessions.items():
            evaluated = session.evaluate(Protocol.parse(protocol))[0].probabilities.numpy()
            predicted = ensemble.predict(files, batch_size=size, **grouping)
            predicted = np.stack([prediction.probabilities for prediction in predicted])
            for probabilities in (evaluated, predicted):
                np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)
        found.append(expected)
    assert all(np.abs(one - other).max() > 1e-5 for one, other in itertools.combinations(found, 2))


def probabilities_of(rows, names) -> tuple[list[str], np.ndarray]:
    """Labels and probabilities (N, K) by the rows of a table, its clips in the order of names."""
    rows = {Path(row["path"]).stem: row for row in rows}
    labels = [rows[name]["label" if "label" in rows[name] else "prediction"] for name in names]
    return labels, np.array([[float(rows[name][label]) for label in tiny.CLASSES] for name in names])


def table(path: Path, rows) -> str:
    path.write_text("path,profile\n" + "".join(f"{file},{name}\n" for file, name in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "name", [name if "," in name else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_the_commands_say_the_same(sounds, tmp_path, capsys, name):
    task, network, config = spoken.build(sounds / "data", **MODELS[name])
    path = complete(spoken.save(tmp_path / "model.pt", task, network, config))
    files, profiles = spoken.files_of_test(sounds), spoken.profiles_of_test(sounds)
    names, protocols = [Path(file).stem for file in files], ["single", ENROLLED, "full"]
    arguments = ["evaluate", "--path", path, "--data", sounds / "data", "--out", tmp_path / "out", "--device", "cpu"]
    arguments += ["--protocol", ",".join(protocols), "--no-controls", "--workers", 0, "--batch-size", 7]
    assert main([*map(str, arguments)]) == 0
    spoken.evaluate(task, network, ENROLLED)  # says who is enrolled
    drawn = drawn_for_each(task, files)
    uses = MODELS[name].get("profiling") or len(MODELS[name]) > 1
    for protocol in protocols:
        results = tmp_path / protocol
        options = ["--protocol", protocol, "--results-path", results]
        tiny.fairseq_validate(path, sounds / "data", *options, task="spectrogram_finetuning", batch=5)
        predict = ["predict", "--path", str(path), "--csv", *files]
        if protocol == "full" and uses:
            predict += ["--profiles", table(tmp_path / "full.csv", zip(files, profiles, strict=True))]
        if protocol == ENROLLED and uses:
            bank = str(tmp_path / "bank.npz")
            rows = [(other, f"for {own}") for own, others in zip(names, drawn, strict=True) for other in others]
            groups = [f"for {own}" if others else "" for own, others in zip(names, drawn, strict=True)]
            enrolled = ["--profiles", table(tmp_path / "enrolled.csv", rows), "--bank", bank]
            for number in range(len(files)):  # a table has a file once
                part = [row for row in rows if row[1] == f"for {names[number]}"]
                if part:
                    enrolled[1] = table(tmp_path / "enrolled.csv", part)
                    assert main(["enrol", "--path", str(path), *enrolled]) == 0
            predict += ["--profiles", table(tmp_path / "groups.csv", zip(files, groups, strict=True)), "--bank", bank]
        capsys.readouterr()
        assert main(predict) == 0
        predicted = list(csv.DictReader(capsys.readouterr().out.splitlines()))
        evaluated = (tmp_path / "out" / "test" / protocol / "predictions.tsv").read_text().splitlines()
        validated = (results / "predictions.tsv").read_text().splitlines()
        labels, expected = probabilities_of(csv.DictReader(validated, delimiter="\t"), names)
        for rows in (predicted, csv.DictReader(evaluated, delimiter="\t")):
            found_labels, found = probabilities_of(rows, names)
            assert found_labels == labels
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert json.loads((results / "metrics.json").read_text())["protocol"] == protocol
