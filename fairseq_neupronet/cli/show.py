"""``neupronet show``: a picture of a clip and what a model says of it."""

import argparse
from pathlib import Path

from fairseq_neupronet.cli.model_options import add_model_options, add_window_options, load_model, quiet_libraries
from fairseq_neupronet.cli.predict import add_profile_options, sounds_and_profiles
from fairseq_neupronet.errors import InputError

_DESCRIPTION = """\
Draw one picture of a clip: waveform, spectrogram in seconds and hertz, class probabilities, and how much each enrolled
clip of its profile counts. Profiles are given as for neupronet predict. Needs matplotlib.
"""


def add_parser(subparsers) -> None:
    """Add ``show``."""
    parser = subparsers.add_parser("show", help="draw a clip and what a model says of it", description=_DESCRIPTION)
    parser.add_argument("files", nargs=1, metavar="FILE", help="audio file")
    parser.add_argument("--out", metavar="PICTURE", help="png, svg or pdf (default: the file's name with .png, here)")
    parser.add_argument(
        "--number", type=int, default=1, metavar="N", help="which window of a long file (default: the first)"
    )
    add_model_options(parser)
    add_profile_options(parser)
    add_window_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
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
