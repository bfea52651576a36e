"""common.fp16 and common.bf16: the whole network in half precision, the optimiser on copies in float32."""

import copy

import pytest
import tiny
import torch
from test_numerics import steps, trainer_of

from fairseq_neupronet.networks.auto_encoder import AutoEncoderLoss
from fairseq_neupronet.networks.fusion import build_fusion


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_corpus(tmp_path_factory.mktemp("half") / "data", clips={"train": 12, "valid": 6})


@pytest.mark.parametrize(
    ("half", "frozen"),
    [(None, {"model__freeze_backbone_updates": 1000})]
    + [(half, {"model__freeze_backbone": True}) for half in (None, "bf16")],
)
def test_what_is_frozen_keeps_its_weights_and_the_rest_moves(data, half, frozen):
    trainer = trainer_of(
        data,
        **({f"common__{half}": True} if half else {}),
        **frozen,
        optimizer__weight_decay=0.1,
        optimization__lr=[0.1],
    )
    before = copy.deepcopy(trainer.get_model().state_dict())
    steps(trainer, 3)
    moved = {
        name.partition(".")[0]
        for name, weight in trainer.get_model().state_dict().items()
        if not torch.equal(weight, before[name])
    }
    assert moved == {"head", "profile_extractor"}


def test_the_bank_of_the_whole_split_fills_from_a_network_in_half_precision(data):
    trainer = trainer_of(data, common__bf16=True, model__grouping="whole_split")
    trainer.task.get_batch_iterator(trainer.task.dataset("train"), max_sentences=6, seed=1)
    trainer.begin_epoch(1)
    bank = trainer.get_model().bank.embedding
    assert bank.dtype == torch.bfloat16 and len(bank) == 12
    assert torch.isfinite(bank).all() and (bank != 0).any(dim=1).all()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_the_auto_encoder_loss_of_loud_spectra_is_that_of_float32(kind):
    """Squares of 0 to 255 sum up beyond the 65,504 of float16."""
    torch.manual_seed(0)
    loss = AutoEncoderLoss(64, 16)
    average, fused = 255 * torch.rand(32, 64), torch.randn(32, 16)
    average, fused = average.to(kind).float(), fused.to(kind).float()  # so that both get the same numbers
    expected = loss(average, fused)
    halved = copy.deepcopy(loss).to(kind)
    assert {parameter.dtype for parameter in halved.parameters()} == {torch.float32}
    found = halved(average.to(kind), fused.to(kind))
    assert found.item() == pytest.approx(expected.item(), rel=0.02) and expected > 65504
    found.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in halved.parameters())


@pytest.mark.parametrize("mixed", [None, {"partner": torch.tensor([1, 2, 0]), "share": torch.ones(3)}])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_class_weights_are_those_of_float32(data, kind, mixed):
    """bfloat16 rounds by up to 2⁻⁹, .2 %, so that ICBHI's classes would weigh otherwise than asked for."""
    weights = [2063.0, 1215.0, 501.0]
    criterion = tiny.build_criterion(tiny.build_task(data), class_weights=weights, gamma=0.0).to(kind)
    logits, target = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).to(kind), torch.tensor([0, 1, 2])
    inverse = [1 / weight for weight in weights]
    expected = -sum(inverse[k] / sum(inverse) * logits.double().log_softmax(1)[k, k].item() for k in target)
    assert criterion.loss.classification(logits, target, mixed).item() == pytest.approx(expected, rel=1e-6)


def test_a_silent_embedding_passes_the_gate_in_float16():
    gate = build_fusion("gate", 4)
    assert gate(torch.zeros(2, 4).half(), torch.zeros(2, 4).half()).tolist() == torch.zeros(2, 4).tolist()
