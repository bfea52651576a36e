"""The ``neupronet`` command. A module adds one or two sub-commands to ``subparsers``; nothing imports this package."""

import argparse
import sys

from fairseq_neupronet.cli import benchmark, convert, embed, enrol, evaluate, predict, prepare, probe, serve
from fairseq_neupronet.errors import InputError

_GROUPS = {
    "data": (prepare.add_synthesize, prepare.add_prepare, probe.add_parser),
    "training": (benchmark.add_benchmark, convert.add_convert),
    "evaluation": (evaluate.add_parser, benchmark.add_report, convert.add_info),
    "use of a trained model": (
        predict.add_parser,
        enrol.add_parser,
        embed.add_embed,
        embed.add_show,
        serve.add_serve,
        serve.add_export,
    ),
}
# Of fairseq's own commands, what a user of ours needs first.
_FAIRSEQ = {
    "training": ("fairseq-hydra-train …", "train: task.data=DIR --config-dir CONFIGS --config-name RECIPE"),
    "evaluation": ("fairseq-validate …", "one protocol's figures, by fairseq's own command"),
}
_WIDTH = 24


def main(argv=None) -> int:
    """Run one command.

    Args:
        argv: the arguments; None takes the process's own.

    Returns:
        Exit code: 0, or 1 after one sentence on stderr about a user's mistake. Other errors propagate.
    """
    parser = make_parser()
    arguments, left_over = parser.parse_known_args(argv)
    settings = [argument for argument in left_over if "=" in argument and not argument.startswith("-")]
    if hasattr(arguments, "settings") and settings == left_over:
        arguments.settings += settings  # argparse takes them before the options only
    elif left_over:
        parser.error(f"unrecognized arguments: {' '.join(left_over)}")
    if not hasattr(arguments, "run"):
        parser.print_help()
        return 0
    try:
        arguments.run(arguments)
    except InputError as error:
        print(f"neupronet: error: {error}", file=sys.stderr)
        return 1
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The whole command line; its help lists the commands by what they are for."""
    parser = argparse.ArgumentParser(
        prog="neupronet",
        usage="neupronet COMMAND …",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="NeuProNet: sound classification that knows a clip's group. neupronet COMMAND --help tells more.",
    )
    subparsers = parser.add_subparsers(prog="neupronet", metavar="COMMAND", help=argparse.SUPPRESS)
    parts = []
    for title, commands in _GROUPS.items():
        group = _Group(subparsers)
        for add_parser in commands:
            add_parser(group)
        lines = [*([_FAIRSEQ[title]] if title in _FAIRSEQ else []), *group.lines]
        parts.append("\n".join([title, *(f"  {name:<{_WIDTH}}{text}" for name, text in lines)]))
    parser.epilog = "\n\n".join(parts)
    return parser


class _Group:
    """Takes a command's parser for the whole, and keeps what the list says of it."""

    def __init__(self, subparsers):
        self._subparsers = subparsers
        self.lines: list[tuple[str, str]] = []

    def add_parser(self, name: str, *, help: str, **options) -> argparse.ArgumentParser:
        self.lines.append((name, help))
        return self._subparsers.add_parser(name, **options)
