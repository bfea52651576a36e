"""Writes a report: tables, figures and the page that shows them."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from fairseq_neupronet.benchmark.by_profile import NAME, write_by_profile
from fairseq_neupronet.benchmark.comparison import NOTES, Source, compared_metric, summary_table, write_summary
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file

_DPI = 130
_CAPTIONS = {
    "accuracy_by_protocol": "Mean over folds and seeds; bars: 95 % interval of a bootstrap over profiles, or the "
    "standard deviation over cells where there are no predictions.",
    "accuracy_by_enrolment": "How many other clips of the profile a clip is classified with; shaded: 95 % interval of "
    "a bootstrap over profiles.",
    "confusion": "Sums over folds and seeds.",
    "learning": "A thin line a cell, a thick one their mean.",
    "tsne": "One cell. Above, colours are classes; below, the profiles of most clips.",
}
_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .25rem .8rem; text-align: left; white-space: nowrap; }
thead th { border-top: 2px solid #222; border-bottom: 1px solid #222; }
tbody tr:last-child td { border-bottom: 2px solid #222; }
tbody tr:hover { background: #f2f4f7; }
.wide { overflow-x: auto; }
figure { margin: 2rem 0; }
img { max-width: 100%; height: auto; }
figcaption, .note { color: #555; }
"""
_LATEX = {
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "…": r"\ldots{}",
    "<": "$<$",
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def write_report(
    results: str | Path, out: str | Path, reference: str | None, metrics: list[str], pdf: bool
) -> tuple[list[Path], str]:
    """Make ``tables.md``, ``tables.tex``, ``figures/*.png`` and ``report.html``, and what may be published beside them.

    That is ``summary.csv`` and ``by_profile.csv.gz``, of which the same report can be made without the cells, but for
    learning curves and embeddings.

    Args:
        results: ``results.csv`` of a benchmark, or the ``summary.csv`` of a report.
        out: folder to write.
        reference: the variant that others are compared with; unset: base, or the first.
        metrics: columns of the table; the first is the one that is tested against the reference.
        pdf: also write each figure as pdf.

    Returns:
        The files written, and sentences that name the trained variants whose test against the reference is missing, or
        is of some of their trainings only; empty where there are none.

    Raises:
        InputError: results cannot be read, a metric is unknown, or matplotlib or scikit-learn is missing.
    """
    source = Source.open(results, reference, compared_metric(metrics))
    known = list(dict.fromkeys(metric for row in source.table for metric in row.figures))
    for metric in metrics:
        if metric not in known:
            raise InputError(f"--metrics {metric}: there is no such metric in {results}; known are {', '.join(known)}")
    figures = _figures(source)
    out = Path(out)
    table = summary_table(source.summaries, metrics, source.reference)
    note = " ".join(NOTES.split())
    texts = {"tables.md": f"{markdown(table)}\n{note}\n", "tables.tex": latex(table, note)}
    shown = []
    for name, dataset, figure in figures:
        path = out / "figures" / f"{dataset}_{name}.png".replace("/", "_")
        for kind in (".png", ".pdf") if pdf else (".png",):
            with atomic_file(path.with_suffix(kind), "wb") as file:
                figure.savefig(file, format=kind[1:], dpi=_DPI, bbox_inches="tight")
        caption = next(text for key, text in _CAPTIONS.items() if name.startswith(key))
        shown.append((f"{dataset}: {name.replace('_', ' ')}", caption, path))
    title = f"Benchmark: {', '.join(source.datasets)}"
    texts["report.html"] = html_page(title, note, table, shown, _settings(source))
    for name, text in texts.items():
        with atomic_file(out / name) as file:
            file.write(text)
    # Read in whole before they are written: they may be those that this report is made of.
    write_summary(out / "summary.csv", source.table, source.counts)
    write_by_profile(out / NAME, source.table, source.counts)
    return [*(out / name for name in (*texts, "summary.csv", NAME)), *(path for *_, path in shown)], _untested(source)


def _untested(source: Source) -> str:
    """Which models lack a test that there could be; a control as reference is not there under every protocol."""
    datasets = {key[0] for key in source.rows if key[1] == source.reference}
    missing, partly = {}, {}
    for one in source.summaries:
        dataset, variant, *where = one.row.key
        other = source.rows.get((dataset, source.reference, *where))
        if variant == source.reference or "+" in variant or (other is None and dataset in datasets):
            continue
        if one.comparison is None:
            missing[f"{dataset} {variant}"] = None
        elif one.n_counted < min(len(one.row.trainings), len(other.trainings)):
            partly[f"{dataset} {variant} ({one.n_counted} of {len(one.row.trainings)})"] = None
    sentences = []
    if missing:
        sentences.append(
            f"not tested against {source.reference}: {', '.join(missing)}; a test of {source.metric} takes "
            f"predictions in cells/ or counts in {NAME}, of both in every fold"
        )
    if partly:
        sentences.append(
            f"tested against {source.reference} on those of their trainings whose predictions or counts are there: "
            + ", ".join(partly)
        )
    return "; ".join(sentences)


def _figures(source: Source) -> list[tuple]:
    """Name, data set and figure of all that can be drawn."""
    try:
        from fairseq_neupronet.benchmark.figures import draw_all
    except ImportError as error:
        raise InputError(f"the report's figures need {error.name}; pip install 'fairseq-neupronet[report]'") from error
    return [
        (name, dataset, figure)
        for dataset in source.datasets
        for name, figure in draw_all(source, dataset)
        if figure is not None
    ]


def _settings(source: Source) -> list[tuple[str, str]]:
    trainings, hours, configs = set(), {}, {}
    for row in source.table:
        variant = row.key[0], row.key[1].partition("+")[0]
        trainings |= {(*variant, *training) for training in row.trainings}
        hours[variant] = max(row.hours, hours.get(variant, 0))  # its protocols and controls share its trainings
        configs[" ".join(variant)] = row.config
    return [
        ("version", ", ".join(dict.fromkeys(version for row in source.table for version in row.versions))),
        ("folds", ", ".join(sorted({training[2] for training in trainings}))),
        ("seeds", ", ".join(sorted({training[3] for training in trainings}))),
        ("cells", str(len(trainings))),
        ("hours of all cells", f"{sum(hours.values()):.2f}"),
        *((variant, config) for variant, config in configs.items() if config),
    ]


def html_page(
    title: str,
    note: str,
    table: Sequence[Sequence[str]],
    figures: Sequence[tuple[str, str, Path]],
    settings: Sequence[tuple[str, str]],
) -> str:
    """Write the page.

    Args:
        title: its heading.
        note: what the table's columns mean.
        table: header and rows.
        figures: (heading, caption, png file).
        settings: (name, value) of what made the results.
    """
    shown = []
    for heading, caption, path in figures:
        name, data = html.escape(heading), base64.b64encode(path.read_bytes()).decode("ascii")
        shown.append(f"""<h2>{name}</h2>
<figure>
<img alt="{name}" src="data:image/png;base64,{data}">
<figcaption>{html.escape(caption)}</figcaption>
</figure>
""")
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style></head>
<body>
<h1>{html.escape(title)}</h1>
{_html_table(table[0], table[1:])}
<p class="note">{html.escape(note)}</p>
{"".join(shown)}<h2>What made these results</h2>
{_html_table(("", ""), settings)}
</body></html>
"""


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cells(kind, fields):
        return "".join(f"<{kind}>{html.escape(field)}</{kind}>" for field in fields)

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{cells("th", header)}</tr></thead>\n<tbody>\n{body}\n'
        "</tbody></table></div>"
    )


def markdown(table: Sequence[Sequence[str]]) -> str:
    """Header and rows of text as a Markdown table."""
    lines = [f"| {' | '.join(field.replace('|', '&#124;') for field in row)} |" for row in table]
    return "\n".join([lines[0], "|---" * len(table[0]) + "|", *lines[1:]]) + "\n"


def latex(table: Sequence[Sequence[str]], caption: str) -> str:
    """The same as a LaTeX table with booktabs rules."""

    def row(fields):
        return " & ".join(_escaped(field) for field in fields) + r" \\"

    body = "\n".join(map(row, table[1:]))
    return rf"""\begin{{table}}
\centering
\caption{{{_escaped(caption)}}}
\begin{{tabular}}{{{"l" * len(table[0])}}}
\toprule
{row(table[0])}
\midrule
{body}
\bottomrule
\end{{tabular}}
\end{{table}}
"""


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
