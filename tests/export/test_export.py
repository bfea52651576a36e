"""Exported graphs against the model, in a process that has neither this package nor fairseq."""

import json
import subprocess
import sys

import numpy as np
import pytest
import spoken
import tiny
import torch

import fairseq_neupronet
from fairseq_neupronet.audio.features import extract_features
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.export import export as exporting
from fairseq_neupronet.export.graph import GraphFeatures

needs_export = pytest.mark.skipif(not exporting.can_export(), reason="torch before 2.9")
CNN = {"model": spoken.EFFICIENTNET}
SMALL_CNN = {"model": {"backbone": "resnet18"}}
PROFILES = {"profiling": True}
RUN_ONNX = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["neupronet"])
data = np.load(sys.argv[2])
outputs = [session.run(None, {name: data[f"{number}_{name}"] for name in about["inputs"]})[0]
           for number in range(int(sys.argv[3]))]
np.savez(sys.argv[4], *outputs)
assert not {"fairseq", "fairseq_neupronet", "torch"} & sys.modules.keys()
print(json.dumps(about))
"""


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return spoken.write_corpus(tmp_path_factory.mktemp("spoken"))


def trained(folder, sounds, **options):
    task, network, config = spoken.build(sounds / "data", **options)
    return fairseq_neupronet.load(spoken.save(folder / "model.pt", task, network, config))


@pytest.mark.parametrize(
    "recipe",
    [
        tiny.RECIPE,
        {
            "name": "k",
            "kind": "kaldi_fbank",
            "sample_rate": 16000,
            "hop_length": 160,
            "n_mels": 24,
            "frame_length_ms": 25,
            "mean": -3.05,
            "divisor": 5.42,
        },
        {
            "name": "t",
            "kind": "kaldi_fbank",
            "sample_rate": 22050,
            "hop_length": 200,
            "n_mels": 20,
            "frame_length_ms": 20,
            "mean": 1.0,
            "divisor": 2.0,
            "target_frames": 50,
        },
    ],
)
def test_features_in_the_graph_are_those_of_the_recipe(recipe):
    recipe = FeatureRecipe.from_dict(recipe)
    features = GraphFeatures(recipe)
    rng = np.random.default_rng(0)
    for seconds in (0.1, 0.3, 0.71):
        clips = np.stack([spoken.sound(rng, n, seconds, recipe.sample_rate) + 0.1 * n for n in range(3)])
        clips = torch.from_numpy(clips).float()
        found = features(clips)
        for clip, one in zip(clips, found, strict=True):
            expected = torch.from_numpy(extract_features(clip, recipe))
            torch.testing.assert_close(one, expected, atol=2e-3 * float(expected.abs().max()), rtol=0)


def test_silence_has_features_in_the_graph_too():
    recipe = FeatureRecipe.from_dict(tiny.RECIPE)
    assert (GraphFeatures(recipe)(torch.zeros(2, 4000)) == 0).all()


@needs_export
@pytest.mark.parametrize(
    ("options", "inside"),
    [
        (PROFILES | {"padding": "batch"}, True),
        (SMALL_CNN, True),
        # Untrained, its outputs differ by more than export allows, which then refuses; a trained one differs by 7e-5.
        pytest.param(CNN | {"normalize": True}, False, marks=[pytest.mark.slow, pytest.mark.xfail(raises=InputError)]),
        pytest.param(SMALL_CNN | PROFILES, False, marks=pytest.mark.slow),
    ],
)
def test_onnx_says_what_the_model_says(sounds, tmp_path, options, inside):
    model = trained(tmp_path, sounds, **options)
    difference = exporting.export(model, tmp_path / "model.onnx", "onnx", inside)
    assert difference <= 1e-4
    rng, inputs, expected = np.random.default_rng(3), {}, []
    for number, n_enrolled in enumerate((0, 1, 3)):
        clip = spoken.sound(rng, number, 0.2 + 0.1 * number).astype(np.float32)
        if inside:
            inputs[f"{number}_waveform"] = clip[None]
        else:
            inputs[f"{number}_spectrogram"] = extract_features(torch.from_numpy(clip), model.features)[None]
        name = None
        if model.uses_profiles:
            others = [spoken.sound(rng, other, 0.3).astype(np.float32) for other in range(n_enrolled)]
            rows = np.zeros((0, 16), np.float32)
            if others:
                name = f"p{number}"
                model.enrol(name, others)
                rows = model.bank[name].embeddings.numpy()
            inputs[f"{number}_enrolled"] = rows
        expected.append(model.predict(clip, name)[0].logits)
    np.savez(tmp_path / "in.npz", **inputs)
    done = subprocess.run(
        [sys.executable, "-c", RUN_ONNX, tmp_path / "model.onnx", tmp_path / "in.npz", "3", tmp_path / "out.npz"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["classes"] == list(tiny.CLASSES)
    found = np.load(tmp_path / "out.npz")
    for number, row in enumerate(expected):
        np.testing.assert_allclose(found[f"arr_{number}"], row, atol=1e-4)


@needs_export
@pytest.mark.parametrize(
    ("options", "inside"),
    [
        (PROFILES | {"padding": "batch"}, False),
        (SMALL_CNN | {"profile_normalize": True, "profile_normalize_prior": 5.0, "normalize": True}, True),
        (SMALL_CNN | {"adaptive_batch_norm": 2.0}, False),
        pytest.param(
            SMALL_CNN | {"adaptive_batch_norm": 2.0, "profile_normalize": True}, False, marks=pytest.mark.slow
        ),
        pytest.param(PROFILES | SMALL_CNN | {"adaptive_batch_norm": 2.0}, False, marks=pytest.mark.slow),
        pytest.param(PROFILES, True, marks=pytest.mark.slow),
        pytest.param(CNN, False, marks=pytest.mark.slow),
    ],
)
def test_pt2_says_what_the_model_says(sounds, tmp_path, options, inside):
    """The comparison on export is with the model; a graph that differs is refused, see below."""
    model = trained(tmp_path, sounds, **options)
    assert exporting.export(model, tmp_path / "model.pt2", "pt2", inside) <= 1e-4
    about = {"neupronet.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=about)
    assert json.loads(about["neupronet.json"])["features"] == tiny.RECIPE


@needs_export
def test_a_model_of_bfloat16_is_written_in_float32(sounds, tmp_path):
    model = trained(tmp_path, sounds, **SMALL_CNN, bfloat16=True)
    exporting.export(model, tmp_path / "model.pt2", "pt2", False)
    about = {"neupronet.json": ""}
    graph = torch.export.load(tmp_path / "model.pt2", extra_files=about).module()
    assert json.loads(about["neupronet.json"])["model"] == model.digest and model.checkpoint.bfloat16
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    state["cfg"]["task"]["bfloat16"] = False
    torch.save(state, tmp_path / "exact.pt")
    exact = fairseq_neupronet.load(tmp_path / "exact.pt")
    clip = spoken.sound(np.random.default_rng(0), 1, 0.5).astype(np.float32)
    (logits,) = graph(torch.from_numpy(extract_features(torch.from_numpy(clip), model.features)[None]))
    np.testing.assert_allclose(logits.numpy(), exact.predict(clip)[0].logits, atol=1e-4)
    assert np.abs(logits.numpy() - model.predict(clip)[0].logits).max() > 1e-3


@needs_export
def test_a_graph_that_differs_is_not_written(sounds, tmp_path, monkeypatch):
    model = trained(tmp_path, sounds, **SMALL_CNN)
    monkeypatch.setattr("fairseq_neupronet.export.graph.filter_bank", lambda *sizes: 1.01 * torch.rand(201, 8))
    with pytest.raises(InputError, match="differs from the model"):
        exporting.export(model, tmp_path / "model.pt2", "pt2", True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@needs_export
def test_a_missing_library_is_named(sounds, tmp_path, monkeypatch):
    model = trained(tmp_path, sounds, **SMALL_CNN)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match="needs onnxscript.*export"):
        exporting.export(model, tmp_path / "model.onnx", "onnx", True)


def test_an_older_torch_is_told_which_one_it_takes(sounds, tmp_path, monkeypatch):
    model = trained(tmp_path, sounds)
    monkeypatch.setattr(torch.export, "export", lambda module, args, kwargs=None, *, dynamic_shapes=None: None)
    with pytest.raises(InputError, match=r"export needs torch 2\.9 or newer, and this is \d"):
        exporting.export(model, tmp_path / "model.pt2", "pt2", features_inside=False)
    assert not (tmp_path / "model.pt2").exists()
