"""What a checkpoint holds is read once: by every command, at a training's end, and for all parts that start from it."""

import collections
import hashlib
import re
from pathlib import Path
from unittest import mock

import pytest
import spoken
import tiny
import torch
from fairseq.dataclass.configs import FairseqConfig
from omegaconf import OmegaConf, open_dict

from fairseq_neupronet.checkpoints import contents as contents_module
from fairseq_neupronet.checkpoints.contents import read_contents
from fairseq_neupronet.checkpoints.start_weights import StartWeights
from fairseq_neupronet.cli import main
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.runs.card import CARD
from fairseq_neupronet.runs.end import finish


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return spoken.write_corpus(tmp_path_factory.mktemp("spoken"))


@pytest.fixture(scope="module")
def model_path(sounds):
    """A checkpoint with all sections that fairseq writes."""
    task, network, config = spoken.build(sounds / "data", profiling=True)
    path = spoken.save(sounds / "checkpoint_best.pt", task, network, config)
    state = torch.load(path, weights_only=True)
    state["cfg"]["criterion"] = {"_name": "NeuProNet"}
    state["optimizer_history"] = [{"num_updates": 40}]
    state["extra_state"] = {"train_iterator": {"epoch": 5, "iterations_in_epoch": 0}, "best": 0.75}
    torch.save(state, path)
    return path


@pytest.fixture
def reads(monkeypatch):
    """How often torch has parsed each file."""
    counts, load = collections.Counter(), torch.load

    def counted(file, *arguments, **options):
        counts[Path(str(getattr(file, "name", file))).name] += 1
        return load(file, *arguments, **options)

    monkeypatch.setattr(torch, "load", counted)
    return counts


def command(name, model_path, sounds, folder) -> list:
    clips = spoken.files_of_test(sounds)[:2]
    return {
        "predict": ["predict", "--path", model_path, *clips],
        "enrol": ["enrol", "--path", model_path, "--bank", folder / "bank.npz", "--profile", "a", *clips],
        "evaluate": ["evaluate", "--path", model_path, "--data", sounds / "data", "--out", folder, "--workers", 0],
        "info": ["info", model_path],
        "export": ["export", "--path", model_path, "--format", "pt2", "--out", folder / "model.pt2"],
        "serve": ["serve", "--path", model_path, "--port", 0],
    }[name]


@pytest.mark.parametrize("name", ["predict", "enrol", "evaluate", "info", "export", "serve"])
def test_a_command_reads_its_checkpoint_once(name, reads, model_path, sounds, tmp_path):
    if name == "serve":
        pytest.importorskip("gradio")
    with mock.patch("fairseq_neupronet.serving.server.serve"):
        assert not main([*map(str, command(name, model_path, sounds, tmp_path))])
    assert reads[model_path.name] == 1


def test_a_training_ends_with_one_reading_of_its_best_checkpoint(reads, model_path, sounds, tmp_path, monkeypatch):
    hashes = mock.Mock(side_effect=hashlib.sha256)
    monkeypatch.setattr(contents_module, "hashlib", mock.Mock(sha256=hashes))
    config = OmegaConf.structured(FairseqConfig())
    OmegaConf.update(config, "checkpoint.save_dir", str(model_path.parent))
    OmegaConf.update(config, "checkpoint.best_checkpoint_metric", "macro_f1")
    OmegaConf.update(config, "common.user_dir", "own")
    stored = read_contents(model_path).config
    with open_dict(config):
        config.task, config.model = stored["task"], stored["model"]
    reads.clear()
    lines = finish(OmegaConf.to_container(config, enum_to_str=True), tmp_path)
    assert reads[model_path.name] == 1 and hashes.call_count == 1
    assert any(re.match(r"model: \S+ \(epoch 4, update 40, macro_f1 0\.7500\)", line) for line in lines)
    card = model_path.with_name(CARD).read_text(encoding="utf-8")
    assert f"`{hashlib.sha256(model_path.read_bytes()).hexdigest()}`" in card
    assert [line.split()[1] for line in card.splitlines() if line.startswith(("| single", "| enrol", "| full"))] == [
        "single",
        "enrol-3",
        "full",
    ]


# ---- the record ----------------------------------------------------------------------------------------------------


def test_younger_options_have_their_defaults_and_the_rest_is_as_stored(model_path, tmp_path):
    state = torch.load(model_path, weights_only=True)
    del state["cfg"]["task"]["protocol_seed"], state["cfg"]["model"]["transformer"]["conv_pos"]
    state["cfg"]["task"]["protocol"] = "enrol-7"
    torch.save(state, tmp_path / "older.pt")
    contents = read_contents(tmp_path / "older.pt")
    assert contents.config["task"]["protocol_seed"] == 1 and contents.config["model"]["transformer"]["conv_pos"] == 128
    assert contents.config["task"]["protocol"] == "enrol-7" and contents.config["criterion"]["gamma"] == 0.0
    assert contents.data == state["task_state"] and contents.weights.keys() == state["model"].keys()
    assert (contents.updates, contents.epoch, contents.best, contents.is_extractor) == (40, 4, 0.75, False)


def test_what_a_checkpoint_does_not_say_is_unknown(model_path, tmp_path):
    state = torch.load(model_path, weights_only=True)
    torch.save({"cfg": state["cfg"], "model": state["model"]}, tmp_path / "bare.pt")
    contents = read_contents(tmp_path / "bare.pt")
    assert (contents.data, contents.updates, contents.epoch, contents.best) == ({}, None, None, None)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda state: state.pop("model"), "no configuration"),
        (lambda state: state["cfg"].update(task="damaged"), "a section of its configuration is 'damaged'"),
        (lambda state: state["cfg"]["model"].update(transformer=5), "a section of its configuration is 5"),
        (lambda state: state["cfg"]["task"].update(data="${oc.env:HOME}"), "holds a resolver"),
        (lambda state: state["cfg"]["model"].update(_name="other"), "a checkpoint of other, not of this plugin"),
        (lambda state: state["cfg"].update(model=None), "a checkpoint of an unknown model"),
    ],
)
def test_what_is_not_ours_is_one_sentence(model_path, tmp_path, spoil, words):
    state = torch.load(model_path, weights_only=True)
    spoil(state)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "model.pt"))) as refusal:
        read_contents(tmp_path / "model.pt")
    assert words in str(refusal.value)


# ---- what a training starts from -----------------------------------------------------------------------------------


def test_a_file_that_several_parts_start_from_is_read_once(reads, tmp_path):
    torch.save({"weight": torch.zeros(2, 2), "bias": torch.ones(2)}, tmp_path / "weights.pt")
    start = StartWeights()
    for field in ("model.backbone_path", "model.profile_extractor_path"):
        assert not start.is_checkpoint(tmp_path / "weights.pt", field)
        with pytest.raises(InputError, match=f"{field}=.*weights.pt: a checkpoint of an unknown model"):
            start.pretraining(tmp_path / "weights.pt", field)
    assert reads["weights.pt"] == 1


def test_backbone_and_extractor_of_one_pretraining_read_it_once(reads, sounds, tmp_path):
    sizes = {"conv_pos": 4, "conv_pos_groups": 2}
    config = {"_name": "spectrogram_wav2vec2", "n_mels": tiny.N_MELS} | tiny.MODEL["profile_extractor"] | sizes
    _, network, _ = spoken.build(
        sounds / "data", profiling=True, model={"profile_extractor": tiny.MODEL["profile_extractor"] | sizes}
    )
    weights = network.profile_extractor.network.state_dict()
    torch.save({"cfg": {"model": config, "task": {}}, "model": weights}, tmp_path / "extractor.pt")
    paths = {name: str(tmp_path / "extractor.pt") for name in ("backbone_path", "profile_extractor_path")}
    _, started, _ = spoken.build(sounds / "data", profiling=True, model={"backbone": "spectrogram_wav2vec2"} | paths)
    assert reads["extractor.pt"] == 1
    for name, weight in weights.items():
        assert torch.equal(started.backbone.network.state_dict()[name], weight), name
        assert torch.equal(started.profile_extractor.network.state_dict()[name], weight), name
