"""The summary as a paper prints it: Markdown and LaTeX."""

from collections.abc import Sequence

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


def markdown(table: Sequence[Sequence[str]]) -> str:
    """Header and rows of text as a Markdown table."""
    lines = [f"| {' | '.join(field.replace('|', '&#124;') for field in row)} |" for row in table]
    return "\n".join([lines[0], "|---" * len(table[0]) + "|", *lines[1:]]) + "\n"


def latex(table: Sequence[Sequence[str]], caption: str) -> str:
    """The same as a LaTeX table with booktabs rules."""

    def row(fields):
        return " & ".join(_escaped(field) for field in fields) + r" \\"

    columns = "l" * len(table[0])
    return (
        "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_escaped(caption)}}}",
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                row(table[0]),
                r"\midrule",
                *(row(fields) for fields in table[1:]),
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )
        + "\n"
    )


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
