"""``neupronet info``: a checkpoint's model card."""

import argparse

_DESCRIPTION = """\
Print the model card of a checkpoint: data, classes, features, training, figures by protocol, limits. Training writes it
beside the checkpoint; otherwise it is made from what the checkpoint holds. Nothing in the checkpoint is run.
"""


def add_parser(subparsers) -> None:
    """Add ``info``."""
    parser = subparsers.add_parser("info", help="the model card of a checkpoint", description=_DESCRIPTION)
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint of a training")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from fairseq_neupronet.runs.card import card_of

    print(card_of(arguments.checkpoint), end="")
