"""bfloat16 around the forward pass: near float32, gradients and figures in float32, and no other option disturbed."""

import pytest
import tiny
import torch


def step(corpus, backbone: str, bfloat16: bool):
    task = tiny.build_task(corpus, profiling=True, bfloat16=bfloat16)
    torch.manual_seed(0)
    model = tiny.build_model(task, backbone=backbone).eval()  # no dropout: the two precisions are to be compared
    criterion = tiny.build_criterion(task).train()
    batch = tiny.batches(task, "train", batch_size=12)[0]
    products = []
    hook = model.head.register_forward_hook(lambda module, inputs, output: products.append(output.dtype))
    loss, *_ = criterion(model, batch)
    hook.remove()
    loss.backward()
    return task, model, criterion, loss.detach(), products


@pytest.mark.parametrize("backbone", ["spectrogram_wav2vec2", "efficientnet-b0", "resnet18"])
def test_a_training_step(corpus, backbone):
    *_, exact, products = step(corpus, backbone, False)
    assert products == [torch.float32]
    task, model, criterion, loss, products = step(corpus, backbone, True)
    assert products == [torch.bfloat16]
    assert loss.dtype == torch.float32
    assert loss != exact
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    figures = tiny.validate(task, model, criterion, "valid")
    assert 0 <= figures["accuracy"] <= 1 and figures["loss"] > 0


def test_pretraining(corpus):
    losses = []
    for bfloat16 in (False, True):
        task = tiny.build_task(corpus, "spectrogram_pretraining", profiling=True, bfloat16=bfloat16)
        torch.manual_seed(0)
        # oneDNN's bfloat16 convolution of 16 channels, 2 groups and an even kernel is wrong on some CPUs (torch 2.14).
        model = tiny.build_extractor(task, conv_pos=7)[0].eval()
        logits = model(**tiny.batches(task, "train", batch_size=12)[0]["net_input"])["logits"]
        assert logits.dtype == torch.float32
        losses.append(logits.log_softmax(1)[:, 0].mean())
    assert losses[0] != losses[1]
    torch.testing.assert_close(losses[0], losses[1], rtol=0.05, atol=0)
