"""The lean training pass against efficientnet_pytorch's own: same numbers, less memory."""

import copy

import pytest
import torch
from efficientnet_pytorch import EfficientNet

from fairseq_neupronet.backbones import lean_mbconv
from fairseq_neupronet.backbones.image_networks import EfficientNetBackbone
from fairseq_neupronet.backbones.lean_mbconv import layout


def network(variant: str, drop_connect_rate: float = 0.0) -> EfficientNet:
    torch.manual_seed(0)
    net = EfficientNet.from_name(
        variant, in_channels=1, include_top=False, drop_connect_rate=drop_connect_rate
    ).double()
    net.set_swish(memory_efficient=False)
    for name, parameter in net.named_parameters():
        if "_bn" in name:  # at their initial values 1 and 0 they would hide mistakes
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return net.to(memory_format=torch.channels_last)


def gradients(net, features: torch.Tensor) -> dict[str, torch.Tensor]:
    weights = torch.linspace(-1, 1, features.numel(), dtype=features.dtype).view(features.shape)
    (features * weights).sum().backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}


# b1 has blocks without expansion that are skipped over; odd sizes pad unevenly; large maps are cut into portions.
@pytest.mark.parametrize("variant, size", [("efficientnet-b0", (96, 64)), ("efficientnet-b1", (50, 37))])
def test_features_gradients_and_statistics_are_the_librarys(variant, size, monkeypatch):
    monkeypatch.setattr(layout, "PORTION", 2**13)
    library = network(variant)
    ours = copy.deepcopy(library)
    image = torch.randn(5, 1, *size, dtype=torch.float64)
    expected, features = library.extract_features(image), lean_mbconv.extract_features(ours, image)
    torch.testing.assert_close(features, expected, rtol=1e-9, atol=1e-9)
    wanted = gradients(library, expected)
    for name, gradient in gradients(ours, features).items():
        least = 1e-9 + 1e-7 * wanted[name].abs().max().item()
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-7, atol=least)
    for (name, buffer), (_, other) in zip(library.named_buffers(), ours.named_buffers(), strict=True):
        torch.testing.assert_close(other, buffer, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


def test_the_gradient_of_the_image_is_the_librarys():
    library = network("efficientnet-b0")
    ours = copy.deepcopy(library)
    images = [torch.linspace(-1, 1, 2 * 64 * 64, dtype=torch.float64).sin().view(2, 1, 64, 64) for _ in range(2)]
    for image in images:
        image.requires_grad_()
    library.extract_features(images[0]).square().sum().backward()
    lean_mbconv.extract_features(ours, images[1]).square().sum().backward()
    torch.testing.assert_close(images[1].grad, images[0].grad, rtol=1e-7, atol=1e-10)


def test_stochastic_depth_draws_as_the_library():
    library = network("efficientnet-b0", drop_connect_rate=0.5)
    ours = copy.deepcopy(library)
    image = torch.randn(4, 1, 64, 64, dtype=torch.float64)
    torch.manual_seed(3)
    expected = library.extract_features(image)
    torch.manual_seed(3)
    torch.testing.assert_close(lean_mbconv.extract_features(ours, image), expected, rtol=1e-9, atol=1e-9)


def saved_bytes(forward) -> int:
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    assert output.requires_grad
    return sum(storages.values())


def test_two_fifths_of_the_memory_are_kept_for_the_backward_pass():
    net = network("efficientnet-b0")
    image = torch.randn(4, 1, 128, 96, dtype=torch.float64)
    library = saved_bytes(lambda: net.extract_features(image))
    assert saved_bytes(lambda: lean_mbconv.extract_features(net, image)) < 0.4 * library


@pytest.mark.parametrize("mode", ["training", "evaluation", "autocast", "no gradient"])
def test_the_backbone_takes_it_where_it_serves(mode, monkeypatch):
    taken = []
    original = lean_mbconv.extract_features
    monkeypatch.setattr(lean_mbconv, "extract_features", lambda *inputs: taken.append(1) or original(*inputs))
    backbone = EfficientNetBackbone("efficientnet-b0", 8, 0.1)
    backbone.train(mode != "evaluation")
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast")
    with autocast, torch.set_grad_enabled(mode != "no gradient"):
        output = backbone(torch.randn(2, 32, 40), torch.zeros(2, 40, dtype=torch.bool))
    assert output.isfinite().all() and bool(taken) == (mode == "training")
