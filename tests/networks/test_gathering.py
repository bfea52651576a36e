"""Profile embeddings gathered over workers, against one process that holds all batches."""

import pytest
import torch
import two_workers
from torch import nn

from fairseq_neupronet.networks.fusion import build_fusion
from fairseq_neupronet.networks.gathering import gather_profiles
from fairseq_neupronet.networks.neupronet import NeuProNet
from fairseq_neupronet.networks.pooling import ProfilePooling

WIDTH = 6
SIZES = (3, 5)
CODES = torch.tensor([7, 2, 7, 2, 7, 9, 7, 9])  # 7 and 2 on both workers, 9 on the second only
POOLINGS = ("dot", "mean", "profile+cosine+dot")


class Embedding(nn.Linear):
    masks = False

    def forward(self, source, padding_mask):
        return super().forward(source.mean(dim=2))


def network(pooling: str, gather: bool, freeze: int = 0) -> NeuProNet:
    torch.manual_seed(1)
    fusion = build_fusion("concat", WIDTH, None)
    return NeuProNet(
        Embedding(4, WIDTH),
        nn.Linear(fusion.width, 3),
        Embedding(4, WIDTH),
        ProfilePooling(pooling),
        fusion,
        freeze_profile_extractor_updates=freeze,
        gather_profiles=gather,
    )


def clips() -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.randn(sum(SIZES), 4, 10, generator=torch.Generator().manual_seed(2))
    return source, torch.zeros(sum(SIZES), 10, dtype=torch.bool)


def fused_and_gradients(model: NeuProNet, source, padding_mask, codes, scale: float = 1.0):
    fused = model(source, padding_mask, codes).fused
    loss = (model.head(fused).square().sum(dim=1) * (1 + source[:, 0, 0])).sum() * scale
    loss.backward()
    return fused.detach(), [None if weight.grad is None else weight.grad.clone() for weight in model.parameters()]


def own_part(rank: int, whole: torch.Tensor) -> torch.Tensor:
    return whole.split(SIZES)[rank]


def train_all(rank: int) -> list:
    batch = [own_part(rank, whole) for whole in (*clips(), CODES)]
    results = [fused_and_gradients(network(pooling, gather=True), *batch) for pooling in POOLINGS]
    results.append(fused_and_gradients(network("dot", gather=True, freeze=1), *batch))
    if rank == 1:  # its batch must not count: strangers to everybody, and no loss
        batch[2] = -1 - torch.arange(SIZES[1])
    results.append(fused_and_gradients(network("dot", gather=True), *batch, scale=1.0 - rank))
    if rank == 0:
        with torch.no_grad():
            results.append(network("dot", gather=True).eval()(*batch).fused)
    return results


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    return two_workers.run_in_two(train_all, tmp_path_factory.mktemp("gathering"))


def assert_same(found: list, expected: tuple, sizes=SIZES):
    fused = torch.cat([worker[0] for worker in found])
    torch.testing.assert_close(fused, expected[0], atol=1e-6, rtol=0)
    for *parts, whole in zip(*(worker[1] for worker in found), expected[1], strict=True):
        if whole is None:
            assert parts == [None, None]
        else:
            torch.testing.assert_close(sum(parts), whole, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("number", range(len(POOLINGS)))
def test_pooled_embeddings_and_gradients_are_those_of_one_process_with_all_clips(workers, number):
    expected = fused_and_gradients(network(POOLINGS[number], gather=False), *clips(), CODES)
    assert_same([worker[number] for worker in workers], expected)
    alone = fused_and_gradients(network(POOLINGS[number], gather=False), *(own_part(0, x) for x in (*clips(), CODES)))
    assert (alone[0] - expected[0][: SIZES[0]]).abs().max() > 1e-3  # the other worker matters


def test_a_frozen_extractor_is_gathered_too(workers):
    expected = fused_and_gradients(network("dot", gather=False, freeze=1), *clips(), CODES)
    assert any(gradient is None for gradient in expected[1])
    assert_same([worker[len(POOLINGS)] for worker in workers], expected)


def test_a_batch_of_strangers_without_loss_leaves_the_other_worker_as_if_alone(workers):
    expected = fused_and_gradients(network("dot", gather=False), *(own_part(0, x) for x in (*clips(), CODES)))
    real, idle = (worker[len(POOLINGS) + 1] for worker in workers)
    torch.testing.assert_close(real[0], expected[0], atol=1e-6, rtol=0)
    for one, other, whole in zip(real[1], idle[1], expected[1], strict=True):
        torch.testing.assert_close(one + other, whole, atol=1e-6, rtol=1e-5)


def test_evaluation_needs_no_other_worker(workers):
    expected = network("dot", gather=False).eval()(*(own_part(0, x) for x in (*clips(), CODES))).fused
    torch.testing.assert_close(workers[0][-1], expected.detach(), atol=1e-6, rtol=0)


def test_one_process_gathers_nothing():
    embedding, codes = torch.randn(3, WIDTH), torch.arange(3)
    gathered, gathered_codes = gather_profiles(embedding, codes)
    assert gathered is embedding
    assert gathered_codes is codes
