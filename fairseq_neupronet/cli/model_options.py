"""The options that every command with a trained model has, and how they load it."""

import argparse
import contextlib
import warnings


def add_model_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add ``--path`` and what a checkpoint may lack."""
    parser.add_argument("--path", required=required, metavar="CKPT", help="checkpoint of fine-tuning")
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="feature recipe (a name or a yaml file), where the checkpoint does not hold one",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folder that the model was trained on, where the checkpoint does not hold its classes",
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
    """The :class:`~fairseq_neupronet.inference.model.TrainedModel` that the options name."""
    from fairseq_neupronet.inference.checkpoint import import_user_dir
    from fairseq_neupronet.inference.model import load

    if arguments.user_dir:
        import_user_dir(arguments.user_dir)
    return load(arguments.path, recipe=arguments.recipe, data=arguments.data)


@contextlib.contextmanager
def quiet_libraries():
    """torch recommends newer functions to whoever uses it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
