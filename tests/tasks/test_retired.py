"""Options that went: what was made with them is refused in one sentence, wherever it would be used."""

import json

import numpy as np
import pytest
import soundfile
import tiny
import torch
from fairseq import checkpoint_utils
from omegaconf import OmegaConf

import fairseq_neupronet
from fairseq_neupronet.cli import main
from fairseq_neupronet.config import retired
from fairseq_neupronet.config.retired import RETIRED, Retired, check_retired
from fairseq_neupronet.criterions.neupronet import NeuProNetCriterionConfig
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.neupronet import NeuProNetConfig
from fairseq_neupronet.tasks.spectrogram_finetuning import SpectrogramFinetuningConfig

DATACLASSES = {"task": SpectrogramFinetuningConfig, "criterion": NeuProNetCriterionConfig, "model": NeuProNetConfig}
# As checkpoints of before hold them; the first is what every one holds that was trained without.
UNUSED = {
    "task": {"two_views": False, "mixup_partners": "any", "profiles_per_batch": None},
    "model": {"second_backbone": None, "second_backbone_path": None},
}
# Options of training, which a model that was trained with them no longer needs.
OF_TRAINING = {"task": {"mixup_partners": "same_profile", "profiles_per_batch": 8}}
USED = {
    "task.two_views=True": {"task": {"two_views": True}, "model": {"second_backbone": None}},
    "model.second_backbone=resnet18": {"task": {"two_views": False}, "model": {"second_backbone": "resnet18"}},
}
SAID = "which this version no longer has; train two models and evaluate them together: --path A.pt --path B.pt"


@pytest.fixture
def old(checkpoint, tmp_path):
    """Writes a trained checkpoint whose configuration holds fields that this version does not know."""

    def write(fields: dict):
        state = torch.load(checkpoint, weights_only=True)
        for section, values in fields.items():
            state["cfg"][section] |= values
        torch.save(state, tmp_path / "old.pt")
        return tmp_path / "old.pt"

    return write


@pytest.fixture
def sound(tmp_path):
    noise = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", noise / 10, 16000)
    return tmp_path / "noise.wav"


def test_what_is_retired_is_no_option():
    assert RETIRED
    for option in RETIRED:
        section, name = option.split(".")
        assert section in DATACLASSES and name not in DATACLASSES[section].__dataclass_fields__


@pytest.mark.parametrize(("named", "fields"), USED.items())
def test_a_model_trained_with_it_is_refused_where_it_is_used(old, sound, place, capsys, named, fields):
    path, data = old(fields), place / "data"
    said = f"{path}: {named}, {SAID}"
    for use in (
        lambda: fairseq_neupronet.load(path),
        lambda: checkpoint_utils.load_checkpoint_to_cpu(str(path)),  # so does fairseq as it resumes a training
        lambda: tiny.fairseq_validate(path, data),
    ):
        with pytest.raises(InputError) as raised:
            use()
        assert str(raised.value).startswith(said)
    for command in (
        ["info", path],
        ["predict", "--path", path, sound],
        ["evaluate", "--path", path, "--data", data, "--out", path.with_name("out"), "--device", "cpu"],
    ):
        capsys.readouterr()
        assert main([str(argument) for argument in command]) == 1
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"neupronet: error: {said}")


def test_a_model_trained_without_it_is_used_as_ever(old, sound, place, capsys):
    found = []
    for fields in ({}, UNUSED, OF_TRAINING):
        path = old(fields)
        tiny.fairseq_validate(path, place / "data", "--results-path", path.with_name("results"))
        metrics = json.loads((path.with_name("results") / "metrics.json").read_text())["metrics"]
        found.append((metrics, fairseq_neupronet.load(path).predict(sound)[0].logits.tolist()))
        assert main(["info", str(path)]) == 0
    assert found[0] == found[1] == found[2]


def test_a_training_begun_with_it_does_not_go_on_without(corpus, tmp_path):
    """The same command without the option, in the folder that the training has."""
    run = tmp_path / "run"
    run.mkdir()
    record = json.dumps({"finished": False, "settings": {"task": {"two_views": True}, "model": {}}})
    (run / "training.json").write_text(record)
    again = tiny.train("finetuning", "vocalsound", f"task.data={corpus}", f"hydra.run.dir={run}", cwd=tmp_path)
    assert f"{run}/training.json: task.two_views=True, {SAID}" in tiny.one_sentence(again)
    assert (run / "training.json").read_text() == record and not (run / "checkpoints").exists()


def test_an_option_of_training_alone_does_not_spoil_the_model(monkeypatch):
    monkeypatch.setattr(retired, "RETIRED", {"task.partners": Retired("any", "leave it out", training_only=True)})
    settings = {"task": {"partners": "own"}}
    check_retired(settings, "a.pt")
    with pytest.raises(InputError, match=r"^a\.pt: task\.partners=own, which this version no longer has; leave it out"):
        check_retired(settings, "a.pt", training=True)
    check_retired({"task": {"partners": "any"}}, "a.pt", training=True)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"task": None, "model": 3},
        {"task": {}, "model": {"name": "x"}},
        {"model": {"two_views": True}},  # of another section
        {"other": {"second_backbone": "resnet18"}},
    ],
)
def test_what_holds_none_passes(config):
    check_retired(config, "a.pt", training=True)
    check_retired(OmegaConf.create(config), "a.pt", training=True)


@pytest.mark.parametrize("value", [torch.ones(3), ["a", "b"], "x" * 10_000, "a\nb"], ids=str)
def test_a_value_of_any_kind_is_refused_in_one_short_line(value):
    with pytest.raises(InputError) as raised:
        check_retired({"model": {"second_backbone": value}}, "a.pt")
    assert str(raised.value).startswith("a.pt: model.second_backbone=") and len(str(raised.value)) < 300
    assert "\n" not in str(raised.value)
