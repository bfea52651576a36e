"""What ``python scripts/bench`` does: reads its arguments, measures, prints the table."""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from bench.child import load_catalogue
from bench.comparison import Comparison, Options
from bench.machine import describe
from bench.memory import STATUS
from bench.report import describe_machine, table, write_json
from bench.runner import measure_all
from fairseq_neupronet.errors import InputError

CATALOGUE = "bench.catalogue"


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        argv: the arguments; None takes the process's own.

    Returns:
        Exit code: 0, or 1 after one sentence on stderr about a user's mistake. Other errors propagate.
    """
    parser = argparse.ArgumentParser(
        prog="python scripts/bench", description="measure time and memory against yardsticks"
    )
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer runs, in under two minutes")
    parser.add_argument("--json", metavar="FILE", help="also write machine and rows to FILE")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="measure these rows only")
    parser.add_argument("--list", action="store_true", help="list the rows instead of measuring them")
    parser.add_argument("--vocalsound", metavar="DIR", help="VocalSound-1s, prepared with 128 mel bands")
    parser.add_argument("--audio", metavar="DIR", help="a folder of audio to measure preparation on")
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where the training steps, pooling and contrastive rows run (default: cpu)",
    )
    given = parser.parse_args(argv)
    try:
        run(given.quick, given.only, given.list, given.json, given.vocalsound, given.audio, given.device)
    except InputError as error:
        print(f"bench: error: {error}", file=sys.stderr)
        return 1
    return 0


def run(
    quick: bool = False,
    only: list[str] | None = None,
    listing: bool = False,
    json_path: str | None = None,
    vocalsound: str | None = None,
    audio: str | None = None,
    device: str = "cpu",
    module: str = CATALOGUE,
) -> None:
    """Measure, print the table, write the JSON file.

    Args:
        quick: smaller sizes, fewer runs.
        only: names of comparisons; None for all.
        listing: print the names instead of measuring.
        json_path: the file to write; None for none.
        vocalsound: folder of VocalSound-1s, prepared.
        audio: folder of audio files.
        device: ``cpu`` or ``cuda``.
        module: of the catalogue.

    Raises:
        InputError: an unknown row, an unusable folder, file or device, a crashed child, Ctrl-C.
    """
    if not STATUS.exists():
        raise InputError("the benchmark reads memory from /proc, which this system lacks; run it on Linux")
    if json_path is not None:
        _check_writable(Path(json_path))
    if device != "cpu":
        _check_gpu(device)
    with tempfile.TemporaryDirectory(prefix="neupronet-bench-") as scratch:
        folders = [Path(given).resolve() if given else None for given in (vocalsound, audio)]
        for option, folder in zip(("--vocalsound", "--audio"), folders, strict=True):
            if folder and not folder.is_dir():
                raise InputError(f"{option} {folder}: no such folder; correct the path")
        options = Options(Path(scratch), quick, *folders, device)
        comparisons = _chosen(load_catalogue(module, options), only)
        if listing:
            _list(comparisons)
            return
        # A plain kill, too, has to end the children and remove the files.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            machine = describe()
            print(describe_machine(machine), flush=True)
            rows = measure_all(module, comparisons, options, lambda text: print(text, file=sys.stderr, flush=True))
        except KeyboardInterrupt:
            raise InputError("the benchmark was interrupted; its processes are ended and nothing was written") from None
        finally:
            signal.signal(signal.SIGTERM, before)
    print(table(rows))
    if json_path is not None:
        write_json(json_path, machine, rows)


def _chosen(comparisons: list[Comparison], only: list[str] | None) -> list[Comparison]:
    names = [comparison.name for comparison in comparisons]
    unknown = [name for name in only or () if name not in names]
    if unknown:
        raise InputError(f"--only {' '.join(unknown)}: no such row; the rows are {', '.join(names)}")
    return [comparison for comparison in comparisons if not only or comparison.name in only]


def _list(comparisons: list[Comparison]) -> None:
    for comparison in comparisons:
        for figure in comparison.figures:
            wanted = f", wanted: {figure.wanted}" if figure.wanted else ""
            lacks = f", not measured: {comparison.lacks}" if comparison.lacks else ""
            print(f"{comparison.name}: {figure.name}, {figure.unit}{wanted}{lacks}")


def _check_gpu(device: str) -> None:
    import torch

    if not torch.cuda.is_available():
        raise InputError(f"--device {device}: torch finds no GPU here; leave it out to measure on the CPU")


def _check_writable(path: Path) -> None:
    """Now, not after the minutes that the measuring takes."""
    folder = next(parent for parent in path.resolve().parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"--json {path}: cannot be written; give a file in a folder that you may write to")
