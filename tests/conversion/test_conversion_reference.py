"""The official checkpoints and data themselves, through the commands that a researcher types."""

import json
import shutil

import numpy as np
import official_checkpoints as fakes
import pytest
import tiny
import torch
from official import REFERENCE
from omegaconf import OmegaConf
from test_conversion import converted, loaded
from test_official_parity import compare_with_pretraining

from fairseq_neupronet.cli import main
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.spectrogram_wav2vec2 import SpectrogramWav2Vec2Model

pytestmark = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the reference checkpoints are not here (NEUPRONET_REFERENCE)"
)
close = {"rtol": 0, "atol": 1e-5}
FLAGS = {
    "mean": (),
    "use_profile_attention": ("use_profile_attention",),
    "use_cossim_attention": ("use_cossim_attention",),
    "use_dot_softmax_attention": ("use_dot_softmax_attention",),
}
ALL_FLAGS = ("use_profile_attention", "use_cossim_attention", "use_dot_softmax_attention")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The official data as it comes: relative root, four columns, no recipe."""
    folder = tmp_path_factory.mktemp("official")
    shutil.unpack_archive(REFERENCE / "data.tar.gz", folder)  # tarfile's own filter is missing before Python 3.11.4
    return folder / "data"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The official classifier, converted."""
    out = tmp_path_factory.mktemp("converted") / "classifier.pt"
    assert main(["convert", str(REFERENCE / "official_neupronet.pt"), str(out)]) == 0
    return out


def figures(checkpoint, data, tmp_path, *options, **named) -> dict:
    tiny.fairseq_validate(checkpoint, data, "--results-path", tmp_path / "results", *options, **named)
    return json.loads((tmp_path / "results" / "metrics.json").read_text())


@pytest.mark.parametrize(("batch", "accuracy"), [(8, 0.6875), (32, 0.71875)])
def test_official_validation_to_the_digit(classifier, data, tmp_path, batch, accuracy):
    summary = figures(classifier, data, tmp_path, batch=batch)
    assert (summary["clips"], summary["protocol"]) == (32, "batch")
    assert summary["metrics"]["accuracy"] == accuracy


def test_stored_classes_give_the_same_figures_in_another_order_of_the_dictionary(data, tmp_path):
    """Without --data the folder's order is believed, as in the official code; with it classes are mapped by name."""
    state = torch.load(REFERENCE / "official_neupronet.pt", weights_only=True)
    known = converted(state, tmp_path, "--data", data)
    assert known["task_state"]["classes"] == ["c0", "c1", "c2", "c3"]
    assert sum(known["task_state"]["train_clips"]) == 96
    shutil.copytree(data, tmp_path / "other")
    lines = (data / "dict.label.txt").read_text().splitlines()
    (tmp_path / "other" / "dict.label.txt").write_text("\n".join(reversed(lines)) + "\n")
    summary = figures(tmp_path / "out.pt", tmp_path / "other", tmp_path, batch=32)
    assert summary["metrics"]["accuracy"] == 0.71875


@pytest.mark.parametrize("weights", [[1.0] * 4, None])
def test_a_folder_of_other_classes_is_refused(data, tmp_path, weights):
    """Without --data the number of classes is all that a converted checkpoint knows of them."""
    state = torch.load(REFERENCE / "official_neupronet.pt", weights_only=True)
    state["cfg"]["criterion"]["class_weights"] = weights
    converted(state, tmp_path)
    shutil.copytree(data, tmp_path / "other")
    (tmp_path / "other" / "dict.label.txt").write_text("c0 1\nc1 1\nc2 1\nc3 1\nc4 1\n")
    with pytest.raises(InputError, match="class_weights holds 4 numbers and the data has 5 classes"):
        figures(tmp_path / "out.pt", tmp_path / "other", tmp_path)


def test_fixed_padding_without_the_data_of_training_is_refused(classifier, data, tmp_path):
    with pytest.raises(InputError, match="convert it again with --data DIR"):
        figures(classifier, data, tmp_path, "--model-overrides", "{'padding': 'fixed'}")


@pytest.mark.parametrize("option", FLAGS)
@torch.no_grad()
def test_logits_of_the_golden_clips_under_every_pooling(tmp_path, option):
    golden = np.load(REFERENCE / "golden_c.npz")
    state = torch.load(REFERENCE / "official_neupronet.pt", weights_only=True)
    state["cfg"]["model"] |= dict.fromkeys(ALL_FLAGS, False) | dict.fromkeys(FLAGS[option], True)
    model = loaded(converted(state, tmp_path))
    _, profile = np.unique(golden["profile"], return_inverse=True)
    source, padding = torch.from_numpy(golden["source"]), torch.from_numpy(golden["padding_mask"][:, 0])
    output = model(source, padding, torch.from_numpy(profile))
    np.testing.assert_allclose(output.clip, golden["encoder_out"], **close)
    np.testing.assert_allclose(output.profile, golden["all_profiles"], **close)
    np.testing.assert_allclose(output.logits, golden[f"{option}/logits"], **close)


@pytest.mark.parametrize("quantized", [False, True])
def test_features_and_infonce_of_converted_extractors(tmp_path, quantized):
    state = converted(
        torch.load(REFERENCE / f"official_pretrain{'_quantized' * quantized}.pt", weights_only=True), tmp_path
    )
    assert state["cfg"]["model"]["quantize_targets"] is quantized
    model = SpectrogramWav2Vec2Model.build_model(OmegaConf.create(state["cfg"]["model"]), None)
    model.load_state_dict(state["model"], strict=True)
    compare_with_pretraining(model.eval(), quantized)


@pytest.mark.parametrize("name", ["official_pretrain", "official_pretrain_quantized"])
def test_a_converted_extractor_starts_a_classifier(data, tmp_path, name):
    official = torch.load(REFERENCE / f"{name}.pt", weights_only=True)
    converted(official, tmp_path)
    task = tiny.build_task(data, profiling=True, padding="batch")
    model = tiny.build_model(
        task, profile_extractor_path=str(tmp_path / "out.pt"), transformer={"conv_feature_layers": "[(16,3,1,2)]"}
    )
    network = model.profile_extractor.network.state_dict()
    assert len(network) == len(official["model"])
    assert all(torch.equal(network[key], value) for key, value in official["model"].items())


def test_training_goes_on_from_the_official_updates(data, tmp_path):
    """As ``checkpoint_last.pt`` of a run: 20 official updates, one of ours."""
    last = tmp_path / "run" / "checkpoints" / "checkpoint_last.pt"
    arguments = ["convert", REFERENCE / "official_neupronet.pt", last, "--recipe", tmp_path / "on.yaml"]
    assert main([*map(str, arguments)]) == 0
    official = torch.load(REFERENCE / "official_neupronet.pt", weights_only=True)
    run = tiny.command(
        "fairseq-hydra-train",
        "--config-dir",
        tmp_path,
        "--config-name",
        "on",
        f"task.data={data}",
        "optimization.max_update=21",
        "common.log_interval=1",
        "hydra.run.dir=run",
        "checkpoint.continue_once=null",
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert "checkpoints/checkpoint_last.pt (epoch 7 @ 20 updates)" in run.stdout
    state = torch.load(last, weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == 21
    moments, before = state["last_optimizer_state"]["state"], official["last_optimizer_state"]["state"]
    assert moments.keys() == before.keys()
    assert {moment["step"] for moment in moments.values()} == {21}
    # The running mean of gradients moves by a tenth of a gradient; a fresh one would have nothing of the earlier.
    pairs = [(moments[index]["exp_avg"].flatten(), before[index]["exp_avg"].flatten()) for index in before]
    assert np.median([torch.nn.functional.cosine_similarity(*pair, dim=0) for pair in pairs]) > 0.5


@pytest.mark.parametrize(("letter", "arch"), [("a", "efficientnet-b0"), ("b", "efficientnet-b0"), ("d", "resnet18")])
def test_cnn_checkpoints_are_validated(data, tmp_path, letter, arch):
    state = converted(fakes.cnn(letter, arch, letter == "b"), tmp_path)
    summary = figures(tmp_path / "out.pt", data, tmp_path, batch=8)
    assert summary["clips"] == 32
    assert np.isfinite(summary["metrics"]["auc"])
    assert state["cfg"]["criterion"]["class_weights"] == [3.0, 1.0, 1.0, 0.5]
