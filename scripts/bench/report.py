"""The table that is printed, and the JSON file."""

import json

from fairseq_neupronet.files import atomic_file

_HEADER = ("row", "ours", "yardstick", "unit", "ratio", "wanted", "runs", "peak MiB")


def table(rows: list[dict]) -> str:
    """A Markdown table, its columns aligned. Peaks are of our process and of the yardstick's."""
    lines = [_HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([text[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *text[1:]])


def _cells(row: dict) -> tuple[str, ...]:
    if "not_measured" in row:
        return (row["name"], f"not measured: {row['not_measured']}", *[""] * (len(_HEADER) - 2))
    wanted = f"{row['wanted']}: {'met' if row['met'] else 'NOT MET'}" if "wanted" in row else ""
    peaks = [f"{row[key]:.0f}" for key in ("ours_peak_mib", "yardstick_peak_mib") if row[key] is not None]
    return (
        row["name"],
        _number(row["ours"]),
        _number(row["yardstick"]),
        row["unit"],
        _number(row["ratio"]),
        wanted,
        str(row["runs"]),
        ", ".join(peaks),
    )


def _number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return ""
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    decimals = max(0, 3 - len(str(int(abs(value)))))
    return f"{value:.{decimals + (abs(value) < 1)}f}"


def describe_machine(machine: dict) -> str:
    """One line of what is known."""
    return ", ".join(f"{name} {value}" for name, value in machine.items() if value is not None)


def write_json(path, machine: dict, rows: list[dict]) -> None:
    """The whole result.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_file(path) as stream:
        json.dump({"machine": machine, "rows": rows}, stream, indent=1, allow_nan=False)
        stream.write("\n")
