"""task.two_views: what each backbone hears, what it learns from, and what they say together."""

import pytest
import tiny
import torch
from torch import nn

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.networks.two_views import TwoBackbones, TwoHeads

DRAWN = {"profile_normalize": True, "profile_normalize_clips": "random", "profile_normalize_prior": 20.0}
AUGMENTED = {"specaug": True, "frequency_mask": 4, "time_mask": 6, "time_roll": 5, "frequency_warp": 0.1}
CNN = {"backbone": "efficientnet-b0"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny.write_corpus(tmp_path_factory.mktemp("corpus"))


def sources(task, split):
    return [batch["net_input"]["source"] for batch in tiny.batches(task, split)]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("normalized", [DRAWN, {}], ids=["normalized", "as_it_is"])
def test_a_batch_holds_the_clip_and_what_its_profile_makes_of_it(corpus, split, normalized):
    both = sources(tiny.build_task(corpus, two_views=True, **normalized, **AUGMENTED), split)
    as_it_is = sources(tiny.build_task(corpus, **AUGMENTED), split)
    heard_in_profile = sources(tiny.build_task(corpus, **normalized, **AUGMENTED), split)
    assert both and len(both) == len(as_it_is) == len(heard_in_profile)
    for source, first, second in zip(both, as_it_is, heard_in_profile, strict=True):
        assert torch.equal(source[:, : tiny.N_MELS], first) and torch.equal(source[:, tiny.N_MELS :], second)
        assert torch.equal(first, second) == (not normalized)


def test_together_they_say_the_mean_of_their_log_probabilities():
    torch.manual_seed(0)
    heads, embedding = TwoHeads(5, 3), torch.randn(4, 10)
    for row, found in zip(embedding, heads(embedding), strict=True):
        expected = torch.zeros(3)
        for head, part in zip(heads.views, (row[:5], row[5:]), strict=True):
            scores = (head.weight @ part + head.bias).exp()
            expected += (scores / scores.sum()).log() / 2
        torch.testing.assert_close(found, expected)


def test_each_backbone_hears_its_own_bands():
    class Total(nn.Module):
        def forward(self, source, padding_mask):
            return source.sum(dim=2)

    source = torch.arange(24.0).reshape(1, 6, 4)
    found = TwoBackbones([Total(), Total()])(source, torch.zeros(1, 4, dtype=torch.bool))
    assert found.tolist() == [[source[0, band].sum().item() for band in range(6)]]


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("mixup", [None, 0.3])
def test_each_view_learns_as_if_it_were_alone(corpus, mixup):
    """Its gradient is that of a plain model of its weights on its view, halved: the loss is the mean of the two."""
    task = tiny.build_task(corpus, two_views=True, mixup=mixup, **DRAWN)
    model = without_dropout(tiny.build_model(task, backbone="resnet18").train())
    (batch, *_) = tiny.batches(task, "train")
    criterion = tiny.build_criterion(task, label_smoothing=0.1).train()
    loss, _, log = criterion(model, batch)
    loss.backward()
    plain_losses = []
    for number in range(2):
        plain_task = tiny.build_task(corpus, mixup=mixup)
        plain = without_dropout(tiny.build_model(plain_task, backbone="resnet18").train())
        plain.backbone.load_state_dict(model.backbone.views[number].state_dict())
        plain.head[0].load_state_dict(model.head.views[number].state_dict())
        part = batch["net_input"]["source"].chunk(2, dim=1)[number]
        alone = batch | {"net_input": batch["net_input"] | {"source": part}}
        plain_loss, _, _ = tiny.build_criterion(plain_task, label_smoothing=0.1).train()(plain, alone)
        plain_loss.backward()
        plain_losses.append(plain_loss.item())
        for found, expected in zip(model.backbone.views[number].parameters(), plain.backbone.parameters(), strict=True):
            torch.testing.assert_close(2 * found.grad, expected.grad, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(2 * model.head.views[number].weight.grad, plain.head[0].weight.grad)
    assert log["classification"].item() == pytest.approx(sum(plain_losses) / 2, rel=1e-5)


def test_both_start_from_the_same_file(corpus, tmp_path):
    plain = tiny.build_model(tiny.build_task(corpus), **CNN)
    state = {name.removeprefix("effnet."): value for name, value in plain.backbone.state_dict().items()}
    torch.save(state, tmp_path / "b0.pth")
    model = tiny.build_model(tiny.build_task(corpus, two_views=True), **CNN, backbone_path=str(tmp_path / "b0.pth"))
    first, second = (dict(view.named_parameters()) for view in model.backbone.views)
    same = [name for name in first if torch.equal(first[name], second[name])]
    assert len(same) > 200 and any("conv_stem" in name for name in same)


SMALL_TRANSFORMER = {
    "conv_feature_layers": "[(16,3,1,2)]",
    "encoder_layers": 1,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32,
    "conv_pos": 8,
    "conv_pos_groups": 2,
}
TWO_KINDS = {"backbone": "spectrogram_wav2vec2", "transformer": SMALL_TRANSFORMER, "second_backbone": "resnet18"}


def saved(tmp_path, corpus, **options):
    """A state dict of such a backbone, under its library's names."""
    network = tiny.build_model(tiny.build_task(corpus), **options).backbone.state_dict()
    path = tmp_path / f"{options['backbone']}.pth"
    torch.save({name.partition(".")[2]: value for name, value in network.items()}, path)
    return str(path), network


def equal_parts(view, weights):
    own = view.state_dict()
    return [name for name in own if own[name].shape == weights[name].shape and torch.equal(own[name], weights[name])]


def test_the_second_view_may_be_heard_by_another_kind_of_backbone(corpus):
    task = tiny.build_task(corpus, two_views=True, **DRAWN)
    model = tiny.build_model(task, **TWO_KINDS).eval()
    (batch, *_) = tiny.batches(task, "valid")
    source, padding_mask = (batch["net_input"][name] for name in ("source", "padding_mask"))
    found = model(source, padding_mask).logits
    opinions = []
    for number, (kind, part) in enumerate(
        zip(("spectrogram_wav2vec2", "resnet18"), source.chunk(2, dim=1), strict=True)
    ):
        plain = tiny.build_model(tiny.build_task(corpus), backbone=kind, transformer=SMALL_TRANSFORMER).eval()
        plain.backbone.load_state_dict(model.backbone.views[number].state_dict())
        plain.head[0].load_state_dict(model.head.views[number].state_dict())
        opinions.append(plain(part, padding_mask).logits.log_softmax(dim=1))
    torch.testing.assert_close(found, (opinions[0] + opinions[1]) / 2)


def test_another_kind_of_backbone_starts_from_a_file_of_its_own(corpus, tmp_path):
    path, weights = saved(tmp_path, corpus, backbone="resnet18")
    task = tiny.build_task(corpus, two_views=True, **DRAWN)
    model = tiny.build_model(task, **TWO_KINDS, second_backbone_path=path)
    assert any("layer4" in name for name in equal_parts(model.backbone.views[1], weights))
    other_way_round = TWO_KINDS | {"backbone": "resnet18", "second_backbone": "spectrogram_wav2vec2"}
    model = tiny.build_model(task, **other_way_round, backbone_path=path)
    assert any("layer4" in name for name in equal_parts(model.backbone.views[0], weights))


def test_of_one_kind_the_second_may_have_a_file_of_its_own_too(corpus, tmp_path):
    path, weights = saved(tmp_path, corpus, backbone="resnet18")
    options = {"backbone": "resnet18", "second_backbone_path": path}
    with pytest.raises(InputError, match=f"model.second_backbone_path={path}: without two views"):
        tiny.build_model(tiny.build_task(corpus), **options)
    model = tiny.build_model(tiny.build_task(corpus, two_views=True), **options)
    first, second = (any("conv1" in name for name in equal_parts(view, weights)) for view in model.backbone.views)
    assert (first, second) == (False, True)


@pytest.mark.parametrize(
    ("task_options", "options", "said"),
    [
        ({}, {"second_backbone": "resnet18"}, "model.second_backbone=resnet18: without two views.*task.two_views=True"),
        ({"two_views": True}, {"second_backbone": "none"}, "model.second_backbone=none: both views need a backbone"),
        ({"two_views": True}, {"second_backbone": "vgg"}, "'vgg' is not known"),
    ],
)
def test_a_second_backbone_that_cannot_be_is_refused(corpus, task_options, options, said):
    with pytest.raises(InputError, match=said):
        tiny.build_model(tiny.build_task(corpus, **task_options), **CNN, **options)


def test_an_auto_encoder_hears_both(corpus):
    task = tiny.build_task(corpus, two_views=True, **DRAWN)
    model = tiny.build_model(task, **CNN, auto_encoder=True).train()
    (batch, *_) = tiny.batches(task, "train")
    loss, _, log = tiny.build_criterion(task).train()(model, batch)
    assert torch.isfinite(loss) and log["extra"] > 0


def test_a_profile_extractor_beside_it_is_refused(corpus):
    with pytest.raises(InputError, match="task.two_views=true.*set task.profiling=False"):
        tiny.build_model(tiny.build_task(corpus, two_views=True, profiling=True), **CNN)


def test_the_auto_encoder_hears_both_views(corpus):
    task = tiny.build_task(corpus, two_views=True, profile_normalize=True)
    model = tiny.build_model(task, backbone="resnet18", auto_encoder=True).eval()
    batch = tiny.batches(task, "train")[1]
    heard = zip(batch["net_input"]["source"], batch["net_input"]["padding_mask"], strict=True)
    average = torch.stack([clip[:, ~padding].mean(dim=1) for clip, padding in heard])
    assert not torch.equal(*average.chunk(2, dim=1))
    with torch.no_grad():
        expected = float(model.auto_encoder(average, model(**batch["net_input"]).fused))
        log = tiny.build_criterion(task).eval()(model, batch)[2]
    assert float(log["extra"]) == pytest.approx(expected, rel=1e-5)
