"""``neupronet prepare``: audio to spectrograms and manifests; ``neupronet synthesize``: a small world of such audio."""

import argparse

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.preparation.datasets import DATASETS

_RECIPE_FIELDS = {
    "sample_rate": "Hz",
    "n_fft": "samples of the window (recipes of kind mel_db)",
    "hop_length": "samples between frames",
    "n_mels": "mel bands",
}


def add_prepare(subparsers) -> None:
    """Add ``prepare`` with a sub-command per data set."""
    parser = subparsers.add_parser("prepare", help="audio -> spectrograms, manifests, labels, dictionary")
    parser.set_defaults(run=lambda arguments: parser.print_help())
    datasets = parser.add_subparsers(title="data sets", metavar="DATASET")
    for name, dataset in DATASETS.items():
        own = datasets.add_parser(name, help=dataset.help, description=dataset.help)
        for flag, keywords in dataset.options.items():
            own.add_argument(flag, **keywords)
        own.add_argument("--out", required=True, metavar="DIR", help="output folder")
        own.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
        own.add_argument(
            "--recipe",
            default=dataset.recipe,
            metavar="NAME",
            help="feature recipe, or the path of a yaml file (default: %(default)s)",
        )
        for field, text in _RECIPE_FIELDS.items():
            own.add_argument(
                f"--{field.replace('_', '-')}", type=int, metavar="N", help=f"instead of the recipe's: {text}"
            )
        own.add_argument(
            "--packed", action="store_true", help="one uncompressed zip per split instead of a file per clip"
        )
        own.add_argument("--float16", action="store_true", help="--packed: half the size, at half precision")
        own.set_defaults(run=_run, dataset=dataset)


def _run(arguments: argparse.Namespace) -> None:
    from fairseq_neupronet.audio.recipe import FeatureRecipe
    from fairseq_neupronet.preparation import prepare

    if arguments.workers is not None and arguments.workers < 1:
        raise InputError(f"--workers {arguments.workers}: give a whole number from 1 up")
    if arguments.float16 and not arguments.packed:
        raise InputError("--float16: loose features are float32; add --packed, or leave --float16 out")
    dataset = arguments.dataset
    recipe = FeatureRecipe.load(arguments.recipe, **{field: getattr(arguments, field) for field in _RECIPE_FIELDS})
    options = [flag.removeprefix("--").replace("-", "_") for flag in dataset.options]
    collection = dataset.read(**{option: getattr(arguments, option) for option in options})
    print(
        "\n".join(
            prepare(
                collection, arguments.out, recipe, arguments.workers, packed=arguments.packed, half=arguments.float16
            )
        )
    )


def add_synthesize(subparsers) -> None:
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
    parser.set_defaults(run=_run_synthesize)


def _run_synthesize(arguments: argparse.Namespace) -> None:
    from fairseq_neupronet.preparation.synthesis import synthesize

    table = synthesize(arguments.out, arguments.seed, arguments.profiles, arguments.clips_per_class)
    print(f"synthetic corpus written; next: neupronet prepare table --metadata {table} --out DIR")
