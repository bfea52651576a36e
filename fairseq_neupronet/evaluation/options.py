"""The options of ``neupronet evaluate`` beside what it evaluates and where it writes."""

import argparse
from collections.abc import Iterable

from fairseq_neupronet.errors import InputError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add them to a parser."""
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="of enrol-N's draw and of shuffled profiles (default: the checkpoint's protocol_seed)",
    )
    parser.add_argument("--batch-size", type=int, default=128, metavar="N", help="clips (default: %(default)s)")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that read; 0: none beside this one (default: %(default)s)",
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 … (default: cuda if there is one)")
    parser.add_argument("--embeddings", action="store_true", help="also write embeddings.npz")
    parser.add_argument("--no-controls", action="store_true", help="the model's own figures only")
    parser.add_argument(
        "--adaptive-batch-norm",
        type=float,
        metavar="CLIPS",
        help="batch-normalise each clip by its group, as task.adaptive_batch_norm=CLIPS does (default: "
        "as the checkpoint says)",
    )
    parser.add_argument("--user-dir", metavar="DIR", help="plugin with backbones of your own, as fairseq's --user-dir")
    parser.add_argument(
        "--force", action="store_true", help="write over an earlier evaluation in --out; its other folders stay"
    )


def check_numbers(seed: int | None, batch_size: int, workers: int) -> None:
    """Refuse numbers out of range.

    Raises:
        InputError: naming the option.
    """
    if batch_size < 1:
        raise InputError(f"--batch-size {batch_size}: give a whole number from 1 up")
    if workers < 0:
        raise InputError(f"--workers {workers}: give a whole number from 0 up")
    if seed is not None and seed < 0:
        raise InputError(f"--seed {seed}: give a whole number from 0 up")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise InputError(f"{message}; neupronet evaluate --help tells the options")


def parse_options(given: Iterable[str]) -> argparse.Namespace:
    """Parse options that stand in a config.

    Raises:
        InputError: an option that there is not, or a value that does not fit it.
    """
    parser = _Parser(add_help=False)
    add_options(parser)
    options = parser.parse_args(list(given))
    check_numbers(options.seed, options.batch_size, options.workers)
    return options
