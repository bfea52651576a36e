"""The shipped configs: every option named, nothing unknown, the published numbers."""

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from recipes import composed, content, recipes

import fairseq_neupronet.tasks  # noqa: F401
from fairseq_neupronet.criterions.neupronet import NeuProNetCriterionConfig
from fairseq_neupronet.models.neupronet import NeuProNetConfig
from fairseq_neupronet.models.spectrogram_wav2vec2 import SpectrogramWav2Vec2Config
from fairseq_neupronet.tasks.spectrogram_finetuning import SpectrogramFinetuningConfig
from fairseq_neupronet.tasks.spectrogram_pretraining import SpectrogramTaskConfig

ROOT = Path(__file__).parents[2]
DATACLASSES = {
    "finetuning": {
        "task": SpectrogramFinetuningConfig,
        "criterion": NeuProNetCriterionConfig,
        "model": NeuProNetConfig,
    },
    "pretraining": {"task": SpectrogramTaskConfig, "model": SpectrogramWav2Vec2Config},
}
# Written by the task or by fairseq, never by a user.
INTERNAL = {("task", "path"), ("model", "profiling")}


def plain(dataclass) -> dict:
    """A dataclass's defaults as a yaml file would hold them, without fairseq's names and nested mel counts."""
    values = OmegaConf.to_container(OmegaConf.structured(dataclass()), enum_to_str=True)
    values.pop("_name", None)
    for value in values.values():
        if isinstance(value, dict):
            value.pop("_name", None)
            value.pop("n_mels", None)
    return values


@pytest.mark.parametrize("stage", DATACLASSES)
def test_options_name_every_field_with_its_default(stage):
    options = yaml.safe_load((ROOT / "configs" / stage / "options.yaml").read_text(encoding="utf-8"))
    for node, dataclass in DATACLASSES[stage].items():
        written = {key: value for key, value in options[node].items() if key != "_name"}
        expected = {key: value for key, value in plain(dataclass).items() if (node, key) not in INTERNAL}
        assert written == expected


ALL = [(stage, name) for stage in DATACLASSES for name in recipes(stage)]


@pytest.mark.parametrize(("stage", "name"), ALL)
def test_recipes_name_known_options_only(stage, name):
    config = composed(stage, name)
    for node, dataclass in DATACLASSES[stage].items():
        OmegaConf.merge(OmegaConf.structured(dataclass()), config[node])
    assert config["common"]["user_dir"] == "fairseq_neupronet"
    assert config["dataset"]["num_workers"] == 2


def leaves(values: dict, prefix: str = "") -> set[str]:
    return {
        leaf
        for key, value in values.items()
        if key != "defaults"
        for leaf in (leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key])
    }


@pytest.mark.parametrize(("stage", "name"), ALL)
def test_what_a_recipe_sets_none_of_its_parts_sets(stage, name):
    """The parts are composed after the recipe, so theirs would win in silence."""
    parts, waiting = [], [name]
    while waiting:
        one = content(stage, waiting.pop())
        parts.append(leaves(one))
        for each in one.get("defaults", []):
            part = each.get("parts") if isinstance(each, dict) else each
            waiting += [f"parts/{part}"] if part not in (None, "options", "_self_") else []
    assert len(parts) >= 2
    assert sum(map(len, parts)) == len(set().union(*parts))


@pytest.mark.parametrize(
    ("name", "loss_weights", "batch", "updates", "epochs"),
    [
        ("urbansound8k", [0.9999, 0.0001], 512, 1740, 100),
        ("urbansound8k_cnn", [0.9999, 0.0001], 512, 1740, 100),
        ("vocalsound", [0.99, 0.01], 128, 12200, 100),
        ("vocalsound_cnn", [0.99, 0.01], 64, 6140, 50),
    ],
)
def test_published_numbers(name, loss_weights, batch, updates, epochs):
    config = composed("finetuning", name)
    assert config["criterion"]["loss_weights"] == loss_weights
    assert config["dataset"]["batch_size"] == batch
    assert {"max_update": updates, "max_epoch": epochs, "lr": [1e-4], "sentence_avg": True}.items() <= config[
        "optimization"
    ].items()
    optimizer = config["optimizer"]
    assert (optimizer["adam_betas"], optimizer["adam_eps"], optimizer["weight_decay"]) == ("(0.9,0.98)", 1e-8, 4e-3)
    assert config["lr_scheduler"]["phase_ratio"] == [0.1, 0.6, 0.3]
    assert config["checkpoint"]["best_checkpoint_metric"] == "accuracy"


def test_published_numbers_of_icbhi():
    """192 mels, ICBHI score, fixed learning rate; the number of updates is not published."""
    config, pretraining = (composed(stage, "icbhi") for stage in ("finetuning", "pretraining"))
    assert config["criterion"]["loss_weights"] == [0.9999, 0.0001]
    assert config["criterion"]["class_weights"] == [3.636, 1.859, 0.886, 0.506]
    assert (config["dataset"]["batch_size"], pretraining["dataset"]["batch_size"]) == (64, 32)
    numbers = {"max_update": 0, "max_epoch": 400, "lr": [1e-4], "sentence_avg": True}
    assert numbers.items() <= config["optimization"].items()
    assert config["lr_scheduler"] == {"_name": "fixed"}
    assert config["checkpoint"]["best_checkpoint_metric"] == "icbhi_score"
    assert config["checkpoint"]["maximize_best_checkpoint_metric"] is True
    convolutions = "[(512, 5, 1, 1), (512, 5, 1, 2), (512, 5, 2, 2), (256, 5, 4, 2)]"
    networks = (config["model"]["transformer"], config["model"]["profile_extractor"], pretraining["model"])
    assert all(network["conv_feature_layers"] == convolutions for network in networks)
    assert all(network["dropout_input"] == 0.3 for network in networks)
    negatives = ("num_negatives", "cross_sample_negatives", "dropout_features")
    assert all([network[name] for name in negatives] == [0, 100, 0.3] for network in networks[1:])


def test_the_official_config_folder_leads_to_ours():
    assert (ROOT / "examples/NeuProNet/config/finetuning/vocalsound.yaml").samefile(
        ROOT / "configs/finetuning/vocalsound.yaml"
    )
