"""task.adaptive_batch_norm: what a clip is normalised by, and that batches and workers make no difference."""

import copy

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.networks.adaptive_batch_norm import adapted_to_groups
from fairseq_neupronet.profiles.batches import BatchMates

CNN = {"backbone": "resnet18"}
GROUPS = torch.tensor([2, 0, 0, 1, 2, 0, 1, 2, 0])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny.write_corpus(tmp_path_factory.mktemp("corpus"), clips=tiny.CLIPS | {"test": 40})


@pytest.fixture
def network():
    """Two convolutions with batch norms that have seen something; in evaluation mode, in float64."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)
    ).double()
    with torch.no_grad():
        for norm in (network[1], network[4]):
            norm.weight.uniform_(0.5, 2.0)
            norm.bias.normal_()
        for _ in range(20):
            network(torch.randn(6, 1, 9, 8).double() * 2 + 1)
    return network.eval()


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(9, 1, 9, 8).double() + torch.linspace(-2, 2, 9).double().view(9, 1, 1, 1)


def members(counts):
    return torch.stack([(group == GROUPS) & counts for group in range(3)])


@torch.no_grad()
def adapted(network, x, counts, prior):
    with adapted_to_groups(network, GROUPS, members(counts), prior):
        return network(x)


@torch.no_grad()
def test_without_a_prior_it_is_torch_in_training_mode_on_each_group(network, x):
    found = adapted(network, x, torch.ones(9, dtype=torch.bool), 0.0)
    for group in range(3):
        alone = copy.deepcopy(network).train()
        torch.testing.assert_close(found[group == GROUPS], alone(x[group == GROUPS]))


@pytest.mark.parametrize("prior", [0.5, 30.0])
def test_a_group_counts_as_its_clips_and_training_as_the_prior(network, x, prior):
    """Layer by layer and group by group, in numpy; two clips do not count, and a group of which none does stays."""
    counts = torch.tensor([True, False, True, False, True, True, False, True, True])
    found = adapted(network, x, counts, prior).numpy()
    for group in range(3):
        here = (group == GROUPS).numpy()
        kept = counts.numpy()[here]
        maps = x[group == GROUPS]
        for convolution, norm in ((network[0], network[1]), (network[3], network[4])):
            maps = convolution(maps).detach().numpy()
            mean, variance = norm.running_mean.numpy(), norm.running_var.numpy()
            if kept.any():
                share = kept.sum() / (kept.sum() + prior)
                mean = share * maps[kept].mean((0, 2, 3)) + (1 - share) * mean
                variance = share * maps[kept].var((0, 2, 3)) + (1 - share) * variance
            scale = norm.weight.detach().numpy() / np.sqrt(variance + norm.eps)
            maps = (maps - mean[:, None, None]) * scale[:, None, None] + norm.bias.detach().numpy()[:, None, None]
            if norm is network[1]:
                maps = nn.functional.silu(torch.from_numpy(maps))
        np.testing.assert_allclose(found[here], maps, rtol=1e-9)
    assert not counts[GROUPS == 1].any()


@torch.no_grad()
def test_afterwards_the_network_is_what_it_was(network, x):
    expected = network(x)
    state = copy.deepcopy(network.state_dict())
    with pytest.raises(ZeroDivisionError), adapted_to_groups(network, GROUPS, members(GROUPS >= 0), 0.0):
        assert not torch.allclose(network(x), expected)
        raise ZeroDivisionError
    assert torch.equal(network(x), expected)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in state.items())


def test_large_groups_are_dealt_out_by_key_into_equal_parts():
    rng = np.random.default_rng(0)
    codes = np.repeat([7, 3, 5], [300, 128, 1])[rng.permutation(429)]
    keys = rng.permutation(429).astype(np.uint64)
    groups = BatchMates.of_partition(codes, lambda: keys)
    parts = {group: np.flatnonzero(groups.group == group) for group in np.unique(groups.group)}
    assert sorted(map(len, parts.values())) == [1, 100, 100, 100, 128]
    assert all(len(np.unique(codes[part])) == 1 for part in parts.values())
    # Whichever order the clips are in, the same clips are together.
    order = rng.permutation(429)
    other = BatchMates.of_partition(codes[order], lambda: keys[order])
    again = {frozenset(order[np.flatnonzero(other.group == group)].tolist()) for group in np.unique(other.group)}
    assert again == {frozenset(part.tolist()) for part in parts.values()}
    firsts = keys[codes == 7].argsort()[:3]
    assert len(np.unique(groups.group[codes == 7][firsts])) == 3


def test_keys_are_asked_for_only_where_a_group_is_large():
    assert BatchMates.of_partition(np.repeat([1, 2], 128), None).group.tolist() == [0] * 128 + [1] * 128


@pytest.mark.parametrize("max_sentences", [None, 1, 4, 7, 100])
@pytest.mark.parametrize("max_tokens", [None, 60, 200])
def test_a_batch_holds_whole_groups_as_many_as_fit(max_sentences, max_tokens):
    rng = np.random.default_rng(1)
    groups = BatchMates.of_batches(rng.integers(0, 9, size=40))
    lengths = rng.integers(3, 20, size=40)
    order = np.argsort(-lengths, kind="stable")
    batches = groups.batches(order, lengths[order], max_tokens, max_sentences)
    assert sorted(np.concatenate(batches).tolist()) == list(range(40))
    assert sum(len(np.unique(groups.group[batch])) for batch in batches) == len(np.unique(groups.group))

    def fits(items):
        return (max_sentences is None or len(items) <= max_sentences) and (
            max_tokens is None or len(items) * lengths[items].max() <= max_tokens
        )

    for batch, following in zip(batches, batches[1:], strict=False):
        assert fits(batch) or len(np.unique(groups.group[batch])) == 1
        first = following[groups.group[following] == groups.group[following[0]]]
        assert not fits(np.concatenate([batch, first]))
    longest = [lengths[batch].max() for batch in batches]
    assert longest == sorted(longest, reverse=True)


def evaluated(corpus, protocol, batch_size=8, workers=0, grouping="in_batch", **options):
    task = tiny.build_task(corpus, **{"protocol": protocol, "adaptive_batch_norm": 2.0} | options)
    torch.manual_seed(3)
    model = tiny.build_model(task, **CNN, grouping=grouping).eval()
    torch.manual_seed(4)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
    logs = [
        task.valid_step(batch, model, tiny.build_criterion(task).eval())[2]
        for batch in tiny.batches(task, "test", batch_size, num_workers=workers)
    ]
    task.evaluation.begin()
    with tiny.metrics.aggregate(new_root=True) as aggregator:
        task.reduce_metrics(logs, tiny.build_criterion(task).eval())
        aggregator.get_smoothed_values()
    latest = task.evaluation.latest[1]
    return task, model, latest.logits[latest.index.argsort()]


@pytest.mark.parametrize("protocol", ["full", "enrol-3", "single", "batch-9"])
def test_batch_size_and_workers_make_no_difference(corpus, protocol):
    _, _, expected = evaluated(corpus, protocol, batch_size=512)
    for batch_size, workers in ((1, 0), (7, 1), (64, 2)):
        _, _, found = evaluated(corpus, protocol, batch_size, workers)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_alone_a_clip_is_heard_as_without_it(corpus):
    _, _, found = evaluated(corpus, "single")
    _, _, expected = evaluated(corpus, "single", adaptive_batch_norm=None)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    _, _, in_group = evaluated(corpus, "full")
    assert (in_group - expected).abs().max() > 1e-2


@pytest.mark.parametrize("options", [{}, {"profiling": True, "grouping": "none"}], ids=["base", "multibranch"])
def test_enrolled_are_the_others_and_a_batch_is_its_own_group(corpus, options):
    """Each clip again by the running statistics moved by hand, with torch's own evaluation."""
    for protocol in ("enrol-3", "batch-9"):
        task, model, found = evaluated(corpus, protocol, **options)
        dataset = task.datasets["test"]
        plain = tiny.build_task(corpus, protocol="single")
        plain.load_dataset("test")
        clips = {number: tiny.collated(plain.dataset("test"), number)["net_input"] for number in range(len(found))}
        if protocol == "enrol-3":
            offsets, members = dataset.pairs
            others = {clip: members[offsets[clip] + 1 : offsets[clip + 1]] for clip in range(len(found))}
        else:
            codes = dataset.profiles
            others = {}
            for batch in tiny.batches(task, "test"):
                ids = batch["id"].numpy()
                for clip in ids:
                    same = ids[codes[ids] == codes[clip]]
                    others[clip] = same if len(same) > 1 else []
        for clip, group in [*others.items()][::13]:
            torch.testing.assert_close(by_hand(model, clips, clip, group, 2.0), found[clip], rtol=0, atol=2e-5)


@torch.no_grad()
def by_hand(model, clips, clip, group, prior):
    """The logits of a clip when each batch norm, one after the other, has taken in the group's clips."""
    untouched = copy.deepcopy(model.state_dict())

    def outputs(number):
        return model(**clips[number]).logits[0]

    if not len(group):
        return outputs(clip)
    share = len(group) / (len(group) + prior)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        seen = []
        handle = norm.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        for number in group:
            outputs(number)
        handle.remove()
        seen = torch.cat(seen)
        norm.running_mean.lerp_(seen.mean((0, 2, 3)), share)
        norm.running_var.lerp_(seen.var((0, 2, 3), correction=0), share)
    logits = outputs(clip)
    model.load_state_dict(untouched)
    return logits


def test_batch_norms_adapt_to_clips_whose_bands_are_normalised(corpus):
    task, model, found = evaluated(corpus, "full", profile_normalize=True)
    data, groups = task.dataset("test"), task.dataset("test").grouping.codes
    clips = {number: tiny.collated(data, number)["net_input"] for number in range(len(found))}
    checked = 0
    for clip in range(0, len(found), 7):
        group = np.flatnonzero(groups == groups[clip])
        if len(group) > 1:
            torch.testing.assert_close(by_hand(model, clips, clip, group, 2.0), found[clip], rtol=0, atol=2e-5)
            checked += 1
    assert checked


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_a_number_that_is_no_number_of_clips_is_refused(corpus, value):
    with pytest.raises(InputError, match=f"task.adaptive_batch_norm={value}: give clips from 0 up"):
        tiny.build_task(corpus, adaptive_batch_norm=value)


@pytest.mark.parametrize("backbone", ["spectrogram_wav2vec2", "none"])
def test_a_backbone_without_batch_norm_is_refused(corpus, backbone):
    task = tiny.build_task(corpus, adaptive_batch_norm=30.0, profiling=True)
    with pytest.raises(InputError, match=f"model.backbone={backbone} has no batch norm.*efficientnet or a resnet"):
        tiny.build_model(task, backbone=backbone, **({"fusion": "profile"} if backbone == "none" else {}))


def test_training_is_not_touched(corpus):
    for options in ({"adaptive_batch_norm": 30.0}, {}):
        task = tiny.build_task(corpus, **options)
        assert not any("together" in batch for batch in tiny.batches(task, "train"))


@pytest.mark.parametrize(
    "options",
    [
        {"profiling": True},
        {"profiling": True, "profile_normalize": True},
        {"profile_normalize": True, "profile_normalize_clips": "random"},
        pytest.param({"bfloat16": True}, marks=pytest.mark.slow),
    ],
    ids=["pooled", "pooled_normalized", "normalized", "bfloat16"],
)
def test_it_goes_with_what_else_knows_profiles(corpus, options):
    for protocol in ("full", "enrol-2"):
        atol = 2e-5 if not options.get("bfloat16") else 2e-2
        _, _, found = evaluated(corpus, protocol, batch_size=5, **options)
        _, _, expected = evaluated(corpus, protocol, batch_size=512, **options)
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)
        _, _, without = evaluated(corpus, protocol, adaptive_batch_norm=None, **options)
        assert (found - without).abs().max() > 1e-2
