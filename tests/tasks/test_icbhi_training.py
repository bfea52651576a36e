"""ICBHI 2017 from its folder to its figures, and who may ask for them."""

import json

import numpy as np
import pytest
import tiny
from icbhi_folder import write_icbhi
from omegaconf import OmegaConf

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.metrics import ICBHI_METRICS
from fairseq_neupronet.runs.run import _check_best_metric

NORMAL_AND_OTHERS = ("cough", "normal", "sniff")


def validated(corpus, **options):
    task = tiny.build_task(corpus, **options)
    return task, tiny.validate(task, tiny.build_model(task), tiny.build_criterion(task), "test")


def by_hand(folder, normal):
    """Sensitivity, specificity and score, from the written predictions."""
    _, *rows = [line.split("\t") for line in (folder / "predictions.tsv").read_text().splitlines()]
    hits = {"normal": [], "abnormal": []}
    for _, _, target, prediction, *_ in rows:
        hits["normal" if target == normal else "abnormal"].append(target == prediction)
    sensitivity, specificity = np.mean(hits["abnormal"]), np.mean(hits["normal"])
    return [sensitivity, specificity, (sensitivity + specificity) / 2]


@pytest.mark.parametrize("normal", ["normal", "sniff"])
def test_evaluation_logs_and_writes_the_icbhi_metrics(tmp_path, normal):
    corpus = tiny.write_corpus(tmp_path / "data", classes=NORMAL_AND_OTHERS)
    options = {"results_path": str(tmp_path / "out"), "path": "checkpoint.pt"}
    task, figures = validated(corpus, normal_class=normal, **options)
    expected = by_hand(tmp_path / "out", normal)
    assert [figures[name] for name in ICBHI_METRICS] == pytest.approx(expected, abs=1e-9)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [written["metrics"][name] for name in ICBHI_METRICS] == pytest.approx(expected, abs=1e-9)
    assert written["classes"] == list(NORMAL_AND_OTHERS)
    confusion = np.array(written["confusion"])
    counts = [(tmp_path / "data" / "test.label").read_text().split().count(name) for name in NORMAL_AND_OTHERS]
    assert confusion.sum(axis=1).tolist() == counts
    assert np.trace(confusion) / confusion.sum() == pytest.approx(figures["accuracy"])
    assert set(ICBHI_METRICS) <= set(task.figure_names) == set(figures) - {"protocol"}


def test_icbhi_metrics_are_left_out_where_no_class_is_normal(corpus):
    task, figures = validated(corpus)
    assert not set(ICBHI_METRICS) & {*figures, *task.figure_names}
    assert {"auc_ovo", "auc_micro", "brier_micro"} <= set(figures)


def test_icbhi_score_without_a_normal_class_is_refused_at_the_start(own_corpus):
    finished = tiny.train(
        "finetuning", "icbhi", "task.data=data", "criterion.class_weights=null", cwd=own_corpus.parent
    )
    assert (
        "checkpoint.best_checkpoint_metric=icbhi_score: it is relative to a class 'normal', which data/dict.label.txt "
        "does not have; name the normal class with task.normal_class; known are loss, loss_classification, accuracy, "
    ) in tiny.one_sentence(finished)
    assert not (own_corpus.parent / "outputs").exists()


def test_a_figure_that_does_not_exist_is_refused(corpus):
    config = OmegaConf.create({"checkpoint": {"best_checkpoint_metric": "acuracy"}})
    with pytest.raises(InputError, match="best_checkpoint_metric=acuracy: there is no such figure; known are loss, "):
        _check_best_metric(config, tiny.build_task(corpus))
    config.checkpoint.best_checkpoint_metric = "auc_micro"
    _check_best_metric(config, tiny.build_task(corpus))


@pytest.mark.slow
def test_from_the_icbhi_folder_to_its_figures(tmp_path):
    """Prepare, pretrain, fine-tune with low-rank tensor fusion, validate: every command as a user gives it."""
    write_icbhi(tmp_path / "ICBHI")
    done = tiny.command("neupronet", "prepare", "icbhi", "--root", "ICBHI", "--out", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = tiny.train("pretraining", "icbhi", "task.data=data", "hydra.run.dir=pretrained", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = tiny.train(
        "finetuning",
        "icbhi",
        *tiny.FROM_EXTRACTOR,
        "model.fusion=tensor",
        "model.fusion_rank=2",
        "hydra.run.dir=trained",
        "optimization.max_update=16",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "best_icbhi_score" in done.stdout
    checkpoint = tmp_path / "trained" / "checkpoints" / "checkpoint_best.pt"
    tiny.fairseq_validate(checkpoint, tmp_path / "data", "--results-path", tmp_path / "results")
    written = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert (written["protocol"], written["clips"]) == ("full", 28)
    assert written["classes"] == ["normal", "crackle", "wheeze", "both"]
    expected = by_hand(tmp_path / "results", "normal")
    assert [written["metrics"][name] for name in ICBHI_METRICS] == pytest.approx(expected, abs=1e-9)
