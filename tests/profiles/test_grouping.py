"""What a clip is pooled with in training: its batch, its whole split, or itself."""

import numpy as np
import pytest
import tiny
import torch
import two_workers
from torch import nn

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.networks.gathering import ProfileBank, embed_split

# What is left is repeatable: an unmasked extractor without dropout.
STILL = {
    name: 0.0
    for name in (
        "dropout",
        "attention_dropout",
        "activation_dropout",
        "encoder_layerdrop",
        "dropout_input",
        "dropout_features",
        "mask_channel_prob",
    )
}
OPTIONS = {"profile_extractor": STILL, "transformer": STILL, "final_dropout": 0.0, "apply_mask": False}


def ready(corpus, epoch=1, seed=0, task_options=None, **options):
    """A task and a model in training mode, at the start of an epoch, and the epoch's batches."""
    task = tiny.build_task(corpus, **{"profiling": True} | (task_options or {}))
    torch.manual_seed(seed)
    model = tiny.build_model(task, **OPTIONS | options).train()
    batches = tiny.batches(task, "train", batch_size=8, epoch=epoch)
    task.begin_epoch(epoch, model)
    return task, model, batches


def loss_and_gradients(model, logits, target):
    model.zero_grad()
    torch.nn.functional.cross_entropy(logits, target, reduction="sum").backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def pooled_over_the_split(model, task, batch, pooling):
    """First pass: every clip of the split, one by one, without a gradient. Second: the batch, clip by clip."""
    items = task.dataset("train").for_evaluation()
    profiles = task.dataset("train").manifest.profiles
    net_input, extractor = batch["net_input"], model.profile_extractor
    extractor.eval()
    stored = []
    with torch.no_grad():
        for number in range(len(items)):
            one = tiny.collated(items, number)["net_input"]
            stored.append(extractor(one["source"], one["padding_mask"])[0])
    extractor.train()
    clips = model.backbone(net_input["source"], net_input["padding_mask"])
    fresh = extractor(net_input["source"], net_input["padding_mask"])
    place = {number: row for row, number in enumerate(batch["id"].tolist())}
    fused = []
    for row, number in enumerate(batch["id"].tolist()):
        members = [other for other in range(len(items)) if profiles[other] == profiles[number]]
        group = torch.stack([fresh[place[other]] if other in place else stored[other] for other in members])
        weights = torch.full((len(members),), 1 / len(members))
        if pooling == "dot":
            weights = torch.softmax(group @ clips[row], dim=0)
        fused.append(torch.cat([clips[row], weights @ group]))
    return model.head(torch.stack(fused))


@pytest.mark.parametrize("pooling", ["mean", "dot"])
def test_whole_split_equals_a_plain_computation_in_two_passes(corpus, pooling):
    task, model, batches = ready(corpus, grouping="whole_split", pooling=pooling)
    batch = batches[1]
    assert len(batch["id"]) < len(task.dataset("train"))
    logits = model(**batch["net_input"], index=batch["id"]).logits
    gradients = loss_and_gradients(model, logits, batch["target"])
    expected = pooled_over_the_split(model, task, batch, pooling)
    expected_gradients = loss_and_gradients(model, expected, batch["target"])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    assert any(name.startswith("profile_extractor") and gradients[name].abs().max() > 0 for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=0, atol=1e-5)
    in_batch = ready(corpus, pooling=pooling)[1](**batch["net_input"]).logits
    assert (logits - in_batch).abs().max() > 1e-4


def test_the_bank_hears_clips_as_evaluation_does(corpus):
    """No masks, no augmentation, no random crop, although training has them all."""
    options = {"specaug": True, "max_sample_size": 40}
    task, model, _ = ready(corpus, task_options=options, grouping="whole_split", apply_mask=True)
    alone = task.dataset("train").for_evaluation()
    model.eval()
    for number in range(len(alone)):
        one = tiny.collated(alone, number)["net_input"]
        torch.testing.assert_close(
            one["source"][0],
            torch.nn.functional.pad(
                torch.from_numpy(np.load(alone.manifest.root / alone.manifest.clips[number]))[:, :40],
                (0, 40 - min(40, int(alone.manifest.frames[number]))),
            ),
        )
        expected = model.profile_extractor(one["source"], one["padding_mask"])[0]
        torch.testing.assert_close(model.bank.embedding[number], expected, rtol=1e-5, atol=1e-6)


def test_the_split_is_embedded_once_an_epoch_and_not_for_every_batch(corpus):
    task = tiny.build_task(corpus, profiling=True)
    model = tiny.build_model(task, grouping="whole_split").train()
    criterion = tiny.build_criterion(task)
    heard = []
    model.profile_extractor.network.feature_extractor.register_forward_hook(
        lambda module, inputs, output: heard.append(len(inputs[0]))
    )
    for epoch in (1, 2):
        batches = tiny.batches(task, "train", batch_size=8, epoch=epoch)
        task.begin_epoch(epoch, model)
        for batch in batches:
            criterion(model, batch)
        assert sum(heard) == 2 * len(task.dataset("train"))
        heard.clear()


def test_a_resumed_epoch_goes_on_with_the_bank_that_it_had(corpus):
    task, model, batches = ready(corpus, epoch=2, grouping="whole_split")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():  # training has moved the extractor since the epoch began
        for name, value in state.items():
            if name.startswith("profile_extractor"):
                value.mul_(1.1)
    model.load_state_dict(state)
    expected = model(**batches[1]["net_input"], index=batches[1]["id"]).logits
    task, resumed, _ = ready(corpus, epoch=2, seed=5, grouping="whole_split")
    resumed.load_state_dict(state)
    task.begin_epoch(2, resumed)
    assert torch.equal(resumed(**batches[1]["net_input"], index=batches[1]["id"]).logits, expected)
    tiny.batches(task, "train", batch_size=8, epoch=3)
    task.begin_epoch(3, resumed)
    assert not torch.equal(resumed.bank.embedding, state["bank.embedding"])


def test_a_checkpoint_with_a_bank_validates_on_its_own(corpus):
    task, model, _ = ready(corpus, grouping="whole_split")
    other = tiny.build_model(tiny.build_task(corpus, profiling=True), **OPTIONS, grouping="whole_split")
    assert len(other.bank.embedding) == 0
    other.load_state_dict(model.state_dict())
    criterion = tiny.build_criterion(task)
    figures = tiny.validate(task, other, criterion, "valid")
    assert figures == tiny.validate(task, model, criterion, "valid")
    assert figures["protocol"] == "full"


def test_evaluation_takes_the_group_from_its_own_split(corpus):
    """The official code takes the clips from the training set."""
    task, model, _ = ready(corpus, grouping="whole_split")
    logits, _ = tiny.evaluation(task, model, tiny.build_criterion(task), "valid")
    model.bank.embedding.fill_(1e3)
    again, _ = tiny.evaluation(task, model, tiny.build_criterion(task), "valid")
    assert torch.equal(logits, again)


def test_without_grouping_each_clip_is_its_own_group(corpus):
    task, model, batches = ready(corpus, task_options={"protocol": "single"}, grouping="none")
    net_input = batches[0]["net_input"]
    assert len(set(net_input["profile"].tolist())) < len(net_input["profile"])
    output = model(**net_input)
    clip, profile = model.embed(net_input["source"], net_input["padding_mask"])
    torch.testing.assert_close(output.fused, torch.cat([clip, profile], dim=1))


def test_without_grouping_every_protocol_hears_each_clip_alone(corpus):
    def logits(protocol):
        task, model, _ = ready(corpus, task_options={"protocol": protocol}, grouping="none")
        return tiny.evaluation(task, model, tiny.build_criterion(task), "valid")[0]

    single = logits("single")
    for protocol in ("full", "enrol-2", "batch-4"):
        assert torch.equal(logits(protocol), single)


# ---- the profile branch alone --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["dot", "cosine", "mean"])
def test_the_profile_branch_alone_has_no_other_parameters(corpus, pooling):
    _, model, batches = ready(corpus, backbone="none", fusion="profile", pooling=pooling)
    parts = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert parts == {"profile_extractor", "head"}
    assert model.head[0].weight.shape == (3, 16)
    net_input = batches[0]["net_input"]
    profile = model.profile_extractor(net_input["source"], net_input["padding_mask"])
    codes = net_input["profile"].tolist()
    pooled = []
    for row, code in enumerate(codes):
        group = profile[[other for other, its in enumerate(codes) if its == code]]
        if pooling == "dot":
            pooled.append(torch.softmax(group @ profile[row], dim=0) @ group)
        elif pooling == "cosine":
            unit = torch.nn.functional.normalize(group, dim=1)
            cosine = unit @ torch.nn.functional.normalize(profile[row], dim=0)
            pooled.append((cosine[:, None] * unit).mean(dim=0))
        else:
            pooled.append(group.mean(dim=0))
    torch.testing.assert_close(model(**net_input).logits, model.head(torch.stack(pooled)), rtol=1e-4, atol=1e-5)


def test_the_profile_branch_alone_is_evaluated_under_its_protocol(corpus):
    task, model, _ = ready(corpus, backbone="none", fusion="profile")
    criterion = tiny.build_criterion(task)
    small, large = (tiny.evaluation(task, model, criterion, "valid", size)[0] for size in (3, 18))
    torch.testing.assert_close(small, large, rtol=0, atol=1e-5)


# ---- wrong profiles ------------------------------------------------------------------------------------------------


def shuffled(corpus, seed, split="train", among="all_clips"):
    task = tiny.build_task(corpus, profiling=True, shuffle_profiles=seed, shuffle_profiles_among=among)
    task.load_dataset(split)
    return task.dataset(split).manifest.profiles


def test_shuffled_profiles_keep_the_sizes_of_groups_and_not_their_members(corpus):
    for split in ("train", "valid"):
        own, wrong = shuffled(corpus, None, split), shuffled(corpus, 1, split)
        assert np.array_equal(np.bincount(own), np.bincount(wrong))
        assert (own != wrong).mean() > 0.5
        assert np.array_equal(wrong, shuffled(corpus, 1, split))
        assert not np.array_equal(wrong, shuffled(corpus, 2, split))


def test_each_split_is_shuffled_in_its_own_way(corpus, tmp_path):
    folder = tiny.write_corpus(tmp_path / "equal", clips={"train": 18})
    for kind in ("tsv", "label"):
        (folder / f"valid.{kind}").write_text((folder / f"train.{kind}").read_text())
    assert not np.array_equal(shuffled(folder, 1, "train"), shuffled(folder, 1, "valid"))


@pytest.mark.parametrize("split", ["train", "valid"])
def test_profiles_shuffled_among_the_clips_of_a_class_keep_what_each_group_holds(corpus, split):
    own, wrong = shuffled(corpus, None, split), shuffled(corpus, 1, split, "clips_of_a_class")
    labels = [line.split()[0] for line in (corpus / f"{split}.label").read_text().splitlines()]
    holds = [sorted(zip(profiles.tolist(), labels, strict=True)) for profiles in (own, wrong)]
    assert holds[0] == holds[1]
    assert (own != wrong).mean() > 0.3
    assert np.array_equal(wrong, shuffled(corpus, 1, split, "clips_of_a_class"))
    among_all = shuffled(corpus, 1, split)
    assert sorted(zip(among_all.tolist(), labels, strict=True)) != holds[0]


def test_batches_carry_the_shuffled_profiles(corpus):
    task = tiny.build_task(corpus, profiling=True, shuffle_profiles=3)
    for split in ("train", "valid"):
        for batch in tiny.batches(task, split):
            assert np.array_equal(batch["net_input"]["profile"].numpy(), shuffled(corpus, 3, split)[batch["id"]])


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task_options", "options", "said"),
    [
        ({"profiling": False}, {"backbone": "none"}, "model.backbone=none: the profile branch alone needs profiles"),
        ({"profiling": False}, {"fusion": "gate"}, "model.fusion=gate: without profiles there is nothing to fuse"),
        ({"profiling": False}, {"grouping": "whole_split"}, "model.grouping=whole_split: without profiles"),
        ({}, {"backbone": "none", "backbone_path": "w.pt"}, "model.backbone_path=w.pt: model.backbone=none has no"),
        ({}, {"fusion": "profile", "pooling": "mean"}, "nothing uses the backbone spectrogram_wav2vec2"),
        ({"protocol": "single"}, {"grouping": "none", "gather_profiles": True}, "model.gather_profiles=true"),
        ({"shuffle_profiles": -1}, {}, "task.shuffle_profiles=-1: a seed is 0 or more"),
        ({"shuffle_profiles_among": "clips_of_a_class"}, {}, "without task.shuffle_profiles nothing is shuffled"),
    ],
)
def test_what_makes_no_sense_together_is_refused(corpus, tmp_path, monkeypatch, task_options, options, said):
    monkeypatch.chdir(tmp_path)
    torch.save({"stem": torch.zeros(1)}, "w.pt")
    with pytest.raises(InputError) as raised:
        tiny.build_model(tiny.build_task(corpus, **{"profiling": True} | task_options), **options)
    assert said in str(raised.value)


def test_shuffling_profiles_that_are_not_there_is_refused(own_corpus):
    path = own_corpus / "train.tsv"
    root, *rows = path.read_text().splitlines()
    path.write_text("\n".join([root, *(row.rpartition("\t")[0] for row in rows)]) + "\n")
    with pytest.raises(InputError, match=r"task.shuffle_profiles=1: .*train.tsv has no profiles"):
        tiny.build_model(tiny.build_task(own_corpus, shuffle_profiles=1))


class _Mean(nn.Module):
    """A profile extractor without weights, and its bank."""

    def __init__(self):
        super().__init__()
        self.bank = ProfileBank(4)

    def embed_profiles(self, source, padding_mask):
        return source.mean(dim=2)


def _clips() -> torch.Tensor:
    return torch.randn(7, 4, 5, generator=torch.Generator().manual_seed(0))


def _embedded(rank: int) -> torch.Tensor:
    source, batches = _clips(), []
    for places in [[0, 3], [5], [1, 6], [2, 4]][rank::2]:
        inputs = {"source": source[places], "padding_mask": torch.zeros(len(places), 5, dtype=torch.bool)}
        batches.append({"id": torch.tensor(places), "net_input": inputs})
    return embed_split(_Mean(), [*batches, *([{}] if rank else [])], 7)


def test_a_split_is_embedded_by_two_workers_together(tmp_path):
    for found in two_workers.run_in_two(_embedded, tmp_path):
        torch.testing.assert_close(found, _clips().mean(dim=2))


def test_a_checkpoint_without_a_bank_fills_one_when_training_goes_on(corpus):
    task, model, _ = ready(corpus, grouping="whole_split")
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("bank.")}
    again = tiny.build_model(task, **OPTIONS, grouping="whole_split").train()
    again.load_state_dict(state)
    assert not again.bank.holds(1, tiny.CLIPS["train"])
    task.begin_epoch(1, again)
    torch.testing.assert_close(again.bank.embedding, model.bank.embedding)
