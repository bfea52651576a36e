"""The options that every command with a trained model has, and how they load it."""

import argparse

from fairseq_neupronet.errors import InputError


def add_model_options(parser: argparse.ArgumentParser, required: bool = True, several: bool = False) -> None:
    """Add ``--path`` and what a checkpoint may lack; ``several`` checkpoints are taken as an ensemble."""
    parser.set_defaults(several=several)
    many, each = ("; several: an ensemble of them", "; once for all, or once a --path") if several else ("", "")
    parser.add_argument(
        "--path",
        required=required,
        action="append",
        metavar="CKPT",
        help=f"checkpoint of fine-tuning{many}",
    )
    parser.add_argument(
        "--recipe",
        action="append",
        metavar="NAME",
        help=f"feature recipe (a name or a yaml file), where the checkpoint does not hold one{each}",
    )
    parser.add_argument(
        "--data",
        action="append",
        metavar="DIR",
        help=f"folder that the model was trained on, where the checkpoint does not hold its classes{each}",
    )
    parser.add_argument("--user-dir", metavar="DIR", help="package with backbones of your own")


def add_window_options(parser: argparse.ArgumentParser) -> None:
    """Add how long files are cut."""
    parser.add_argument(
        "--window",
        type=float,
        metavar="SECONDS",
        help="cut longer files into windows of this length (default: the longest training clip)",
    )
    parser.add_argument(
        "--hop", type=float, metavar="SECONDS", help="from one window to the next (default: the window's length)"
    )


def load_model(arguments: argparse.Namespace):
    """The model that the options name, a :class:`~fairseq_neupronet.inference.classifier.Classifier`.

    Raises:
        InputError: a model that cannot be used, or several for a command that takes one.
    """
    from fairseq_neupronet.inference.checkpoint import import_user_dir
    from fairseq_neupronet.inference.model import load

    if arguments.user_dir:
        import_user_dir(arguments.user_dir)
    if len(arguments.path) > 1 and not arguments.several:
        raise InputError(
            f"--path is given {len(arguments.path)} times: this command takes one model; an ensemble of several works "
            "with neupronet evaluate, predict and enrol"
        )
    return load(arguments.path, recipe=arguments.recipe, data=arguments.data)
