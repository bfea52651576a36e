"""configs/ablation: each is one override on any recipe, and trains and validates."""

import json
import shutil

import pytest
import tiny
import torch
from omegaconf import OmegaConf
from recipes import CONFIGS, composed, recipes

from fairseq_neupronet.criterions.neupronet import NeuProNetCriterionConfig
from fairseq_neupronet.models.neupronet import NeuProNetConfig
from fairseq_neupronet.tasks.spectrogram_finetuning import SpectrogramFinetuningConfig

RECIPES = recipes("finetuning")
# What each changes, as the issue and the authors' recipes have it; everything else is the recipe's.
CHANGES = {
    "base": {"task.profiling": False},
    "multibranch": {
        "task.profiling": True,
        "task.protocol": "single",
        "model.grouping": "none",
        "criterion.loss_weights": [1, 0],
    },
    "profile_only": {
        "task.profiling": True,
        "model.backbone": "none",
        "model.fusion": "profile",
        "model.head": "linear",
    },
    "in_batch": {"task.profiling": True, "model.grouping": "in_batch"},
    "whole_split": {
        "task.profiling": True,
        "task.protocol": "full",
        "model.grouping": "whole_split",
        "model.pooling": "mean",
        "dataset.batch_size": 32,
        "optimization.lr": [5e-5],
    },
    "shuffled_profiles": {"task.profiling": True, "task.shuffle_profiles": 1},
    "profile_normalize": {"task.profiling": False, "task.profile_normalize": True},
    "profile_normalize_random": {
        "task.profiling": False,
        "task.profile_normalize": True,
        "task.profile_normalize_clips": "random",
    },
    "adaptive_batch_norm": {"task.profiling": False, "task.adaptive_batch_norm": 30},
    "transformer": {"task.profiling": False, "model.backbone": "spectrogram_wav2vec2"},
    "early_stop": {"task.profiling": True, "criterion.loss_weights": [0.7, 0.3], "checkpoint.patience": 10},
}


# What a recipe has to have besides for an ablation to mean something there; vocalsound's backbone has no batch norm.
WANTS = {"adaptive_batch_norm": ("model.backbone=resnet18",)}


def flat(config, prefix=""):
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_every_ablation_is_here():
    assert {path.stem for path in (CONFIGS / "ablation").glob("*.yaml")} == set(CHANGES)


@pytest.mark.parametrize("recipe", [RECIPES[0], *(pytest.param(each, marks=pytest.mark.slow) for each in RECIPES[1:])])
def test_an_ablation_changes_what_it_names_on_every_recipe_and_nothing_else(recipe):
    plain = dict(flat(composed("finetuning", recipe)))
    for name, changes in CHANGES.items():
        config = composed("finetuning", recipe, f"ablation={name}")
        assert dict(flat(config)) == plain | changes, name
        for node, dataclass in (
            ("task", SpectrogramFinetuningConfig),
            ("criterion", NeuProNetCriterionConfig),
            ("model", NeuProNetConfig),
        ):
            OmegaConf.merge(OmegaConf.structured(dataclass()), config[node])


def test_the_command_line_has_the_last_word():
    config = composed("finetuning", "vocalsound_cnn", "ablation=whole_split", "model.pooling=dot")
    assert (config["model"]["pooling"], config["model"]["grouping"]) == ("dot", "whole_split")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_corpus(tmp_path_factory.mktemp("ablations") / "data")


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_an_ablation_trains_and_validates(data, tmp_path, name):
    """Over the end of an epoch, and by fairseq-validate afterwards."""
    trained = tiny.train(
        "finetuning",
        "vocalsound",
        f"ablation={name}",
        f"task.data={data}",
        "dataset.batch_size=12",
        *WANTS.get(name, ()),
        f"hydra.run.dir={tmp_path}/run",
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    assert "epoch 002" in trained.stdout
    checkpoint = tmp_path / "run" / "checkpoints" / "checkpoint_best.pt"
    tiny.fairseq_validate(checkpoint, data, "--results-path", tmp_path / "results", split="valid", batch=5)
    summary = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert summary["protocol"] == ("single" if name == "multibranch" else "full")
    state = torch.load(checkpoint, weights_only=True)
    assert state["extra_state"]["best"] == pytest.approx(summary["metrics"]["accuracy"], abs=1e-9)
    parts = {key.split(".")[0] for key in state["model"]}
    assert ("profile_extractor" in parts) == CHANGES[name]["task.profiling"]
    assert ("backbone" in parts) == (name != "profile_only")


@pytest.mark.slow
def test_a_training_with_a_bank_resumes_amid_an_epoch_as_if_never_stopped(data, tmp_path):
    arguments = (
        "finetuning",
        "vocalsound",
        "ablation=whole_split",
        f"task.data={data}",
        "optimization.max_update=8",
        "checkpoint.save_interval_updates=1",
    )
    whole, part = tmp_path / "whole" / "checkpoints", tmp_path / "part" / "checkpoints"
    assert tiny.train(*arguments, f"hydra.run.dir={tmp_path}/whole", cwd=tmp_path).returncode == 0
    part.mkdir(parents=True)
    shutil.copy(whole / "checkpoint_2_7.pt", part / "checkpoint_last.pt")
    resumed = tiny.train(*arguments, f"hydra.run.dir={tmp_path}/part", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    states = [torch.load(folder / "checkpoint_last.pt", weights_only=True)["model"] for folder in (whole, part)]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
