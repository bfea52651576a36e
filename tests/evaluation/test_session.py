"""A checkpoint evaluated without fairseq: the figures, losses included, are those that fairseq's task gives."""

import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch
from fairseq import checkpoint_utils
from omegaconf import OmegaConf, open_dict

from fairseq_neupronet.evaluation.plan import Plan
from fairseq_neupronet.evaluation.session import Session
from fairseq_neupronet.models.neupronet import NeuProNetConfig
from fairseq_neupronet.profiles.protocols import Protocol

# Options of task, model and criterion; together they reach every term of the loss and every way to use a group.
MODELS = {
    "base": ({}, {}, {"gamma": 2.0, "class_weights": [1.0, 2.0, 5.0], "label_smoothing": 0.1}),
    "profiles": ({"profiling": True}, {}, {"loss_weights": [0.7, 0.3]}),
    "normalizing": ({"profiling": True, "profile_normalize": True, "protocol_seed": 3}, {"one_pass": False}, {}),
    "adaptive": ({"profiling": True, "adaptive_batch_norm": 2.0}, {"backbone": "resnet18"}, {"batch_mask": False}),
    "whole_split": (
        {"profiling": True, "bfloat16": True},
        {"auto_encoder": True, "freeze_profile_extractor": True, "grouping": "whole_split"},
        {"sup_contrast": True},
    ),
    "alone": (
        {"profiling": True, "padding": "batch", "min_sample_size": 25, "max_sample_size": 40, "normalize": True},
        {"grouping": "none", "backbone": "none", "fusion": "profile"},
        {"sup_contrast": True, "sup_contrast_per_clip": True},
    ),
}


@pytest.fixture(scope="module")
def checkpoints(corpus, tmp_path_factory):
    """Untrained models, as fairseq writes them after five updates."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, (task_options, model_options, criterion_options) in MODELS.items():
        torch.manual_seed(3)
        task = tiny.build_task(corpus, **task_options)
        config = OmegaConf.structured(NeuProNetConfig())
        with open_dict(config):
            config = OmegaConf.merge(config, {"_name": "NeuProNet"}, tiny.MODEL, model_options)
        model = task.build_model(config)
        with torch.no_grad():  # so that clips differ clearly
            for parameter in model.head.parameters():
                parameter.mul_(4)
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.running_mean.normal_()
        sections = {
            "task": OmegaConf.to_container(task.cfg, enum_to_str=True),
            "model": OmegaConf.to_container(config, enum_to_str=True),
            "criterion": {"_name": "NeuProNet"} | criterion_options,
            "common": {"seed": 1},
        }
        state = {"cfg": sections, "model": model.state_dict(), "task_state": task.state_dict()}
        torch.save(state | {"optimizer_history": [{"num_updates": 5}]}, folder / f"{name}.pt")
    return folder


def session_of(path, data, out, **options):
    """A session on the validation split in batches of 8."""
    session = Session(Plan.of(str(path), str(data), str(out), "valid", "full", batch_size=8, device="cpu", **options))
    session.begin("valid")
    return session


def figures_of_fairseq(path, protocol):
    state = torch.load(path, weights_only=True)
    state["cfg"] = OmegaConf.create(state["cfg"])
    with open_dict(state["cfg"]):
        state["cfg"].task.protocol = protocol
    (model,), config, task = checkpoint_utils.load_model_ensemble_and_task([str(path)], state=state)
    criterion = task.build_criterion(config.criterion)
    figures = tiny.validate(task, model, criterion, "valid")
    return {name: figures[name] for name in task.figure_names}, task.evaluation.latest[1].logits


@pytest.mark.parametrize("name", MODELS)
def test_every_figure_is_that_of_fairseqs_task_to_the_digit(corpus, checkpoints, tmp_path, name):
    path, losses = checkpoints / f"{name}.pt", set()
    session = session_of(path, corpus, tmp_path, workers=0)
    for protocol in ("single", "full", "enrol-2", "batch-5"):
        expected, logits = figures_of_fairseq(path, protocol)
        evaluation, figures = session.evaluate(Protocol.parse(protocol))
        assert torch.equal(evaluation.logits, logits)
        assert list(figures) == list(expected)
        np.testing.assert_equal(figures, expected)
        losses.add(figures["loss"])
    assert len(losses) > 1 or not session.uses_profiles
    assert (expected.get("loss_contrastive", 0) > 0.1) == session.options.profiling


def test_workers_that_read_give_the_same(corpus, checkpoints, tmp_path):
    found = []
    for workers in (0, 2):
        session = session_of(checkpoints / "normalizing.pt", corpus, tmp_path, workers=workers)
        found.append(session.evaluate(Protocol("enrol", 2)))
    assert torch.equal(found[0][0].logits, found[1][0].logits)
    np.testing.assert_equal(found[0][1], found[1][1])


def test_the_command_runs_where_fairseq_is_not(corpus, checkpoints, tmp_path):
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('fairseq', 'hydra', 'omegaconf')));"
        "from fairseq_neupronet.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    options = {
        "path": checkpoints / "profiles.pt",
        "data": corpus,
        "out": tmp_path / "out",
        "subset": "valid",
        "protocol": "full,enrol-2",
        "batch-size": 8,
        "device": "cpu",
    }
    arguments = ["evaluate", "--embeddings", *(f"--{name}={value}" for name, value in options.items())]
    finished = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=tiny.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    expected, _ = figures_of_fairseq(checkpoints / "profiles.pt", "full")
    rows = [line.split(",") for line in (tmp_path / "out" / "results.csv").read_text().splitlines()]
    found = {row[3]: float(row[4]) for row in rows if row[1:3] == ["full", ""] and row[4]}
    assert found == pytest.approx({name: value for name, value in expected.items() if value == value}, rel=1e-6)


def test_an_extractor_is_no_classifier(corpus, tmp_path):
    task = tiny.build_task(corpus, "spectrogram_pretraining")
    model, config = tiny.build_extractor(task)
    sections = {"task": OmegaConf.to_container(task.cfg, enum_to_str=True), "model": config, "criterion": {}}
    torch.save({"cfg": sections, "model": model.state_dict()}, tmp_path / "extractor.pt")
    with pytest.raises(ValueError, match="is a checkpoint of spectrogram_pretraining; give one of fine-tuning"):
        session_of(tmp_path / "extractor.pt", corpus, tmp_path / "out")


@pytest.mark.parametrize(
    ("prior", "said"), [(2.0, "has no batch norm that could be adapted"), (-1.0, "give clips from 0 up")]
)
def test_batch_norm_that_cannot_be_adapted_is_refused(corpus, checkpoints, tmp_path, prior, said):
    with pytest.raises(ValueError, match=f"task.adaptive_batch_norm={prior}: .*{said}"):
        session_of(checkpoints / "base.pt", corpus, tmp_path, adaptive_batch_norm=prior)
