"""One HTML page that needs nothing else: style and figures are in it."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

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
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        '<head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{_STYLE}</style></head>",
        "<body>",
        f"<h1>{html.escape(title)}</h1>",
        _table(table[0], table[1:]),
        f'<p class="note">{html.escape(note)}</p>',
    ]
    for heading, caption, path in figures:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        parts += [
            f"<h2>{html.escape(heading)}</h2>",
            "<figure>",
            f'<img alt="{html.escape(heading)}" src="data:image/png;base64,{data}">',
            f"<figcaption>{html.escape(caption)}</figcaption>",
            "</figure>",
        ]
    parts += ["<h2>What made these results</h2>", _table(("", ""), settings), "</body></html>"]
    return "\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cells(kind, fields):
        return "".join(f"<{kind}>{html.escape(field)}</{kind}>" for field in fields)

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{cells("th", header)}</tr></thead>\n<tbody>\n{body}\n'
        "</tbody></table></div>"
    )
