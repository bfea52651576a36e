"""Writes a report: tables, figures and the page that shows them."""

from pathlib import Path

from fairseq_neupronet.benchmark.comparison import NOTES, compared_metric, summary_table
from fairseq_neupronet.benchmark.page import html_page
from fairseq_neupronet.benchmark.source import Source
from fairseq_neupronet.benchmark.tables import latex, markdown
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file

_DPI = 130
_CAPTIONS = {
    "accuracy_by_protocol": "Mean over folds and seeds; bars: 95 % interval of a bootstrap over profiles, or the "
    "standard deviation over cells where there are no predictions.",
    "accuracy_by_enrolment": "How many other clips of the profile a clip is classified with; shaded: 95 % interval of "
    "a bootstrap over profiles.",
    "gain_by_profile_size": "Profiles grouped by their clips; bars: 95 % interval of a bootstrap over profiles.",
    "confusion": "Sums over folds and seeds.",
    "learning": "A thin line a cell, a thick one their mean.",
    "tsne": "One cell. Above, colours are classes; below, the profiles of most clips.",
    "attention": "One cell: how much each clip (row) takes from the clips of its profile (columns), ordered by class.",
}


def write_report(
    results: str | Path, out: str | Path, reference: str | None, metrics: list[str], pdf: bool
) -> tuple[list[Path], str]:
    """Make ``tables.md``, ``tables.tex``, ``figures/*.png`` and ``report.html``.

    Args:
        results: ``results.csv`` of a benchmark.
        out: folder to write.
        reference: the variant that others are compared with; unset: base, or the first.
        metrics: columns of the table; the first is the one that is tested against the reference.
        pdf: also write each figure as pdf.

    Returns:
        The files written, and a sentence that names the trained variants whose test against the reference is missing;
        empty where there is none.

    Raises:
        InputError: results cannot be read, a metric is unknown, or matplotlib or scikit-learn is missing.
    """
    source = Source.open(results, reference, compared_metric(metrics))
    known = list(dict.fromkeys(row["metric"] for row in source.rows))
    for metric in metrics:
        if metric not in known:
            raise InputError(f"--metrics {metric}: there is no such metric in {results}; known are {', '.join(known)}")
    figures = _figures(source)
    out = Path(out)
    table = summary_table(source.summaries, metrics, source.reference)
    note = " ".join(NOTES.split())
    written = [out / "tables.md", out / "tables.tex", out / "report.html"]
    with atomic_file(written[0]) as file:
        file.write(f"{markdown(table)}\n{note}\n")
    with atomic_file(written[1]) as file:
        file.write(latex(table, note))
    shown = []
    for name, dataset, figure in figures:
        path = out / "figures" / f"{dataset}_{name}.png".replace("/", "_")
        for kind in (".png", ".pdf") if pdf else (".png",):
            with atomic_file(path.with_suffix(kind), "wb") as file:
                figure.savefig(file, format=kind[1:], dpi=_DPI, bbox_inches="tight")
        _close(figure)
        written.append(path)
        caption = next(text for key, text in _CAPTIONS.items() if name.startswith(key))
        shown.append((f"{dataset}: {name.replace('_', ' ')}", caption, path))
    with atomic_file(written[2]) as file:
        file.write(html_page(f"Benchmark: {', '.join(source.datasets)}", note, table, shown, _settings(source)))
    return written, _untested(source)


def _untested(source: Source) -> str:
    """Which models lack a test that there could be; a control as reference is not there under every protocol."""
    references = [one for one in source.summaries if one.variant == source.reference]
    datasets = {one.dataset for one in references}
    rows = {(one.dataset, one.subset, one.protocol) for one in references}
    missing = dict.fromkeys(
        f"{one.dataset} {one.variant}"
        for one in source.summaries
        if one.comparison is None
        and one.variant != source.reference
        and "+" not in one.variant
        and (one.dataset not in datasets or (one.dataset, one.subset, one.protocol) in rows)
    )
    if not missing:
        return ""
    return (
        f"not tested against {source.reference}: {', '.join(missing)}; a test of {source.metric} takes the "
        "predictions of every cell of both in cells/, or for accuracy the counts of every cell in by_profile.csv"
    )


def _figures(source: Source) -> list:
    try:
        import matplotlib
        import sklearn  # noqa: F401
    except ImportError as error:
        raise InputError(f"the report's figures need {error.name}; pip install 'fairseq-neupronet[report]'") from error
    from fairseq_neupronet.benchmark.embedding_figures import figures_of_embeddings
    from fairseq_neupronet.benchmark.figures import FIGURES
    from fairseq_neupronet.benchmark.learning_curves import learning_curves

    # All are drawn before anything is written, so that many are open at once.
    matplotlib.rcParams["figure.max_open_warning"] = 0
    found = []
    for dataset in source.datasets:
        drawn = [(name, draw(source, dataset)) for name, draw in FIGURES.items()]
        drawn += [("learning_curves", learning_curves(source, dataset)), *figures_of_embeddings(source, dataset)]
        found += [(name, dataset, figure) for name, figure in drawn if figure is not None]
    return found


def _close(figure) -> None:
    from matplotlib import pyplot as plt

    plt.close(figure)


def _settings(source: Source) -> list[tuple[str, str]]:
    def distinct(column):
        return ", ".join(dict.fromkeys(row[column] for row in source.rows))

    seconds = {
        (row["dataset"], row["variant"].split("+")[0], row["fold"], row["seed"]): float(row["seconds"] or 0)
        for row in source.rows
    }
    return [
        ("version", distinct("version")),
        ("folds", distinct("fold")),
        ("seeds", distinct("seed")),
        ("cells", str(len(seconds))),
        ("hours of all cells", f"{sum(seconds.values()) / 3600:.2f}"),
    ]
