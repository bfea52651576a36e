"""``neupronet bench``: time and memory against yardsticks, measured by ``scripts/bench`` of a checkout."""

import argparse
import sys
from pathlib import Path

from fairseq_neupronet.errors import InputError


def add_parser(subparsers) -> None:
    """Add ``bench``."""
    parser = subparsers.add_parser("bench", help="measure time and memory against yardsticks (from a checkout)")
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
    parser.set_defaults(run=_run)


def scripts_folder(package: Path) -> Path:
    """The folder that holds the benchmark, beside the package's own in a checkout.

    Raises:
        InputError: the package was installed without one.
    """
    scripts = package.parent / "scripts"
    if not (scripts / "bench" / "command.py").is_file():
        raise InputError(
            f"{scripts / 'bench'}: the benchmark is no part of an installed package; clone the repository "
            "and install it with pip install -e ."
        )
    return scripts


def _run(arguments: argparse.Namespace) -> None:
    sys.path.insert(0, str(scripts_folder(Path(__file__).resolve().parents[1])))
    from bench import command

    command.run(
        arguments.quick,
        arguments.only,
        arguments.list,
        arguments.json,
        arguments.vocalsound,
        arguments.audio,
        arguments.device,
    )
