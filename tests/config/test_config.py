"""Every option once: what is generated from the options, and what fairseq and the networks make of them."""

import argparse
import dataclasses
import re

import pytest
import tiny
import yaml
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.utils import get_available_activation_fns
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError

from fairseq_neupronet.backbones.wav2vec2 import encoder
from fairseq_neupronet.config import model
from fairseq_neupronet.config.generate import generated
from fairseq_neupronet.config.stages import STAGES, defaults
from fairseq_neupronet.models import fairseq_configs
from fairseq_neupronet.networks.fusion import FUSIONS
from fairseq_neupronet.networks.pooling import POOLINGS

FAIRSEQ = {
    ("finetuning", "task"): fairseq_configs.SpectrogramFinetuningConfig,
    ("finetuning", "criterion"): fairseq_configs.NeuProNetCriterionConfig,
    ("finetuning", "model"): fairseq_configs.NeuProNetConfig,
    ("pretraining", "task"): fairseq_configs.SpectrogramTaskConfig,
    ("pretraining", "model"): fairseq_configs.SpectrogramWav2Vec2Config,
}
CONFIGS = tiny.ROOT / "configs"


@pytest.mark.parametrize("name", generated())
def test_what_is_generated_is_up_to_date(name):
    assert (CONFIGS / name).read_text(encoding="utf-8") == generated()[name], (
        "run python -m fairseq_neupronet.config.generate --write"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_defaults_are_those_of_the_yaml_file(stage):
    written = yaml.safe_load((CONFIGS / stage / "options.yaml").read_text(encoding="utf-8"))
    assert {section: written[section] for section in ("task", "criterion", "model")} == defaults(stage)


def test_a_list_among_the_defaults_is_each_configuration_s_own():
    defaults("finetuning")["criterion"]["loss_weights"].clear()
    assert defaults("finetuning")["criterion"]["loss_weights"] == [0.9999, 0.0001]


def test_the_page_lists_every_option_of_a_user_once_and_the_advanced_ones_at_its_end():
    page = (CONFIGS / "README.md").read_text(encoding="utf-8")
    common, advanced = (re.findall(r"^\| `([\w.]+)` \|", part, re.MULTILINE) for part in page.split("## Advanced"))
    yaml_options = yaml.safe_load((CONFIGS / "finetuning" / "options.yaml").read_text(encoding="utf-8"))
    fine_tuning = {f"{section}.{name}" for section in ("task", "criterion", "model") for name in yaml_options[section]}
    network = {field.name for field in dataclasses.fields(model.SpectrogramWav2Vec2Options)}
    pretraining = {"criterion.infonce", "criterion.log_keys"}
    listed = [*common, *advanced]
    # The loss of pretraining has weights of its own.
    assert sorted(name for name in listed if listed.count(name) > 1) == ["criterion.loss_weights"] * 2
    small = {f"model.small_cnn.{field.name}" for field in dataclasses.fields(model.SmallCnnOptions)}
    assert set(listed) == {name for name in fine_tuning if not name.endswith("._name")} | network | small | pretraining
    assert {"task.data", "task.profiling", "model.backbone", "model.pooling", "encoder_layers"} <= set(common)
    assert {"model.auto_encoder", "model.fusion_rank", "criterion.sup_contrast", "quantize_targets"} <= set(advanced)


def test_the_networks_have_what_the_options_choose_from():
    assert set(POOLINGS) == set(model.POOLING_NAMES)
    assert set(FUSIONS) == set(model.FUSION_NAMES)
    assert set(encoder._ACTIVATIONS) == set(model.ACTIVATIONS) == set(get_available_activation_fns())


@pytest.mark.parametrize(("stage", "section"), FAIRSEQ)
def test_fairseq_has_every_option_with_its_default_and_its_help(stage, section):
    options, config = STAGES[stage][section].options, FAIRSEQ[stage, section]
    names = [field.name for field in dataclasses.fields(options)]
    assert [field.name for field in dataclasses.fields(config)] == ["_name", *names]
    plain = OmegaConf.to_container(OmegaConf.structured(options()))
    values = OmegaConf.to_container(OmegaConf.structured(config()), enum_to_str=True)
    for value in values.values():
        if isinstance(value, dict):
            value.pop("_name")
    assert values == plain | {"_name": None}
    parser = argparse.ArgumentParser()
    gen_parser_from_dataclass(parser, config())
    offered = {action.dest: action for action in parser._actions}
    for field in dataclasses.fields(options):
        if field.name in offered and not dataclasses.is_dataclass(field.type):
            assert offered[field.name].help == field.metadata["help"]
            assert tuple(offered[field.name].choices or ()) == field.metadata["choices"]
    assert set(names) - offered.keys() <= {"seed", "transformer", "small_cnn", "profile_extractor"}


@pytest.mark.parametrize(("stage", "section"), FAIRSEQ)
def test_fairseq_refuses_what_is_no_choice_or_of_another_type(stage, section):
    config = OmegaConf.structured(FAIRSEQ[stage, section]())
    for field in dataclasses.fields(STAGES[stage][section].options):
        if field.metadata["choices"]:
            for choice in field.metadata["choices"]:
                config[field.name] = choice
        if field.metadata["choices"] or field.type in (int, float, int | None, list[float]):
            with pytest.raises(ValidationError):
                config[field.name] = "of no kind"


def test_a_default_is_among_its_choices_and_every_option_has_a_help():
    for sections in STAGES.values():
        for section in sections.values():
            for field in dataclasses.fields(section.options):
                assert field.metadata["help"].strip() == field.metadata["help"] != ""
                assert not field.metadata["choices"] or field.default in field.metadata["choices"]
