"""neupronet report: tables, figures and page, from made-up cells."""

import base64
import re
import subprocess
import sys

import numpy as np
import pytest
import tiny
import written_cells
from sklearn.metrics import f1_score

from fairseq_neupronet.benchmarking.comparison import compared_metric, summaries, summary_table
from fairseq_neupronet.cli import main

pytest.importorskip("matplotlib")

VARIANTS = {"base": 0.0, "base+majority_vote": 0.02, "dot": 0.25}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return written_cells.write_cells(tmp_path_factory.mktemp("cells"), VARIANTS, n_profiles=8, clips=8)


@pytest.fixture(scope="module")
def report(results):
    out = results.parent / "report"
    assert main(["report", str(results), "--out", str(out), "--metrics", "accuracy"]) == 0
    return out


def right(folder, variant, fold, seed, protocol):
    model, _, control = variant.partition("+")
    path = folder / "cells" / "sounds" / model / f"fold-{fold}" / f"seed-{seed}" / "evaluation" / "test"
    lines = (path / (f"{protocol}+{control}" if control else protocol) / "predictions.tsv").read_text().splitlines()
    fields = [line.split("\t") for line in lines[1:]]
    return {(fold, path): (profile, target == predicted) for path, profile, target, predicted, *_ in fields}


@pytest.mark.parametrize("variant", ["dot", "base+majority_vote"])
def test_a_summary_equals_a_plain_loop_over_the_predictions(results, variant):
    """Seeds are averaged for each clip, clips of all folds are paired, 16 profiles cluster them."""
    summary = next(one for one in summaries(results, "base") if one.key == ("sounds", variant, "test", "full"))
    accuracies, gains, profiles = [], [], set()
    for fold in (1, 2):
        ours = [right(results.parent, variant, fold, seed, "full") for seed in (1, 2)]
        theirs = [right(results.parent, "base", fold, seed, "full") for seed in (1, 2)]
        accuracies += [np.mean([correct for _, correct in cell.values()]) for cell in ours]
        for clip, (profile, _) in ours[0].items():
            gains.append(np.mean([cell[clip][1] for cell in ours]) - np.mean([cell[clip][1] for cell in theirs]))
            profiles.add(profile)
    assert summary.figures["accuracy"] == pytest.approx((np.mean(accuracies), np.std(accuracies, ddof=1)))
    assert summary.comparison.difference == pytest.approx(np.mean(gains))
    assert (summary.comparison.clips, summary.comparison.profiles) == (len(gains), len(profiles))
    assert summary.comparison.exact
    assert summary.comparison.low < summary.comparison.difference < summary.comparison.high


def test_the_first_metric_is_the_tested_one(results):
    """Of macro F1, the difference is that of the means over folds and seeds, which the table prints."""
    means = {}
    for variant in ("base", "dot"):
        found = []
        for path in (results.parent / "cells" / "sounds" / variant).glob("*/*/evaluation/test/full/predictions.tsv"):
            lines = [line.split("\t") for line in path.read_text().splitlines()[1:]]
            found.append(f1_score([line[2] for line in lines], [line[3] for line in lines], average="macro"))
        means[variant] = np.mean(found)
    found = summaries(results, "base", compared_metric(["macro_f1", "accuracy"]))
    summary = next(one for one in found if one.key == ("sounds", "dot", "test", "full"))
    assert summary.comparison.difference == pytest.approx(means["dot"] - means["base"])
    assert "macro_f1 − base" in summary_table(found, ["macro_f1"], "base")[0]
    assert "accuracy − base" in summary_table(found, ["auc", "macro_f1"], "base")[0]


def test_the_tables_hold_every_row_in_markdown_and_latex(report):
    markdown, latex = (report / "tables.md").read_text(), (report / "tables.tex").read_text()
    rows = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(VARIANTS) * len(written_cells.PROTOCOLS)
    assert len({line.count("|") for line in rows}) == 1
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")]
    assert body.count(r"\\") == len(rows) - 1
    assert r"base+majority\_vote" in body
    assert not re.search(r"(?<!\\)[_%]", body)


def test_every_figure_is_there_and_not_blank(report):
    from matplotlib.image import imread

    names = {path.stem for path in (report / "figures").iterdir()}
    assert names == {f"sounds_{name}" for name in (
        "accuracy_by_protocol", "accuracy_by_enrolment", "gain_by_profile_size", "confusion", "learning_curves",
        "tsne_base", "tsne_dot", "attention_dot",
    )}  # fmt: skip
    for path in (report / "figures").iterdir():
        assert imread(path)[..., :3].std() > 0.02, path


def test_the_page_holds_every_figure_and_asks_for_nothing_else(report):
    page = (report / "report.html").read_text()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    stored = {path.read_bytes() for path in (report / "figures").iterdir()}
    assert {base64.b64decode(image) for image in images} == stored
    assert not re.search(r"https?://|<script|<link|url\(", page)


def test_without_predictions_the_means_remain(tmp_path):
    results = written_cells.write_cells(tmp_path, VARIANTS, n_profiles=4, clips=6, embeddings=False)
    for path in tmp_path.rglob("predictions.tsv"):
        path.unlink()
    assert all(one.comparison is None for one in summaries(results, "base"))
    assert main(["report", str(results), "--out", str(tmp_path / "report"), "--metrics", "accuracy"]) == 0
    assert "dot" in (tmp_path / "report" / "tables.md").read_text()


def test_attention_weights_equal_a_softmax_by_torch():
    import torch

    from fairseq_neupronet.reporting.embedding_figures import attention_weights

    clip, profile = np.random.default_rng(0).normal(size=(2, 5, 3))
    expected = torch.softmax(torch.tensor(clip) @ torch.tensor(profile).T / 2.5, dim=1)
    assert attention_weights(clip, profile, 2.5) == pytest.approx(expected.numpy())


def test_learning_curves_are_those_of_the_log(tmp_path):
    from fairseq_neupronet.reporting.learning_curves import read_curves

    (tmp_path / "log.txt").write_text(written_cells.LOG, encoding="utf-8")
    curves = read_curves(tmp_path / "log.txt")
    assert curves["train", "loss"] == {1: 0.9, 2: 0.5}
    assert curves["valid", "accuracy"] == {1: 0.4, 2: 0.7}


def test_profiles_of_many_sizes_are_put_in_ranges_that_hold_them_all():
    from fairseq_neupronet.reporting.figures import _size_classes

    sizes = np.random.default_rng(0).integers(1, 60, 200)
    ranges = _size_classes(sizes)
    assert 1 < len(ranges) <= 6
    assert all(sum(low <= size <= high for low, high in ranges) == 1 for size in sizes)
    assert _size_classes(np.array([6, 6, 5])) == [(5, 5), (6, 6)]


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        (None, (), "cannot be read"),
        ("a,b\n1,2\n", (), "has no column"),
        (",".join(written_cells.COLUMNS) + "\n", (), "has no rows"),
        ("real", ("--reference", "bass"), "there is no such variant"),
        ("real", ("--metrics", "acuracy"), "there is no such metric"),
    ],
)
def test_a_mistake_is_one_sentence(results, tmp_path, capsys, content, options, sentence):
    path = tmp_path / "results.csv"
    if content == "real":
        path = results
    elif content is not None:
        path.write_text(content)
    assert main(["report", str(path), "--out", str(tmp_path / "out"), *options]) == 1
    error = capsys.readouterr().err
    assert sentence in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_one_sentence_says_what_to_install(results, tmp_path):
    code = ("import sys; sys.modules['matplotlib'] = None; from fairseq_neupronet.cli import main;"
            "sys.exit(main(sys.argv[1:]))")  # fmt: skip
    finished = subprocess.run(
        [sys.executable, "-c", code, "report", results, "--out", tmp_path / "out", "--metrics", "accuracy"],
        env=tiny.environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert "pip install 'fairseq-neupronet[report]'" in tiny.one_sentence(finished)
    assert not (tmp_path / "out").exists()
