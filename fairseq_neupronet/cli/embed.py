"""``neupronet embed``: embeddings of sound; ``neupronet show``: a picture of a clip and what a model says of it."""

import argparse
from pathlib import Path

from fairseq_neupronet.cli.model_options import add_model_options, add_window_options, load_model
from fairseq_neupronet.cli.predict import add_profile_options, report_failures, sounds_and_profiles
from fairseq_neupronet.errors import InputError, quiet_libraries

_DESCRIPTION = """\
Write the embeddings of audio files into an npz file, a row a clip (a window of a long file): path, times (seconds),
clip, profile, pooled, fused, logits; profile and pooled only where the model has them. Profiles are given as for
neupronet predict, and a file that cannot be read is treated as there.
"""
_SHOW = """\
Draw one picture of a clip: waveform, spectrogram in seconds and hertz, class probabilities, and how much each enrolled
clip of its profile counts. Profiles are given as for neupronet predict. Needs matplotlib.
"""


def add_embed(subparsers) -> None:
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
    n_embedded = len(sounds) - len(failures)
    print(f"{arguments.out}: {len(embeddings.path)} clips of {n_embedded} files, {', '.join(arrays)}")
    report_failures(failures, len(sounds))


def add_show(subparsers) -> None:
    """Add ``show``."""
    parser = subparsers.add_parser("show", help="draw a clip and what a model says of it", description=_SHOW)
    parser.add_argument("files", nargs=1, metavar="FILE", help="audio file")
    parser.add_argument("--out", metavar="PICTURE", help="png, svg or pdf (default: the file's name with .png, here)")
    parser.add_argument(
        "--number", type=int, default=1, metavar="N", help="which window of a long file (default: the first)"
    )
    add_model_options(parser)
    add_profile_options(parser)
    add_window_options(parser)
    parser.set_defaults(run=_run_show)


def _run_show(arguments: argparse.Namespace) -> None:
    with quiet_libraries():
        from fairseq_neupronet.inference.picture import draw

        model = load_model(arguments)
        sounds, grouping = sounds_and_profiles(model, arguments)
        if len(sounds) != 1:
            raise InputError(f"{arguments.files[0]}: stands for {len(sounds)} files; give one audio file")
        if grouping.pop("together", False):
            raise InputError("--profiles without --bank: one file has no others; name a bank, or use --profile-from")
        inspection = model.inspect(
            sounds[0],
            number=arguments.number,
            window=arguments.window,
            hop=arguments.hop,
            profile=_only(grouping.get("profiles")),
        )
        out = arguments.out or f"{Path(sounds[0]).stem}.png"
        draw(inspection, out)
    print(out)


def _only(profiles) -> str | None:
    return profiles[0] if isinstance(profiles, list) else profiles
