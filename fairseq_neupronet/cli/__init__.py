"""The ``neupronet`` command. Sub-commands are modules with ``add_parser(subparsers)``; nothing imports this package."""

import argparse
import sys

from fairseq_neupronet.cli import (
    bench,
    benchmark,
    convert,
    embed,
    enrol,
    evaluate,
    export,
    predict,
    prepare,
    report,
    show,
    synthesize,
)
from fairseq_neupronet.errors import InputError

_COMMANDS = (synthesize, prepare, convert, evaluate, benchmark, report, predict, enrol, embed, show, export, bench)


def main(argv=None) -> int:
    """Run one command.

    Args:
        argv: the arguments; None takes the process's own.

    Returns:
        Exit code: 0, or 1 after one sentence on stderr about a user's mistake. Other errors propagate.
    """
    parser = argparse.ArgumentParser(prog="neupronet", description="Data for NeuProNet: audio, features, manifests")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(subparsers)
    arguments = parser.parse_args(argv)
    if not hasattr(arguments, "run"):
        parser.print_help()
        return 0
    try:
        arguments.run(arguments)
    except InputError as error:
        print(f"neupronet: error: {error}", file=sys.stderr)
        return 1
    return 0
