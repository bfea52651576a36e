"""neupronet report: tables, figures and page, from made-up cells."""

import base64
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny
import written_cells
from sklearn.metrics import f1_score

from fairseq_neupronet.benchmark.by_profile import ProfileCounts
from fairseq_neupronet.benchmark.comparison import Summary, compared_metric, summaries, summary_table
from fairseq_neupronet.benchmark.results import read_table
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


def compared(results, *options) -> list[Summary]:
    """The summaries of a table's rows."""
    return summaries(read_table(results), ProfileCounts(results), *options)


def right(folder, variant, fold, seed, protocol):
    model, _, control = variant.partition("+")
    path = folder / "cells" / "sounds" / model / f"fold-{fold}" / f"seed-{seed}" / "evaluation" / "test"
    lines = (path / (f"{protocol}+{control}" if control else protocol) / "predictions.tsv").read_text().splitlines()
    fields = [line.split("\t") for line in lines[1:]]
    return {(fold, path): (profile, target == predicted) for path, profile, target, predicted, *_ in fields}


@pytest.mark.parametrize("variant", ["dot", "base+majority_vote"])
def test_a_summary_equals_a_plain_loop_over_the_predictions(results, variant):
    """Seeds are averaged for each clip, clips of all folds are paired, 16 profiles cluster them."""
    summary = next(one for one in compared(results, "base") if one.row.key == ("sounds", variant, "test", "full"))
    accuracies, gains, profiles = [], [], set()
    for fold in (1, 2):
        ours = [right(results.parent, variant, fold, seed, "full") for seed in (1, 2)]
        theirs = [right(results.parent, "base", fold, seed, "full") for seed in (1, 2)]
        accuracies += [np.mean([correct for _, correct in cell.values()]) for cell in ours]
        for clip, (profile, _) in ours[0].items():
            gains.append(np.mean([cell[clip][1] for cell in ours]) - np.mean([cell[clip][1] for cell in theirs]))
            profiles.add(profile)
    assert summary.row.figures["accuracy"] == pytest.approx((np.mean(accuracies), np.std(accuracies, ddof=1)))
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
    found = compared(results, "base", compared_metric(["macro_f1", "accuracy"]))
    summary = next(one for one in found if one.row.key == ("sounds", "dot", "test", "full"))
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
    assert names == {
        f"sounds_{name}"
        for name in (
            "accuracy_by_protocol",
            "accuracy_by_enrolment",
            "confusion",
            "learning_curves",
            "tsne_base",
            "tsne_dot",
        )
    }
    for path in (report / "figures").iterdir():
        assert imread(path)[..., :3].std() > 0.02, path


def test_the_page_holds_every_figure_and_asks_for_nothing_else(report):
    page = (report / "report.html").read_text()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    stored = {path.read_bytes() for path in (report / "figures").iterdir()}
    assert {base64.b64decode(image) for image in images} == stored
    assert not re.search(r"https?://|<script|<link|url\(", page)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_report_of_what_is_published_is_that_of_the_cells(tmp_path, metric):
    """``summary.csv`` and ``by_profile.csv.gz`` by themselves, and what that report writes of them in turn."""
    results = written_cells.write_cells(tmp_path / "out", VARIANTS, n_profiles=6, clips=8, embeddings=False)
    table = results.read_text()
    results.write_text(table + table.partition("\n")[2].replace(",accuracy,", ",macro_f1,"))
    options, published = ["--metrics", metric, "--reference", "base"], tmp_path / "published"
    assert main(["report", str(results), "--out", str(tmp_path / "first"), *options]) == 0
    published.mkdir()
    for name in ("summary.csv", "by_profile.csv.gz"):
        shutil.copy(tmp_path / "first" / name, published)
    assert main(["report", str(published / "summary.csv"), "--out", str(tmp_path / "second"), *options]) == 0
    for name in ("tables.md", "tables.tex", "summary.csv", "by_profile.csv.gz"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes(), name
    tests = [line for line in (tmp_path / "second" / "tables.md").read_text().splitlines() if " … " in line]
    assert len(tests) == 2 * len(written_cells.PROTOCOLS) and all("| dot |" in one or "+maj" in one for one in tests)
    figures = {path.name for path in (tmp_path / "second" / "figures").iterdir()}
    first = {path.name for path in (tmp_path / "first" / "figures").iterdir()}
    assert first - figures == {"sounds_learning_curves.png"} and figures < first


def test_without_predictions_the_means_remain(tmp_path, capsys):
    results = written_cells.write_cells(tmp_path, VARIANTS, n_profiles=4, clips=6, embeddings=False)
    for path in tmp_path.rglob("predictions.tsv"):
        path.unlink()
    assert all(one.comparison is None for one in compared(results, "base"))
    assert main(["report", str(results), "--out", str(tmp_path / "report"), "--metrics", "accuracy"]) == 0
    assert "neupronet: not tested against base: sounds dot; a test of accuracy takes" in capsys.readouterr().err
    assert "dot" in (tmp_path / "report" / "tables.md").read_text()


def test_what_a_control_has_not_under_single_is_not_said_to_lack_its_test(tmp_path, capsys):
    results = written_cells.write_cells(
        tmp_path, {"dot": 0.2, "dot+shuffled_profiles": 0.0}, n_profiles=4, clips=6, embeddings=False
    )
    table = results.read_text()
    results.write_text(re.sub(r".*\+shuffled_profiles,\d,\d,test,single,.*\n", "", table))
    assert len(results.read_text()) < len(table)
    options = ["--reference", "dot+shuffled_profiles", "--metrics", "accuracy"]
    assert main(["report", str(results), "--out", str(tmp_path / "report"), *options]) == 0
    assert "not tested" not in capsys.readouterr().err
    assert re.search(r"\| dot \| full \|.*\+0\.\d+ … \+0\.", (tmp_path / "report" / "tables.md").read_text())


def test_learning_curves_are_those_of_the_training_table(results):
    """Of an epoch with two validations the last."""
    from fairseq_neupronet.benchmark.comparison import Source
    from fairseq_neupronet.benchmark.figures import curves, learning_curves

    source = Source.open(results)
    cells = list(curves(source, "sounds", "dot"))
    assert (
        cells
        == [
            {
                "train_loss": {1: 0.9, 2: 0.5},
                "valid_loss": {1: 0.8, 2: 0.6},
                "valid_accuracy": {1: 0.4, 2: 0.7},
            }
        ]
        * 2
        * 2
    )
    figure = learning_curves(source, "sounds")
    mean = next(line for line in figure.axes[1].lines if line.get_label() == "dot")
    assert np.array(mean.get_data()).T.tolist() == [[1, 0.8], [2, 0.6]]


def table_of(out, cells, protocols=("full",), accuracy=None, sizes=lambda fold: (6, 6, 6, 6)):
    """A results.csv and predictions of (variant, fold, seed); in each profile every third clip or so is wrong."""
    lines = [",".join(written_cells.COLUMNS)]
    for number, (variant, fold, seed) in enumerate(cells):
        rng = np.random.default_rng(number)
        for protocol in protocols:
            folder = out / "cells" / "sounds" / variant / f"fold-{fold}" / f"seed-{seed}/evaluation/test/{protocol}"
            folder.mkdir(parents=True)
            rows = ["path\tprofile\ttarget\tprediction\ta\tb"]
            for profile, n_clips in enumerate(sizes(fold)):
                for clip in range(n_clips):
                    right = rng.random() < (accuracy(fold) if accuracy else 0.7)
                    target = clip % 2
                    rows.append(
                        f"{fold}-{profile}-{clip}\tf{fold}p{profile}\t{'ab'[target]}\t"
                        f"{'ab'[target if right else 1 - target]}\t0\t0"
                    )
            (folder / "predictions.tsv").write_text("\n".join(rows) + "\n")
            share = np.mean([row.split("\t")[2] == row.split("\t")[3] for row in rows[1:]])
            for metric in ("accuracy", "macro_f1", "icbhi_score"):
                lines.append(f"sounds,{variant},{fold},{seed},test,{protocol},{metric},{share},abc,0.1.0,")
    (out / "results.csv").write_text("\n".join(lines) + "\n")
    return out / "results.csv"


@pytest.mark.parametrize(
    "cells", [[("base", 1, 1), ("dot", 2, 1)], [("base", 1, 1), ("dot", 1, 2)]], ids=["other fold", "other seed"]
)
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_table_that_is_not_complete_has_a_report(tmp_path, cells, metric):
    results = table_of(tmp_path, cells)
    assert main(["report", str(results), "--out", str(tmp_path / "report"), "--metrics", metric]) == 0
    if metric == "macro_f1":
        assert all(one.comparison is None for one in compared(results, "base", "macro_f1"))


def test_a_difference_that_is_not_defined_is_not_significant(tmp_path):
    """No clip of the normal class among the targets, so that there is no specificity."""
    results = table_of(tmp_path, [("base", 1, 1), ("dot", 1, 1)])
    for path in tmp_path.rglob("predictions.tsv"):
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        renamed = [
            [*row[:2], "wheeze" if number else row[2], "normal" if number % 2 else row[3], *row[4:]]
            for number, row in enumerate(rows)
        ]
        path.write_text("\n".join("\t".join(row) for row in renamed) + "\n")
    assert all(one.comparison is None for one in compared(results, "base", "icbhi_score"))


def drawn(figure) -> dict[str, np.ndarray]:
    """Label → (x, y) of each labelled line of the first axes."""
    lines = figure.axes[0].lines
    return {line.get_label(): np.array(line.get_data()).T for line in lines if not line.get_label().startswith("_")}


def bars(figure) -> list[tuple[float, float]]:
    """Low and high of each interval, in the order of drawing."""
    from matplotlib.collections import LineCollection

    found = [part for part in figure.axes[0].collections if isinstance(part, LineCollection)]
    return [(segment[0][1], segment[1][1]) for part in found for segment in part.get_segments()]


def test_an_interval_is_drawn_where_it_is_even_if_the_point_is_not_in_it(tmp_path):
    """Folds of 20 clips at about .2 and of 1,000 at about .9: their mean is far from that of all clips."""
    from fairseq_neupronet.benchmark.comparison import Source
    from fairseq_neupronet.benchmark.figures import accuracy_by_protocol
    from fairseq_neupronet.benchmark.statistics import bootstrap_interval

    results = table_of(
        tmp_path,
        [("base", 1, 1), ("base", 2, 1)],
        accuracy=lambda fold: 0.2 if fold == 1 else 0.9,
        sizes=lambda fold: [5] * 4 if fold == 1 else [100] * 10,
    )
    figure = accuracy_by_protocol(Source.open(results), "sounds")
    sums, counts = [], []
    for fold in (1, 2):
        by_profile = {}
        for profile, correct in right(tmp_path, "base", fold, 1, "full").values():
            by_profile.setdefault(profile, []).append(correct)
        sums += [sum(found) for found in by_profile.values()]
        counts += [len(found) for found in by_profile.values()]
    low, high = bootstrap_interval(np.array(sums, float), np.array(counts))
    assert drawn(figure)["base"][0, 1] < low
    assert bars(figure)[0] == pytest.approx((low, high))


def test_every_variant_has_its_confusion_matrix(tmp_path):
    from fairseq_neupronet.benchmark.comparison import Source
    from fairseq_neupronet.benchmark.figures import confusion

    variants = {"base": 0.0} | {f"v{number}": 0.1 for number in range(10)}
    results = written_cells.write_cells(tmp_path, variants, n_profiles=3, clips=6, folds=(1,), seeds=(1,))
    figure = confusion(Source.open(results), "sounds")
    assert {panel.get_title() for panel in figure.axes if panel.get_title()} == set(variants)


def test_embeddings_without_predictions_are_one_sentence(tmp_path, capsys):
    results = written_cells.write_cells(tmp_path, {"base": 0.0, "dot": 0.1}, n_profiles=3, clips=6)
    for path in tmp_path.rglob("predictions.tsv"):
        path.unlink()
    assert main(["report", str(results), "--out", str(tmp_path / "out"), "--metrics", "accuracy"]) == 1
    assert "predictions.tsv: cannot be read" in capsys.readouterr().err


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
    code = (
        "import sys; sys.modules['matplotlib'] = None; from fairseq_neupronet.cli import main;"
        "sys.exit(main(sys.argv[1:]))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, "report", results, "--out", tmp_path / "out", "--metrics", "accuracy"],
        env=tiny.environment(),
        capture_output=True,
        text=True,
    )
    assert "pip install 'fairseq-neupronet[report]'" in tiny.one_sentence(finished)
    assert not (tmp_path / "out").exists()
