"""A profile extractor that stands still hears each clip once, where the clip sounds the same each time."""

import numpy as np
import pytest
import tiny
import torch

from fairseq_neupronet.models.neupronet import NeuProNetModel

N_TRAIN, N_VALID = tiny.CLIPS["train"], tiny.CLIPS["valid"]


def trained(corpus, task_options=None, frozen_updates=1000, remembers=True, epochs=2, **options):
    """Losses of some epochs with a validation after each, and how many clips the extractor heard in each part."""
    task = tiny.build_task(corpus, **{"profiling": True} | (task_options or {}))
    torch.manual_seed(0)
    model = tiny.build_model(task, freeze_profile_extractor_updates=frozen_updates, **options)
    criterion = tiny.build_criterion(task, loss_weights=[1.0, 0.0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    heard, losses, update = [], [], 0

    def count(module, inputs, output):
        heard[-1] += len(inputs[0])

    model.profile_extractor.network.feature_extractor.register_forward_hook(count)
    for epoch in range(1, epochs + 1):
        heard.append(0)
        model.train()
        criterion.train()
        for batch in tiny.batches(task, "train", batch_size=8, epoch=epoch):
            model.set_num_updates(update)
            torch.manual_seed(update)
            optimizer.zero_grad()
            loss, *_ = criterion(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            update += 1
        heard.append(0)
        losses.append(tiny.validate(task, model, criterion, "valid", batch_size=5)["loss"])
    return losses, heard


@pytest.mark.parametrize("grouping", ["in_batch", "none"])
def test_each_clip_is_heard_once_and_the_losses_are_the_same(corpus, monkeypatch, grouping):
    # Layers of the backbone are left out at random: a pass left out must not move what is drawn.
    options = {"grouping": grouping, "transformer": tiny.TRANSFORMER | {"encoder_layerdrop": 0.5}}
    options["profile_extractor"] = options["transformer"]
    task_options = {"protocol": "single" if grouping == "none" else "full"}
    losses, heard = trained(corpus, task_options, **options)
    assert heard == [N_TRAIN, N_VALID, 0, 0]
    monkeypatch.setattr(NeuProNetModel, "asks_which_clips", False)
    expected, every_time = trained(corpus, task_options, **options)
    assert every_time == [N_TRAIN, N_VALID] * 2
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


@pytest.mark.parametrize("task_options", [{"specaug": True}, {"max_sample_size": 40}])
def test_training_clips_that_change_are_heard_each_time(corpus, task_options):
    assert trained(corpus, task_options)[1] == [N_TRAIN, N_VALID, N_TRAIN, 0]


def test_padding_that_depends_on_the_batch_is_heard_each_time(corpus):
    assert trained(corpus, {"padding": "batch"})[1] == [N_TRAIN, N_VALID] * 2


def test_an_extractor_that_moves_hears_every_clip_each_time(corpus):
    """From the fourth update of the first epoch on."""
    assert trained(corpus, frozen_updates=3)[1] == [N_TRAIN, N_VALID] * 2
    assert trained(corpus, frozen_updates=7)[1] == [N_TRAIN, N_VALID, N_TRAIN - 2 * 8, N_VALID]


def test_what_is_remembered_is_forgotten_with_the_weights(corpus):
    task = tiny.build_task(corpus, profiling=True)
    model = tiny.build_model(task, freeze_profile_extractor_updates=1000).train()
    other = tiny.build_model(task)
    batch = tiny.batches(task, "train")[0]
    clips = {"index": batch["id"], "split": "train"}
    before = model(**batch["net_input"], **clips).profile
    assert torch.equal(model(**batch["net_input"], **clips).profile, before)
    model.load_state_dict(other.state_dict())
    assert not torch.equal(model(**batch["net_input"], **clips).profile, before)


def test_what_is_remembered_is_forgotten_when_the_extractor_moves(corpus):
    task = tiny.build_task(corpus, profiling=True)
    model = tiny.build_model(task, freeze_profile_extractor_updates=1).train()
    batch = tiny.batches(task, "train")[0]
    clips = {"index": batch["id"], "split": "train"}
    before = model(**batch["net_input"], **clips).profile
    model.set_num_updates(1)
    model(**batch["net_input"], **clips)
    with torch.no_grad():
        for parameter in model.profile_extractor.parameters():
            parameter.mul_(1.5)
    model.set_num_updates(0)
    assert not torch.equal(model(**batch["net_input"], **clips).profile, before)
