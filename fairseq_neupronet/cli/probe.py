"""``neupronet probe``: what a prepared folder gives before any network is trained."""

import argparse

_DESCRIPTION = """\
Measure what a prepared folder gives before any network is trained, in seconds: chance; a logistic regression on
statistics of each clip (mean and deviation of each mel band, and its course over ten parts of the clip), as they are
(single) and centred by the clip and N others of its profile (enrol-N) or by its whole profile (full); each of these two
also with groups dealt anew, of as many clips of each class but of other profiles' clips. It fits on train, chooses its
regularisation on valid and measures on test; where a split is missing, on folds of whole profiles. The last line says
what the group is worth. The figures are kept in DATA/probe.json: a network below them has learned nothing that these
statistics do not say.
"""


def add_parser(subparsers) -> None:
    """Add ``probe``."""
    parser = subparsers.add_parser("probe", help="what data give before any network", description=_DESCRIPTION)
    parser.add_argument("data", metavar="DATA", help="prepared folder")
    parser.add_argument(
        "--protocol",
        default="single,enrol-1,enrol-3,enrol-10,full",
        metavar="NAMES",
        help="comma-separated (default: %(default)s)",
    )
    parser.add_argument(
        "--subset", metavar="NAME", help="the split to measure (default: test, or else valid, or train)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of draws and folds (default: %(default)s)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from fairseq_neupronet.evaluation.probe import probe

    protocols = list(dict.fromkeys(name.strip() for name in arguments.protocol.split(",")))
    print("\n".join(probe(arguments.data, protocols, arguments.subset, arguments.seed)[1]))
