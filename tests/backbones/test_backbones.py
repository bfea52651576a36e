"""Backbones: the known ones, one's own, what they start from, and that frozen means frozen."""

import copy
import json
import logging

import pytest
import tiny
import torch
from efficientnet_pytorch import EfficientNet
from omegaconf import OmegaConf
from torchvision.models import resnet18

from fairseq_neupronet.backbones import build_backbone, known_backbones, register_backbone
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.neupronet import NeuProNetConfig

slow = pytest.mark.slow
KINDS = [
    "spectrogram_wav2vec2",
    "small_cnn",
    "efficientnet-b0",
    "efficientnet-b1",
    *(pytest.param(f"efficientnet-b{size}", marks=slow) for size in range(2, 8)),
    "resnet18",
    pytest.param("resnet34", marks=slow),
    pytest.param("resnet50", marks=slow),
]


def config(**options):
    return OmegaConf.merge(OmegaConf.structured(NeuProNetConfig()), tiny.MODEL, options)


def test_known_backbones():
    assert set(known_backbones()) >= {
        "spectrogram_wav2vec2",
        "resnet18",
        "resnet34",
        "resnet50",
        *(f"efficientnet-b{size}" for size in range(8)),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n_mels", "n_frames"), [(8, 20), (64, 98)])
def test_every_backbone_gives_an_embedding_a_clip(kind, n_mels, n_frames):
    backbone = build_backbone(kind, n_mels, 12, config(backbone=kind)).eval()
    source = torch.randn(3, n_mels, n_frames)
    mask = torch.zeros(3, n_frames, dtype=torch.bool)
    mask[2, n_frames - 5 :] = True
    with torch.no_grad():
        embedding = backbone(source, mask)
    assert embedding.shape == (3, 12)
    assert embedding.isfinite().all()


def test_an_unknown_backbone_lists_the_known_ones():
    with pytest.raises(
        InputError,
        match=r"model\.backbone='vgg' is not known; known are efficientnet-b0, .*resnet18.*"
        r"spectrogram_wav2vec2.*@register_backbone",
    ):
        build_backbone("vgg", 8, 16, config())


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'resnet18' is registered already"):
        register_backbone("resnet18")(lambda *a: None)


def test_the_library_momentum_is_replaced_unless_null():
    """EfficientNet's own .01 leaves running statistics at their initial values after a short training."""
    for given, expected in ((0.1, {0.1}), (None, {0.01})):
        options = config(backbone="efficientnet-b0", batch_norm_momentum=given)
        backbone = build_backbone("efficientnet-b0", 8, 16, options)
        norms = [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        assert {round(norm.momentum, 6) for norm in norms} == expected


# ---- what a backbone starts from -----------------------------------------------------------------------------------


@pytest.fixture
def pretrained(corpus, tmp_path):
    """One of our pretraining checkpoints, with a quantiser, and its weights."""
    task = tiny.build_task(corpus, "spectrogram_pretraining")
    torch.manual_seed(11)
    model, model_config = tiny.build_extractor(task, quantize_targets=True)
    path = tmp_path / "pretrained.pt"
    torch.save({"cfg": {"model": model_config}, "model": model.state_dict()}, path)
    return path, model.state_dict()


def equal(network, weights):
    own = network.state_dict()
    shared = [name for name in weights if name in own]
    assert len(shared) > 10
    return all(torch.equal(own[name], weights[name]) for name in shared)


def test_the_transformer_backbone_starts_from_a_pretraining_checkpoint(corpus, pretrained, caplog):
    path, weights = pretrained
    caplog.set_level(logging.INFO)
    model = tiny.build_model(tiny.build_task(corpus), backbone_path=str(path))
    assert equal(model.backbone.network, weights)
    assert f"model.backbone_path={path}: {len(weights)} parameters loaded" in caplog.text
    assert not equal(tiny.build_model(tiny.build_task(corpus)).backbone.network, weights)


def test_the_profile_extractor_takes_weights_and_sizes_from_its_checkpoint(corpus, pretrained):
    path, weights = pretrained
    task = tiny.build_task(corpus, profiling=True)
    other_sizes = {"encoder_layers": 3, "encoder_ffn_embed_dim": 64}
    model = tiny.build_model(task, profile_extractor_path=str(path), profile_extractor=other_sizes)
    assert equal(model.profile_extractor.network, weights)
    assert len(model.profile_extractor.network.encoder.layers) == 1
    assert not equal(model.backbone.network, weights)


def test_a_fresh_profile_extractor_is_warned_of(corpus, pretrained, caplog):
    task = tiny.build_task(corpus, profiling=True)
    tiny.build_model(task, profile_extractor_path=str(pretrained[0]))
    assert "starts fresh" not in caplog.text
    tiny.build_model(task)
    assert "model.profile_extractor_path is not set: the profile extractor starts fresh" in caplog.text


def logged(caplog, start):
    line = next(record.getMessage() for record in caplog.records if record.getMessage().startswith(start))
    return line.removeprefix(start).split(", ")


def test_efficientnet_starts_from_a_library_state_dict_with_its_colours_averaged(corpus, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    library = EfficientNet.from_name("efficientnet-b0").state_dict()
    assert library["_conv_stem.weight"].shape[1] == 3
    torch.save(library, tmp_path / "b0.pth")
    task = tiny.build_task(corpus)
    model = tiny.build_model(task, backbone="efficientnet-b0", backbone_path=str(tmp_path / "b0.pth"))
    own = model.backbone.effnet.state_dict()
    torch.testing.assert_close(own["_conv_stem.weight"][:, 0], library["_conv_stem.weight"].mean(dim=1))
    assert torch.equal(own["_blocks.5._project_conv.weight"], library["_blocks.5._project_conv.weight"])
    unused = logged(caplog, "model.backbone_path: in the file, not used: ")
    missing = logged(caplog, "model.backbone_path: not in the file, left fresh: ")
    assert unused == ["effnet._fc.bias", "effnet._fc.weight"]
    assert missing == ["projection.bias", "projection.weight"]


def test_resnet_starts_from_a_torchvision_state_dict(corpus, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    library = resnet18(weights=None).state_dict()
    torch.save(library, tmp_path / "resnet18.pth")
    task = tiny.build_task(corpus)
    model = tiny.build_model(task, backbone="resnet18", backbone_path=str(tmp_path / "resnet18.pth"))
    own = model.backbone.resnet.state_dict()
    assert all(torch.equal(own[name], value) for name, value in library.items() if not name.startswith("fc."))
    assert logged(caplog, "model.backbone_path: in the file, not used: ") == ["resnet.fc.bias", "resnet.fc.weight"]


def refused(corpus, path, **options):
    task = tiny.build_task(corpus, profiling="profile_extractor_path" in options)
    with pytest.raises(InputError) as raised:
        tiny.build_model(task, **options)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_sizes_that_do_not_fit_are_refused_and_never_skipped(corpus, tmp_path):
    path = tmp_path / "b1.pth"
    torch.save(EfficientNet.from_name("efficientnet-b4").state_dict(), path)
    sentence = refused(corpus, path, backbone="efficientnet-b0", backbone_path=str(path))
    assert "has shape" in sentence
    assert "this network wants" in sentence


def test_weights_of_another_network_are_refused(corpus, tmp_path):
    path = tmp_path / "resnet.pth"
    torch.save(resnet18(weights=None).state_dict(), path)
    sentence = refused(corpus, path, backbone="efficientnet-b0", backbone_path=str(path))
    assert "none of its 122 parameters is of this network; another model?" in sentence


def test_a_pretraining_checkpoint_is_refused_by_a_backbone_without_a_transformer(corpus, pretrained):
    sentence = refused(corpus, pretrained[0], backbone="resnet18", backbone_path=str(pretrained[0]))
    assert "a fairseq checkpoint, where model.backbone=resnet18 wants a state dict" in sentence


@pytest.mark.parametrize("field", ["backbone_path", "profile_extractor_path"])
def test_a_pretraining_checkpoint_of_another_mel_count_is_refused(corpus, tmp_path, pretrained, field):
    state = torch.load(pretrained[0], weights_only=True)
    state["cfg"]["model"]["n_mels"] = 64
    state["model"]["feature_extractor.conv_layers.0.0.weight"] = torch.zeros(16, 64, 3)
    path = tmp_path / "other.pt"
    torch.save(state, path)
    sentence = refused(corpus, path, **{field: str(path)})
    assert f"model.{field}=" in sentence
    assert "pretrained on 64 mel bands, the data has 8" in sentence


@pytest.mark.parametrize("field", ["backbone_path", "profile_extractor_path"])
def test_a_checkpoint_of_another_model_is_refused(corpus, tmp_path, field):
    path = tmp_path / "other.pt"
    torch.save({"cfg": {"model": {"_name": "NeuProNet"}}, "model": {"head.0.weight": torch.zeros(3, 3)}}, path)
    sentence = refused(corpus, path, **{field: str(path)})
    assert f"model.{field}=" in sentence
    assert "a checkpoint of NeuProNet, where one of spectrogram_wav2vec2 is wanted" in sentence


@pytest.mark.parametrize("field", ["backbone_path", "profile_extractor_path"])
@pytest.mark.parametrize("content", [b"", b"just some text\n" * 40, b"\x80\x02}q\x00."])
def test_a_file_that_is_no_checkpoint_is_refused(corpus, tmp_path, field, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    refused(corpus, path, **{field: str(path)})


def test_a_truncated_checkpoint_is_refused(corpus, tmp_path, pretrained):
    path = tmp_path / "torn.pt"
    path.write_bytes(pretrained[0].read_bytes()[:-2000])
    assert "not a checkpoint of tensors and plain containers" in refused(corpus, path, backbone_path=str(path))


def test_a_missing_checkpoint_is_not_downloaded(corpus, tmp_path):
    path = tmp_path / "absent.pt"
    assert "no such file; nothing is downloaded" in refused(corpus, path, backbone_path=str(path))


def test_code_in_a_checkpoint_is_not_run(corpus, tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("code of the file was run",))

    path = tmp_path / "evil.pt"
    torch.save({"cfg": Evil(), "model": {}}, path)
    assert "not a checkpoint of tensors and plain containers" in refused(corpus, path, backbone_path=str(path))


# ---- freezing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["spectrogram_wav2vec2", "small_cnn", "efficientnet-b0", "resnet18"])
def test_frozen_networks_stand_still_for_their_updates_running_statistics_included(corpus, backbone):
    task = tiny.build_task(corpus, profiling=True)
    model = tiny.build_model(
        task, backbone=backbone, freeze_backbone_updates=2, freeze_profile_extractor_updates=4
    ).train()
    criterion = tiny.build_criterion(task, loss_weights=[0.5, 0.5])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    batches = tiny.batches(task, "train", batch_size=8)
    moved = {"backbone": [], "profile_extractor": [], "head": []}
    for update in range(5):
        before = {part: copy.deepcopy(getattr(model, part).state_dict()) for part in moved}
        model.set_num_updates(update)
        optimizer.zero_grad(set_to_none=True)
        criterion(model, batches[update % len(batches)])[0].backward()
        optimizer.step()
        for part in moved:
            after = getattr(model, part).state_dict()
            moved[part].append(any(not torch.equal(before[part][name], after[name]) for name in after))
    assert moved == {
        "backbone": [False, False, True, True, True],
        "profile_extractor": [False, False, False, False, True],
        "head": [True] * 5,
    }
    assert model.backbone.training
    assert all(module.training for module in model.backbone.modules())


@pytest.mark.parametrize("backbone", ["spectrogram_wav2vec2", "small_cnn", "efficientnet-b0", "resnet18"])
def test_networks_frozen_for_the_whole_training_never_reach_the_optimiser_nor_move(corpus, backbone):
    task = tiny.build_task(corpus, profiling=True)
    model = tiny.build_model(task, backbone=backbone, freeze_backbone=True, freeze_profile_extractor=True).train()
    assert {name.split(".")[0] for name, weight in model.named_parameters() if weight.requires_grad} == {"head"}
    criterion = tiny.build_criterion(task, loss_weights=[0.5, 0.5])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    before = copy.deepcopy(model.state_dict())
    for update, batch in enumerate(tiny.batches(task, "train", batch_size=8)):
        model.set_num_updates(update)
        optimizer.zero_grad(set_to_none=True)
        criterion(model, batch)[0].backward()
        task.optimizer_step(optimizer, model, update)
    moved = {name.split(".")[0] for name, weight in model.state_dict().items() if not weight.equal(before[name])}
    assert moved == {"head"}


# ---- one's own backbone --------------------------------------------------------------------------------------------


def test_the_example_has_fifteen_lines_of_code():
    lines = (tiny.ROOT / "examples/own_backbone/__init__.py").read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.lstrip().startswith(('"""', "#"))]
    assert len(code) <= 15


@pytest.mark.slow
def test_a_backbone_of_ones_own_trains_and_validates(corpus, tmp_path):
    own = tiny.ROOT / "examples" / "own_backbone"
    trained = tiny.train(
        "finetuning",
        "vocalsound",
        f"task.data={corpus}",
        f"common.user_dir={own}",
        "model.backbone=my_net",
        "checkpoint.best_checkpoint_metric=macro_f1",
        f"hydra.run.dir={tmp_path}/run",
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    checkpoint = tmp_path / "run" / "checkpoints" / "checkpoint_best.pt"
    state = torch.load(checkpoint, weights_only=True)
    assert "backbone.net.0.weight" in state["model"]
    validated = tiny.command(
        "fairseq-validate",
        "--path",
        checkpoint,
        "--user-dir",
        own,
        "--task",
        "audio_finetuning",
        corpus,
        "--valid-subset",
        "valid",
        "--batch-size",
        "5",
        "--results-path",
        "results",
        cwd=tmp_path,
    )
    assert validated.returncode == 0, validated.stderr
    assert "protocol full" in validated.stdout + validated.stderr
    summary = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert state["extra_state"]["best"] == pytest.approx(summary["metrics"]["macro_f1"], abs=1e-9)
