"""Evaluation: what a clip gets does not depend on its batch, and the figures are scikit-learn's."""

import json
import math

import numpy as np
import pytest
import tiny
import torch
from sklearn import metrics as sklearn_metrics

BACKBONES = ("spectrogram_wav2vec2", "efficientnet-b0", "resnet18")


def model_and_criterion(task, **options):
    torch.manual_seed(3)
    model = tiny.build_model(task, **options)
    with torch.no_grad():  # so that classes and batches differ clearly
        for parameter in model.head.parameters():
            parameter.mul_(4)
    return model, tiny.build_criterion(task)


def outputs(corpus, batch_size, model=None, split="test", backbone="spectrogram_wav2vec2", pooling="dot", **task):
    """Accuracy and probabilities (N, K), with a model built here or given."""
    task = tiny.build_task(corpus, **task)
    if model is None:
        model, _ = model_and_criterion(task, backbone=backbone, pooling=pooling)
    logits, target = tiny.evaluation(task, model, tiny.build_criterion(task), split, batch_size)
    return float((logits.argmax(1) == target).double().mean()), logits.softmax(1)


@pytest.fixture(scope="module")
def models(corpus):
    """One plain model a backbone, run in training for a moment so that running statistics are not the initial ones."""
    built = {}
    for name in BACKBONES:
        task = tiny.build_task(corpus)
        built[name], _ = model_and_criterion(task, backbone=name, batch_norm_momentum=0.5)
        built[name].train()
        batches = tiny.batches(task, "train", 12)
        with torch.no_grad():
            if name.startswith("efficientnet"):
                built[name].backbone.projection.weight.mul_(20)  # its sigmoid is flat on fresh weights
            for batch in batches * 3:
                built[name](**batch["net_input"])
    return built


@pytest.mark.parametrize("backbone", BACKBONES)
def test_batches_of_1_8_and_64_give_the_same_without_profiling(corpus, models, backbone):
    """Not so in the official code, where padding to the batch's longest clip leaks."""
    one, eight, all_clips = (outputs(corpus, size, models[backbone]) for size in (1, 8, 64))
    for accuracy, probabilities in (eight, all_clips):
        assert accuracy == one[0]
        torch.testing.assert_close(probabilities, one[1], atol=1e-5, rtol=0)
    assert one[1].std(dim=0).max() > 1e-4  # not a constant prediction, which would pass as well


@pytest.mark.parametrize("backbone", BACKBONES)
def test_padding_to_the_longest_of_the_batch_leaks_as_in_the_official_code(corpus, models, backbone):
    (_, alone), (_, together) = (outputs(corpus, size, models[backbone], padding="batch") for size in (1, 64))
    assert (alone - together).abs().max() > 1e-4


@pytest.mark.parametrize("protocol", ["single", "full"])
def test_batches_of_1_8_and_64_give_the_same_with_profiling(corpus, protocol):
    options = {"profiling": True, "protocol": protocol}
    one, eight, all_clips = (outputs(corpus, size, **options) for size in (1, 8, 64))
    for accuracy, probabilities in (eight, all_clips):
        assert accuracy == one[0]
        torch.testing.assert_close(probabilities, one[1], atol=1e-5, rtol=0)


def test_protocol_batch_depends_on_the_batch_size(corpus):
    options = {"profiling": True, "protocol": "batch"}
    (_, alone), (_, eight), (_, together) = (outputs(corpus, size, **options) for size in (1, 8, 64))
    assert (alone - eight).abs().max() > 1e-4
    assert (eight - together).abs().max() > 1e-4


def test_protocols_meet_where_their_groups_are_the_same(corpus):
    single, batch, full = (
        {size: outputs(corpus, size, profiling=True, protocol=protocol)[1] for size in (1, 64)}
        for protocol in ("single", "batch", "full")
    )
    torch.testing.assert_close(batch[1], single[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(batch[64], full[64], atol=1e-5, rtol=0)
    assert (single[1] - full[1]).abs().max() > 1e-4


@pytest.mark.parametrize("pooling", ["mean", "dot", "cosine"])
def test_full_split_pooling_equals_a_loop_over_clips(corpus, pooling):
    task = tiny.build_task(corpus, profiling=True, protocol="full")
    model, criterion = model_and_criterion(task, pooling=pooling)
    logits, _ = tiny.evaluation(task, model, criterion, "test", 4)
    data = task.dataset("test")
    manifest, model = data.manifest, model.eval()
    with torch.no_grad():
        clips, profiles = [], []
        for number in range(len(data)):
            net_input = data.collater([data[number]])["net_input"]
            clip, profile = model.embed(net_input["source"], net_input["padding_mask"])
            clips.append(clip[0])
            profiles.append(profile[0])
        for number in range(len(data)):
            group = [other for other in range(len(data)) if manifest.profiles[other] == manifest.profiles[number]]
            pooled = by_hand(pooling, clips[number], [profiles[other] for other in group])
            expected = model.head(torch.cat([clips[number], pooled])[None])[0]
            torch.testing.assert_close(logits[number], expected, atol=1e-5, rtol=1e-5)


def by_hand(pooling, clip, group):
    """NEUPRONET's table, for one clip."""
    if pooling == "mean":
        return sum(group) / len(group)
    if pooling == "cosine":
        unit = [profile / profile.norm() for profile in group]
        return sum((clip @ profile / clip.norm()) * profile for profile in unit) / len(group)
    scores = torch.stack([profile @ clip for profile in group]).exp()
    return sum(score / scores.sum() * profile for score, profile in zip(scores, group, strict=True))


def test_contrastive_validation_loss_repeats_exactly(corpus):
    task = tiny.build_task(corpus, profiling=True)
    model, criterion = model_and_criterion(task)
    first = tiny.validate(task, model, criterion, "valid")
    np.random.seed(5)
    torch.manual_seed(5)
    task.begin_valid_epoch(2, model)
    second = tiny.validate(task, model, criterion, "valid")
    assert first["loss_contrastive"] > 1
    assert first == second


def test_evaluation_disturbs_no_generator_of_training(corpus):
    task = tiny.build_task(corpus, profiling=True)
    model, criterion = (part.eval() for part in model_and_criterion(task))
    batches = tiny.batches(task, "valid")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for batch in batches:
        task.valid_step(batch, model, criterion)
    assert torch.equal(torch.rand(3), expected)


def test_loss_is_combined_from_its_parts(corpus):
    task = tiny.build_task(corpus, profiling=True)
    model, _ = model_and_criterion(task)
    criterion = tiny.build_criterion(task, loss_weights=[0.7, 0.3])
    figures = tiny.validate(task, model, criterion, "valid")
    expected = 0.7 * figures["loss_classification"] + 0.3 * figures["loss_contrastive"]
    assert figures["loss"] == pytest.approx(expected, rel=1e-6)
    evaluated = task.evaluation.latest[1]
    entropy = -evaluated.logits.log_softmax(1)[torch.arange(len(evaluated.target)), evaluated.target].mean() / 3
    assert figures["loss_classification"] == pytest.approx(float(entropy), rel=1e-5)


def test_figures_are_plain_numbers(corpus):
    """A numpy number in a checkpoint makes weights_only=True refuse it."""
    task = tiny.build_task(corpus, profiling=True)
    figures = tiny.validate(task, *model_and_criterion(task), "valid")
    assert {type(value) for name, value in figures.items() if name != "protocol"} == {float}
    assert figures["protocol"] == "full"
    assert not [name for name in figures if name.startswith("_")]


def test_a_second_subset_is_evaluated_on_its_own_clips(own_corpus, tmp_path):
    """It was given the first subset's figures when both had the same number of batches."""
    for name in ("tsv", "label"):
        lines = (own_corpus / f"test.{name}").read_text().splitlines()
        n_lines = tiny.CLIPS["valid"] + (name == "tsv")  # as many batches as valid
        (own_corpus / f"test.{name}").write_text("\n".join(lines[:n_lines]) + "\n")
    together = tiny.build_task(own_corpus, profiling=True, results_path=str(tmp_path / "results"), path="checkpoint.pt")
    model, criterion = model_and_criterion(together)
    together_figures = {split: tiny.validate(together, model, criterion, split, 64) for split in ("valid", "test")}
    apart = tiny.build_task(own_corpus, profiling=True)
    assert together_figures["test"] == tiny.validate(apart, model, criterion, "test", 64)
    assert together_figures["test"] != together_figures["valid"]
    assert json.loads((tmp_path / "results" / "metrics.json").read_text())["subset"] == "valid"
    assert json.loads((tmp_path / "results" / "test" / "metrics.json").read_text())["subset"] == "test"


# ---- what is written -----------------------------------------------------------------------------------------------


def predictions(folder):
    header, *rows = [line.split("\t") for line in (folder / "predictions.tsv").read_text().splitlines()]
    return header, rows


@pytest.mark.parametrize("batch_size", [4, 64])
def test_written_predictions_give_scikit_learns_figures(corpus, tmp_path, batch_size):
    task = tiny.build_task(corpus, profiling=True, results_path=str(tmp_path / "out"), path="checkpoint.pt")
    task.cfg.path = "some/checkpoint.pt"
    figures = tiny.validate(task, *model_and_criterion(task), "test", batch_size)
    header, rows = predictions(tmp_path / "out")
    assert header == ["path", "profile", "target", "prediction", *tiny.CLASSES]
    manifest = [line.split("\t") for line in (corpus / "test.tsv").read_text().splitlines()[1:]]
    labels = (corpus / "test.label").read_text().split()
    assert [row[:3] for row in rows] == [
        [clip[0], clip[3], label] for clip, label in zip(manifest, labels, strict=True)
    ]
    probabilities = np.array([[float(value) for value in row[4:]] for row in rows])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    predicted = [row[3] for row in rows]
    assert predicted == [tiny.CLASSES[number] for number in probabilities.argmax(axis=1)]
    average = {"average": "macro", "zero_division": 0}
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, predicted),
        "macro_precision": sklearn_metrics.precision_score(labels, predicted, **average),
        "macro_recall": sklearn_metrics.recall_score(labels, predicted, **average),
        "macro_f1": sklearn_metrics.f1_score(labels, predicted, **average),
        "auc": sklearn_metrics.roc_auc_score(labels, probabilities, multi_class="ovr", labels=list(tiny.CLASSES)),
    }
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=1e-9), name
        assert summary["metrics"][name] == figures[name]  # unrounded
    assert {key: summary[key] for key in ("checkpoint", "subset", "protocol", "clips")} == {
        "checkpoint": "some/checkpoint.pt",
        "subset": "test",
        "protocol": "full",
        "clips": tiny.CLIPS["test"],
    }
    assert summary["metrics"]["brier"] is None
    assert "two classes" in summary["undefined"]["brier"]


def test_brier_score_and_auc_of_two_classes(tmp_path):
    corpus = tiny.write_corpus(tmp_path / "two", classes=("cough", "laugh"))
    task = tiny.build_task(corpus, results_path=str(tmp_path / "out"), path="checkpoint.pt")
    figures = tiny.validate(task, *model_and_criterion(task), "test")
    _, rows = predictions(tmp_path / "out")
    score, target = np.array([float(row[5]) for row in rows]), np.array([row[2] == "laugh" for row in rows])
    assert figures["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(target, score), abs=1e-7)
    assert figures["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(target, score), abs=1e-9)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["undefined"] == {}


def test_undefined_figures_are_null_with_the_reason(own_corpus, tmp_path):
    n_clips = tiny.CLIPS["test"]
    (own_corpus / "test.label").write_text("cough\n" * n_clips)
    task = tiny.build_task(own_corpus, results_path=str(tmp_path / "out"), path="checkpoint.pt")
    figures = tiny.validate(task, *model_and_criterion(task), "test")
    assert math.isnan(figures["auc"])
    text = (tmp_path / "out" / "metrics.json").read_text()
    assert "NaN" not in text
    summary = json.loads(text)
    assert summary["metrics"]["auc"] is None
    assert summary["undefined"]["auc"] == "all clips are of one class"


def test_left_out_clips_do_not_shift_the_written_rows(own_corpus, tmp_path):
    task = tiny.build_task(own_corpus, min_sample_size=35, results_path=str(tmp_path / "out"), path="checkpoint.pt")
    tiny.validate(task, *model_and_criterion(task), "test")
    manifest = [line.split("\t") for line in (own_corpus / "test.tsv").read_text().splitlines()[1:]]
    kept = [clip[0] for clip in manifest if int(clip[2]) >= 35]
    assert 0 < len(kept) < len(manifest)
    assert [row[0] for row in predictions(tmp_path / "out")[1]] == kept


def test_an_empty_profile_is_evaluated_alone_under_every_protocol(own_corpus):
    lines = (own_corpus / "test.tsv").read_text().splitlines()
    (own_corpus / "test.tsv").write_text("\n".join([lines[0], *(line[: line.rindex("\t") + 1] for line in lines[1:])]))
    (_, single), (_, full) = (
        outputs(own_corpus, 8, profiling=True, protocol=protocol) for protocol in ("single", "full")
    )
    torch.testing.assert_close(single, full, atol=1e-6, rtol=0)
