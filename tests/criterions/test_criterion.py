"""The criterion: the loss is the sum that its fields say, computed here from the model's outputs by hand."""

import math

import numpy as np
import pytest
import tiny
import torch
from fairseq.logging import metrics

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.networks.losses import supcon_loss


@pytest.fixture(scope="module")
def setting(corpus):
    """A task with profiles, its model in evaluation mode, and one batch."""
    task = tiny.build_task(corpus, profiling=True)
    torch.manual_seed(0)
    model = tiny.build_model(task).eval()
    return task, model, tiny.batches(task, "train", batch_size=12)[0]


def loss_of(task, model, batch, **options):
    criterion = tiny.build_criterion(task, **options).eval()
    loss, sample_size, log = criterion(model, batch)
    return float(loss.detach()), sample_size, log


def weighted_entropy(logits, target, alpha, gamma=0.0):
    """Sum of -(1 - p)^γ α log p, clip by clip."""
    total = 0.0
    for clip, label in zip(logits.double().tolist(), target.tolist(), strict=True):
        log_p = clip[label] - math.log(sum(math.exp(value) for value in clip))
        total -= (1 - math.exp(log_p)) ** gamma * alpha[label] * log_p
    return total


@torch.no_grad()
def contrastive_by_hand(model, batch, group):
    """InfoNCE summed over anchors from the model's contrastive logits (which have tests of their own)."""
    net_input = batch["net_input"]
    logits = model.contrast(net_input["source"], net_input["padding_mask"], group)["logits"]
    log_p = logits.double() - logits.double().logsumexp(dim=1, keepdim=True)
    return -float(log_p[:, 0].sum())


def logits_of(model, batch):
    with torch.no_grad():
        return model(**batch["net_input"]).logits


def test_total_is_the_weighted_sum_of_both_parts(setting):
    task, model, batch = setting
    classification = weighted_entropy(logits_of(model, batch), batch["target"], [1 / 3] * 3)
    contrastive = contrastive_by_hand(model, batch, batch["net_input"]["profile"])
    assert contrastive > 1
    loss, _, log = loss_of(task, model, batch, loss_weights=[0.7, 0.3])
    assert loss == pytest.approx(0.7 * classification + 0.3 * contrastive, rel=1e-5)
    assert float(log["classification"]) == pytest.approx(classification, rel=1e-5)
    assert float(log["contrastive"]) == pytest.approx(contrastive, rel=1e-5)


def test_default_weights_are_the_recipes(setting):
    task, model, batch = setting
    loss, _, log = loss_of(task, model, batch)
    assert loss == pytest.approx(0.9999 * float(log["classification"]) + 0.0001 * float(log["contrastive"]), rel=1e-5)


def test_a_contrastive_weight_of_zero_leaves_the_contrastive_task_out(setting, monkeypatch):
    task, model, batch = setting
    monkeypatch.setattr(type(model), "contrast", lambda *a: pytest.fail("the contrastive task was computed"))
    loss, _, log = loss_of(task, model, batch, loss_weights=[1.0, 0.0])
    assert loss == pytest.approx(float(log["classification"]), rel=1e-6)


def test_class_weights_and_focal_exponent(setting):
    task, model, batch = setting
    weights = np.array([1.0, 2.0, 5.0])
    alpha = (1 / weights) / (1 / weights).sum()
    expected = weighted_entropy(logits_of(model, batch), batch["target"], alpha, gamma=2.0)
    loss, _, log = loss_of(task, model, batch, class_weights=weights.tolist(), gamma=2.0, loss_weights=[1.0, 0.0])
    assert loss == pytest.approx(expected, rel=1e-4)


def test_without_profiles_the_loss_is_the_unweighted_classification_loss(corpus):
    task = tiny.build_task(corpus, profiling=False)
    model = tiny.build_model(task).eval()
    batch = tiny.batches(task, "train", batch_size=12)[0]
    expected = weighted_entropy(logits_of(model, batch), batch["target"], [1 / 3] * 3)
    loss, _, log = loss_of(task, model, batch, loss_weights=[0.2, 0.8])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert float(log["contrastive"]) == 0


def test_sample_size_is_the_number_of_clips(setting):
    task, model, batch = setting
    _, sample_size, log = loss_of(task, model, batch)
    assert sample_size == log["sample_size"] == log["nsentences"] == log["ntokens"] == 12


def test_batch_mask_off_draws_negatives_from_other_clips_of_the_profile_too(setting):
    task, model, batch = setting
    one_profile = {**batch, "net_input": {**batch["net_input"], "profile": torch.zeros(12, dtype=torch.long)}}
    _, _, masked = loss_of(task, model, one_profile)
    assert int(masked["without_across"]) == masked["n_anchors"] > 0
    _, _, unmasked = loss_of(task, model, one_profile, batch_mask=False)
    assert int(unmasked["without_across"]) == 0
    assert float(unmasked["contrastive"]) == pytest.approx(contrastive_by_hand(model, one_profile, None), rel=1e-5)
    assert float(unmasked["contrastive"]) > 1.1 * float(masked["contrastive"])


@pytest.mark.parametrize("per_clip", [False, True])
def test_sup_contrast_mixes_in_the_supervised_contrastive_loss(setting, per_clip):
    task, model, batch = setting
    with torch.no_grad():
        fused = torch.nn.functional.normalize(model(**batch["net_input"]).fused, dim=1).unsqueeze(1)
        supervised = float(supcon_loss(fused, batch["target"], 0.7, 0.7, mode="one"))
    classification = weighted_entropy(logits_of(model, batch), batch["target"], [1 / 3] * 3)
    loss, _, log = loss_of(
        task, model, batch, sup_contrast=True, sup_contrast_per_clip=per_clip, loss_weights=[0.5, 0.0]
    )
    extra = 0.9 * supervised * (12 if per_clip else 1)
    assert extra > 0.1
    assert loss == pytest.approx(0.5 * 0.1 * classification + extra, rel=1e-4)


def test_sup_contrast_of_a_single_clip_is_finite(corpus):
    """NaN in the official code."""
    task = tiny.build_task(corpus, profiling=True)
    model = tiny.build_model(task).eval()
    loss, _, _ = loss_of(task, model, tiny.batches(task, "train", batch_size=1)[0], sup_contrast=True)
    assert math.isfinite(loss)


@pytest.mark.parametrize("profiling", [False, True])
def test_auto_encoder_adds_its_terms_on_the_average_over_unpadded_frames(corpus, profiling):
    task = tiny.build_task(corpus, profiling=profiling)
    model = tiny.build_model(task, auto_encoder=True).eval()
    batch = tiny.batches(task, "train", batch_size=12)[2]
    net_input = batch["net_input"]
    assert net_input["padding_mask"].any()
    average = torch.stack(
        [clip[:, ~mask].mean(dim=1) for clip, mask in zip(net_input["source"], net_input["padding_mask"], strict=True)]
    )
    with torch.no_grad():
        added = float(model.auto_encoder(average, model(**net_input).fused))
    loss, _, log = loss_of(task, model, batch, loss_weights=[1.0, 0.0])
    assert added > 0.1
    assert loss == pytest.approx(float(log["classification"]) + added, rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"sup_contrast": True}])
def test_every_term_has_a_gradient_that_reaches_the_network(corpus, options):
    task = tiny.build_task(corpus, profiling=True)
    model = tiny.build_model(task, auto_encoder=True).train()
    criterion = tiny.build_criterion(task, loss_weights=[0.5, 0.5], **options).train()
    loss, _, _ = criterion(model, tiny.batches(task, "train", batch_size=12)[0])
    loss.backward()
    still = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None
        and not name.startswith(("backbone.network.final_proj", "backbone.network.project_q"))
        and not name.startswith("backbone.network.mask_emb")
    ]
    assert still == []


def test_class_weights_of_the_wrong_length_are_refused_at_start(setting):
    """The official default [1] crashes."""
    with pytest.raises(InputError, match=r"class_weights holds 1 numbers and the data has 3 classes"):
        tiny.build_criterion(setting[0], class_weights=[1.0])


@pytest.mark.parametrize("weights", [[1.0, 0.0, 1.0], [1.0, -1.0, 1.0], [1.0, math.inf, 1.0], [1.0, math.nan, 1.0]])
def test_a_class_weight_that_is_not_positive_is_refused_at_start(setting, weights):
    """A silent NaN in the official code."""
    with pytest.raises(InputError, match="class_weights have to be positive and finite"):
        tiny.build_criterion(setting[0], class_weights=weights)


@pytest.mark.parametrize("name", ["loss_weights", "sup_contrast_weights"])
@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, 1.0], []])
def test_another_number_of_loss_weights_than_two_is_refused_at_start(setting, name, weights):
    with pytest.raises(InputError, match=rf"criterion\.{name} has {len(weights)} number\(s\), two are wanted"):
        tiny.build_criterion(setting[0], **{name: weights})


def test_smoothed_labels_and_mixtures_count_in_training_only(setting):
    task, model, batch = setting
    logits, target = logits_of(model, batch).double(), batch["target"]
    partner, share = torch.arange(12).roll(1), torch.linspace(0.5, 1.0, 12)
    total = 0.0
    for clip in range(12):
        own = torch.eye(3)[target[clip]] * share[clip] + torch.eye(3)[target[partner[clip]]] * (1 - share[clip])
        total -= float(((0.7 * own + 0.3 / 3) * logits[clip].log_softmax(0)).sum() / 3)
    criterion = tiny.build_criterion(task, label_smoothing=0.3, loss_weights=[1.0, 0.0])
    mixed = {**batch, "mixed": {"partner": partner, "share": share}}
    assert float(criterion.train()(model, mixed)[2]["classification"]) == pytest.approx(total, rel=1e-5)
    plain = weighted_entropy(logits, target, [1 / 3] * 3)
    assert float(criterion.eval()(model, batch)[2]["classification"]) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_an_impossible_label_smoothing_is_refused(setting, smoothing):
    with pytest.raises(InputError, match="criterion.label_smoothing"):
        tiny.build_criterion(setting[0], label_smoothing=smoothing)


def test_smoothing_and_mixing_keep_class_weights_and_focal_exponent(corpus):
    task = tiny.build_task(corpus)
    criterion = tiny.build_criterion(task, label_smoothing=0.3, class_weights=[1.0, 2.0, 5.0], gamma=2.0).train()
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    target, partner, share = [0, 1, 2, 0], [1, 0, 3, 2], [0.5, 0.7, 1.0, 0.9]
    alpha = np.array([1, 1 / 2, 1 / 5]) / (1 + 1 / 2 + 1 / 5)
    total = 0.0
    for clip, row in enumerate(logits.double().numpy()):
        probability = np.exp(row) / np.exp(row).sum()
        for label in range(3):
            mixed = share[clip] * (target[clip] == label) + (1 - share[clip]) * (target[partner[clip]] == label)
            factor = (0.7 * mixed + 0.3 / 3) * alpha[label] * (1 - probability[label]) ** 2
            total -= factor * np.log(probability[label])
    mixture = {"partner": torch.tensor(partner), "share": torch.tensor(share)}
    found = criterion.loss.classification(logits, torch.tensor(target), mixture)
    assert float(found) == pytest.approx(total, rel=1e-5)


def test_training_figures_are_of_all_clips_not_of_batches(corpus):
    """36 clips in batches of 16: the last one is of 4."""
    task = tiny.build_task(corpus)
    model, criterion = tiny.build_model(task).train(), tiny.build_criterion(task).train()
    logs, n_right, n_clips, total = [], 0, 0, 0.0
    for batch in tiny.batches(task, "train", batch_size=16):
        torch.manual_seed(0)
        with torch.no_grad():
            logits = model(**batch["net_input"]).logits
        torch.manual_seed(0)
        logs.append(criterion(model, batch)[2])
        n_right += int((logits.argmax(dim=1) == batch["target"]).sum())
        n_clips += len(logits)
        total += float(torch.nn.functional.cross_entropy(logits, batch["target"], reduction="sum")) / 3
    assert n_clips % 16
    with metrics.aggregate(new_root=True) as aggregator:
        criterion.reduce_metrics(logs)
        found = aggregator.get_smoothed_values()
    assert found["accuracy"] == pytest.approx(n_right / n_clips, abs=1e-3)
    assert found["loss"] == pytest.approx(total / n_clips, abs=1e-3)
