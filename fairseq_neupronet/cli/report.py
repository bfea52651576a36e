"""``neupronet report``: tables, figures and one page from a benchmark's results, or from those that were published."""

import argparse
import sys


def add_parser(subparsers) -> None:
    """Add ``report``."""
    parser = subparsers.add_parser("report", help="tables, figures and a page from a benchmark's results.csv")
    parser.add_argument(
        "results",
        metavar="results.csv",
        help="of neupronet benchmark, with the cells beside it; or the summary.csv of an earlier report, with the "
        "by_profile.csv.gz beside it",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="folder to write; its summary.csv and by_profile.csv.gz are what to publish",
    )
    parser.add_argument("--reference", metavar="VARIANT", help="to compare with (default: base, or the first)")
    parser.add_argument(
        "--metrics",
        default="accuracy,macro_f1",
        metavar="NAMES",
        help="columns of the table; the first, if it is accuracy, macro_f1 or icbhi_score, is tested "
        "against the reference (default: %(default)s)",
    )
    parser.add_argument("--pdf", action="store_true", help="figures as pdf too")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from fairseq_neupronet.benchmark.report import write_report

    written, untested = write_report(
        arguments.results, arguments.out, arguments.reference, arguments.metrics.split(","), arguments.pdf
    )
    print("\n".join(str(path) for path in written))
    if untested:
        print(f"neupronet: {untested}", file=sys.stderr)
