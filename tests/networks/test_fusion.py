"""Fusion and heads: values, widths, and the official parameter shapes."""

import numpy as np
import pytest
import tiny
import torch

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.networks.fusion import build_fusion, build_head


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(5, 8, generator=generator) for _ in range(2))


def test_concat(pair):
    fusion = build_fusion("concat", 8)
    assert fusion.width == 16
    np.testing.assert_array_equal(fusion(*pair), np.concatenate([x.numpy() for x in pair], axis=1))


def test_gate(pair):
    fusion = build_fusion("gate", 8)
    assert fusion.width == 8
    clip, pooled = (x.double().numpy() for x in pair)
    clip = clip / np.linalg.norm(clip, axis=1, keepdims=True)
    attention = np.exp(pooled) / np.exp(pooled).sum(1, keepdims=True)
    np.testing.assert_allclose(fusion(*pair), clip * (1 + attention), atol=1e-6)


def test_unknown_fusion_lists_the_known():
    with pytest.raises(InputError, match="'sum'; known are concat, profile, gate, tensor"):
        build_fusion("sum", 8)


def with_one(vector):
    return [*vector.tolist(), 1.0]


def test_tensor_fusion_is_a_linear_layer_on_the_outer_product(pair):
    fusion = build_fusion("tensor", 8)
    assert fusion.width == 8
    assert sum(p.numel() for p in fusion.parameters()) == 8 * 9 * 9 + 8
    weight, bias = (p.detach().double().numpy() for p in (fusion.linear.weight, fusion.linear.bias))
    fused = fusion(*pair).detach().numpy()
    for clip, pooled, found in zip(*pair, fused, strict=True):
        products = [x * y for x in with_one(clip) for y in with_one(pooled)]
        expected = [
            sum(w * product for w, product in zip(row, products, strict=True)) + b
            for row, b in zip(weight, bias, strict=True)
        ]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_tensor_fusion_equals_the_full_form_of_its_weight_tensor(pair, rank):
    fusion = build_fusion("tensor", 8, rank)
    assert fusion.width == 8
    assert sum(p.numel() for p in fusion.parameters()) == 2 * rank * 9 * 8 + 8
    torch.nn.init.normal_(fusion.bias)
    full = build_fusion("tensor", 8)
    with torch.no_grad():
        weight = torch.zeros(8, 9, 9)
        for clip_factor, pooled_factor in zip(fusion.clip_factors, fusion.pooled_factors, strict=True):
            for unit in range(8):
                weight[unit] += torch.outer(clip_factor[:, unit], pooled_factor[:, unit])
        full.linear.weight.copy_(weight.flatten(1))
        full.linear.bias.copy_(fusion.bias)
    torch.testing.assert_close(fusion(*pair), full(*pair), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rank", [None, 0, 2])
def test_gradients_reach_both_embeddings_and_every_weight_of_tensor_fusion(pair, rank):
    fusion = build_fusion("tensor", 8, rank)
    clip, pooled = (x.requires_grad_() for x in pair)
    fusion(clip, pooled).square().sum().backward()
    for tensor in (clip, pooled, *fusion.parameters()):
        assert tensor.grad.abs().min() > 0
    assert torch.autograd.gradcheck(fusion.double(), tuple(x.detach().double().requires_grad_() for x in pair))


@pytest.mark.parametrize("rank", [0, 1, 16])
def test_tensor_fusion_starts_at_one_scale_whatever_its_rank(rank):
    torch.manual_seed(0)
    fused = build_fusion("tensor", 64, rank)(torch.randn(200, 64), torch.randn(200, 64))
    assert 0.45 < fused.std() < 0.7  # 1 / sqrt(3): as a linear layer's on inputs of unit variance


def test_absurd_sizes_of_tensor_fusion_are_refused():
    with pytest.raises(InputError, match=r"width 512 takes 134,742,528 weights; set model.fusion_rank"):
        build_fusion("tensor", 512)
    assert build_fusion("tensor", 512, 4).width == 512
    with pytest.raises(InputError, match="model.fusion_rank=-1: give a whole number above 0"):
        build_fusion("tensor", 8, -1)


@pytest.mark.parametrize("fusion_rank", [None, 2])
def test_a_model_with_tensor_fusion_trains_and_is_evaluated(corpus, fusion_rank):
    task = tiny.build_task(corpus, profiling=True)
    torch.manual_seed(3)
    model = tiny.build_model(task, fusion="tensor", fusion_rank=fusion_rank)
    criterion = tiny.build_criterion(task)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = {name: value.clone() for name, value in model.fusion.named_parameters()}
    first = tiny.validate(task, model, criterion, "valid")["loss_classification"]
    model.train()
    criterion.train()
    for batch in tiny.batches(task, "train", 9)[:4]:
        optimizer.zero_grad()
        loss, _, _ = criterion(model, batch)
        loss.backward()
        optimizer.step()
    assert all(not torch.equal(value, before[name]) for name, value in model.fusion.named_parameters())
    task.begin_valid_epoch(2, model)
    figures = tiny.validate(task, model, criterion, "valid")
    assert 0 < figures["loss_classification"] < first
    assert figures["protocol"] == "full"


@pytest.mark.parametrize(
    ("fusion", "shapes"),
    [("concat", [(128, 512), (128,), (4, 128), (4,)]), ("gate", [(64, 256), (64,), (4, 64), (4,)])],
)
def test_mlp_has_the_official_shapes(fusion, shapes):
    joined = build_fusion(fusion, 256)
    head = build_head("mlp", joined.width, 4, branches=joined.branches)
    assert [tuple(p.shape) for p in head.parameters()] == shapes
    assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert head(torch.zeros(2, joined.width)).shape == (2, 4)


def test_linear_head():
    head = build_head("linear", 512, 4)
    assert [tuple(p.shape) for p in head.parameters()] == [(4, 512), (4,)]


def test_unknown_head_lists_the_known():
    with pytest.raises(InputError, match="linear, mlp"):
        build_head("deep", 8, 2)
