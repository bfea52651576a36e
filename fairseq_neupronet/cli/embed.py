"""``neupronet embed``: embeddings of sound."""

import argparse
from pathlib import Path

from fairseq_neupronet.cli.model_options import add_model_options, add_window_options, load_model, quiet_libraries
from fairseq_neupronet.cli.predict import add_profile_options, report_failures, sounds_and_profiles

_DESCRIPTION = """\
Write the embeddings of audio files into an npz file, a row a clip (a window of a long file): path, times (seconds),
clip, profile, pooled, fused, logits; profile and pooled only where the model has them. Profiles are given as for
neupronet predict, and a file that cannot be read is treated as there.
"""


def add_parser(subparsers) -> None:
    """Add ``embed``."""
    parser = subparsers.add_parser("embed", help="write the embeddings of audio files", description=_DESCRIPTION)
    parser.add_argument("files", nargs="*", metavar="FILE", help="audio files, folders, or patterns such as '**/*.wav'")
    parser.add_argument("--out", required=True, metavar="OUT.npz", help="file to write")
    add_model_options(parser)
    add_profile_options(parser)
    add_window_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    with quiet_libraries():
        import numpy as np

        from fairseq_neupronet.files import atomic_file

        model = load_model(arguments)
        sounds, grouping = sounds_and_profiles(model, arguments)
        failures = []
        embeddings = model.embed(sounds, window=arguments.window, hop=arguments.hop, failures=failures, **grouping)
    arrays = {name: array for name, array in vars(embeddings).items() if array is not None}
    with atomic_file(Path(arguments.out), "wb") as file:
        np.savez(file, **arrays)
    n_heard = len(sounds) - len(failures)
    print(f"{arguments.out}: {len(embeddings.path)} clips of {n_heard} files, {', '.join(arrays)}")
    report_failures(failures, len(sounds))
