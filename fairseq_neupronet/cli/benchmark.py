"""``neupronet benchmark``: a table of trainings, data sets x variants x folds x seeds; ``neupronet report`` of it."""

import argparse
import sys

from fairseq_neupronet.errors import InputError

_EPILOG = """\
Each cell is a training by fairseq-hydra-train and an evaluation by neupronet evaluate, in
DIR/cells/<data set>/<variant>/fold-<f>/seed-<s>/ with its log and config. The same command goes on where it was
stopped: a finished cell is not run again, an interrupted one goes on from its checkpoint, and a cell whose config or
data have changed is run anew. The rows of all finished cells are in DIR/results.csv.

KEY=VALUE settings go over the config, as datasets.urbansound8k.data=DATA/fold{fold:02d} or seeds=[1,2,3].

On several machines, or as a job array of a cluster, start the same command with the same DIR once for each fold, as
--only fold=$SLURM_ARRAY_TASK_ID; the command without --only collects what they have done.
"""


def add_benchmark(subparsers) -> None:
    """Add ``benchmark``."""
    parser = subparsers.add_parser(
        "benchmark",
        help="train and evaluate a table: data sets x variants x folds x seeds",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONFIG.yaml", help="the benchmark; configs/benchmark has examples")
    parser.add_argument("settings", metavar="KEY=VALUE", nargs="*", help="settings over those of the config")
    parser.add_argument("--out", metavar="DIR", help="folder of cells and results (default: outputs/benchmark/CONFIG)")
    parser.add_argument("--jobs", type=int, metavar="N", help="cells at a time (default: the config's)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan: cells, updates, expected hours")
    parser.add_argument("--quick", action="store_true", help="with the config's section quick: does it run?")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="AXIS=VALUE[,VALUE]",
        help="some cells, as variant=base,dot or fold=1; may be repeated",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from fairseq_neupronet.benchmark.benchmark import Benchmark
    from fairseq_neupronet.benchmark.comparison import summary_lines
    from fairseq_neupronet.benchmark.runner import Progress, run_cells

    if arguments.jobs is not None and arguments.jobs < 1:
        raise InputError(f"--jobs {arguments.jobs}: give a whole number from 1 up")
    for setting in arguments.settings:
        if "=" not in setting:
            raise InputError(f"{setting!r} is no setting; write KEY=VALUE")
    benchmark = Benchmark.load(
        arguments.config, arguments.out, arguments.settings, arguments.quick, _only(arguments.only), arguments.jobs
    )
    print("\n".join(benchmark.plan_lines()), flush=True)
    if arguments.dry_run:
        return
    try:
        tally = run_cells(benchmark.cells, benchmark.settings, Progress())
    except KeyboardInterrupt:
        print("benchmark: stopped; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        n_rows = benchmark.collect()
    if n_rows:
        print("\n".join(summary_lines(benchmark.results, benchmark.config["reference"], benchmark.config["metrics"])))
    if tally.failed:
        reasons = "; ".join(f"{cell.name}: {reason}" for cell, reason in tally.failed.items())
        raise InputError(f"{len(tally.failed)} of {len(benchmark.cells)} cells failed, the others are done: {reasons}")


def _only(given: list[str]) -> dict[str, list[str]]:
    from fairseq_neupronet.benchmark.config import check_only

    only = {}
    for selection in given:
        axis, sign, values = selection.partition("=")
        if not sign or not values:
            raise InputError(f"--only {selection}: write AXIS=VALUE, as variant=base")
        only.setdefault(axis, []).extend(values.split(","))
    check_only(only, "--only")
    return only


def add_report(subparsers) -> None:
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
    parser.set_defaults(run=_run_report)


def _run_report(arguments: argparse.Namespace) -> None:
    from fairseq_neupronet.benchmark.report import write_report

    written, untested = write_report(
        arguments.results, arguments.out, arguments.reference, arguments.metrics.split(","), arguments.pdf
    )
    print("\n".join(str(path) for path in written))
    if untested:
        print(f"neupronet: {untested}", file=sys.stderr)
