"""``neupronet convert``: an official checkpoint becomes one of ours; ``neupronet info``: what a checkpoint is."""

import argparse

from fairseq_neupronet.conversion.option_table import OPTIONS
from fairseq_neupronet.errors import quiet_libraries

_DESCRIPTION = """\
Convert a checkpoint of the official NeuProNet code (models NeuProNet and CNN_NPN, and the spectrogram wav2vec 2.0
extractors) into one of this plugin, for fairseq-validate, model.profile_extractor_path and resumed training. Prints
what every option became: mapped, defaulted or dropped. What each official option is called here stands below, and
--options prints that alone.
"""
_EPILOG = """\
what is kept
  weights, all of them by name; the configuration, with task.padding=batch and task.protocol=batch, as the official code
  pads and evaluates; Adam's moments in our order of parameters; the number of updates, so that the schedule goes on;
  the best figure (accuracy in per cent becomes a share). The epoch that was under way begins anew, since ours draws
  other batches.
what the data is
  An official checkpoint holds no class names and no longest clip. With --data they are read from that folder
  (dict.label.txt, train.tsv, train.label) and stored; without it the folder that the model is used on is believed, as
  the official code does.
going on with training
  --recipe OUT.yaml, then: fairseq-hydra-train task.data=DIR optimization.max_update=N --config-dir . --config-name OUT
  (or any recipe of the same sizes with checkpoint.continue_once=OUT.pt, or OUT.pt as checkpoint_last.pt of a run)
safety
  Only tensors, numbers and plain containers are read. A file that asks for any other class or function is refused with
  its name, and nothing of it runs; so are compressed archives, resolvers (${...}) in the configuration, and
  specifications that hold more than numbers. numpy's single numbers are read as Python's; argparse.Namespace and
  omegaconf objects, as checkpoints of fairseq before 2021 have, are refused. Paths in the configuration are not
  followed.

official options, and ours (* is every other option of the section, or the official name)

"""
_INFO = """\
Print the model card of a checkpoint: data, classes, features, training, figures by protocol, limits. Training writes it
beside the checkpoint; otherwise it is made from what the checkpoint holds. Nothing in the checkpoint is run.
"""


def add_convert(subparsers) -> None:
    """Add ``convert``."""
    parser = subparsers.add_parser(
        "convert",
        help="an official checkpoint -> one of ours",
        description=_DESCRIPTION,
        epilog=_EPILOG + OPTIONS.text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("official", metavar="OFFICIAL.pt", help="checkpoint of the official code")
    parser.add_argument("out", metavar="OUT.pt", help="file to write")
    parser.add_argument("--data", metavar="DIR", help="folder of the manifests that it was trained on, for its classes")
    parser.add_argument(
        "--extractor",
        metavar="PRETRAINED.pt",
        help="official checkpoint that the extractor was pretrained as, where OFFICIAL.pt does not say "
        "how it is built and its sizes are those of no official recipe",
    )
    parser.add_argument("--recipe", metavar="OUT.yaml", help="write a recipe too, with which training goes on")
    parser.add_argument("--without-optimizer", action="store_true", help="leave the optimiser's state out")
    parser.add_argument("--force", action="store_true", help="overwrite OUT.pt and OUT.yaml")
    parser.add_argument("--options", action=_PrintOptions, nargs=0, help="print what each official option is here")
    parser.set_defaults(run=_run)


class _PrintOptions(argparse.Action):
    """Like ``--help``: nothing else is read or done."""

    def __call__(self, parser, *_) -> None:
        print(OPTIONS.text(), end="")
        parser.exit()


def _run(arguments: argparse.Namespace) -> None:
    with quiet_libraries():
        from fairseq_neupronet.conversion.convert import Conversion, convert

        report = convert(
            Conversion(
                official=arguments.official,
                out=arguments.out,
                data=arguments.data,
                extractor=arguments.extractor,
                recipe=arguments.recipe,
                optimizer=not arguments.without_optimizer,
                force=arguments.force,
            )
        )
    print("\n".join(report))


def add_info(subparsers) -> None:
    """Add ``info``."""
    parser = subparsers.add_parser("info", help="the model card of a checkpoint", description=_INFO)
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint of a training")
    parser.set_defaults(run=_run_info)


def _run_info(arguments: argparse.Namespace) -> None:
    from fairseq_neupronet.runs.card import card_of

    print(card_of(arguments.checkpoint), end="")
