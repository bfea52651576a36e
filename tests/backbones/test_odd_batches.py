"""Batches at the edge of what the networks take: one small clip, no masked step, padding without masks."""

import pytest
import tiny
import torch

from fairseq_neupronet.backbones.wav2vec2.contrast import CodebookQuantizer


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Clips of four frames, which are one step."""
    return tiny.write_corpus(tmp_path_factory.mktemp("short") / "data", clips={"train": 8, "valid": 4}, frames=(4, 4))


@pytest.mark.parametrize("backbone", ["small_cnn", "efficientnet-b0", "resnet18"])
def test_a_small_clip_alone_in_a_batch_is_trained_on_by_the_running_statistics(corpus, backbone):
    model = tiny.build_model(tiny.build_task(corpus), backbone=backbone).train().backbone
    for module in model.modules():
        if hasattr(module, "p") or hasattr(module, "drop_connect_rate"):
            module.train(False)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    padding = torch.zeros(1, 24, dtype=torch.bool)
    model(torch.randn(1, 8, 24), padding).sum().backward()
    assert all(torch.equal(norm.running_mean, mean) and norm.training for norm, mean in zip(norms, before, strict=True))
    model(torch.randn(2, 8, 24), padding.expand(2, -1))
    assert not torch.equal(norms[0].running_mean, before[0])


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("quantize", [True, False])
def test_a_batch_without_masked_steps_has_no_anchors_and_adds_nothing(short, quantize, everywhere):
    task = tiny.build_task(short, "spectrogram_pretraining")
    model, _ = tiny.build_extractor(task, quantize_targets=quantize, negatives_from_everywhere=everywhere)
    output = model.train()(**tiny.batches(task, "train")[0]["net_input"])
    assert output["logits"].shape == (0, 7)
    assert all(torch.isfinite(loss) for loss in model.get_extra_losses(output))


def test_a_quantiser_of_nothing_says_so_in_numbers():
    result = CodebookQuantizer(6, 5, 2, 8, (2.0, 0.5, 0.9))(torch.zeros(0, 6))
    assert result["x"].shape == (0, 8)
    assert result["code_perplexity"].item() == result["prob_perplexity"].item() == 2.0  # e to the 0, in each group


@pytest.mark.parametrize("profiling", [False, True])
def test_padded_clips_train_without_masks_and_without_dropout_at_the_input(corpus, profiling):
    task = tiny.build_task(corpus, profiling=profiling, padding="batch")
    options = {"dropout_input": 0.0, "dropout_features": 0.1, "feature_grad_mult": 0.1}
    model = tiny.build_model(task, apply_mask=False, transformer=options, profile_extractor=options).train()
    loss, _, _ = tiny.build_criterion(task).train()(model, tiny.batches(task, "train")[0])
    loss.backward()
    first = next(model.backbone.network.feature_extractor.parameters())
    assert torch.isfinite(first.grad).all() and first.grad.abs().sum() > 0
