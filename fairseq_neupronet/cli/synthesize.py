"""``neupronet synthesize``: a small world of synthetic sound."""

import argparse


def add_parser(subparsers) -> None:
    """Add ``synthesize``."""
    parser = subparsers.add_parser("synthesize", help="make a small corpus of synthetic sound, for demo and tests")
    parser.add_argument("out", metavar="OUT", help="output folder")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same files (default: %(default)s)")
    parser.add_argument("--profiles", type=int, default=30, metavar="N", help="sources (default: %(default)s)")
    parser.add_argument(
        "--clips-per-class",
        type=int,
        default=5,
        metavar="N",
        help="clips of each class per source, on average (default: %(default)s)",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from fairseq_neupronet.preparation.synthesis import synthesize

    table = synthesize(arguments.out, arguments.seed, arguments.profiles, arguments.clips_per_class)
    print(f"synthetic corpus written; next: neupronet prepare table --metadata {table} --out DIR")
