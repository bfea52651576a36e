"""``neupronet predict``: labels for sound."""

import argparse
import os
import sys

from fairseq_neupronet.cli.model_options import add_model_options, add_window_options, load_model
from fairseq_neupronet.errors import InputError, quiet_libraries

_DESCRIPTION = """\
Label audio files by a trained model: any format that libsndfile reads (wav, flac, ogg, mp3 …), any rate, any number of
channels, any length. A file longer than the model takes at once is cut into windows, each labelled with its times. A
file that cannot be read is named at the end, and the exit code is then 1; the others are labelled. With several --path
the log-probabilities of these models are averaged; they must have the same classes and the same window in seconds.
"""
_EPILOG = """\
profiles
  --profile NAME --bank FILE     all files are of one profile enrolled in the bank (neupronet enrol)
  --profile-from FILE…           all files are of the profile of these recordings
  --profiles TABLE --bank FILE   each file is of the profile that the table names (columns path, profile)
  --profiles TABLE               the same, the files of a profile being its group (protocol full); nothing is enrolled
  Paths in the table are relative to its folder; without FILE, its files are labelled.
output
  A table on a terminal, CSV elsewhere, unless --json or --csv says so: CSV has a row a window, JSON a list of files.
"""


def add_parser(subparsers) -> None:
    """Add ``predict``."""
    parser = subparsers.add_parser(
        "predict",
        help="label audio files by a trained model",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="audio files, folders, or patterns such as '**/*.wav'")
    add_model_options(parser, several=True)
    add_profile_options(parser)
    add_window_options(parser)
    parser.add_argument("--top", type=int, default=3, metavar="N", help="classes to tell (default: %(default)s)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV")
    parser.set_defaults(run=_run)


def add_profile_options(parser: argparse.ArgumentParser) -> None:
    """Add which profiles the files are of."""
    profile = parser.add_mutually_exclusive_group()
    profile.add_argument("--profile", metavar="NAME", help="the files' profile, enrolled in --bank")
    profile.add_argument("--profile-from", nargs="+", metavar="FILE", help="recordings of the files' profile")
    profile.add_argument("--profiles", metavar="TABLE", help="each file's profile: CSV with columns path, profile")
    parser.add_argument("--bank", metavar="FILE", help="profile bank of neupronet enrol")


def sounds_and_profiles(model, arguments: argparse.Namespace) -> tuple[list[str], dict]:
    """The files that the arguments name, and the options of ``stream`` that say how they are grouped.

    Raises:
        InputError: no files, options that do not go together, or a table that lacks a file.
    """
    from fairseq_neupronet.inference.clips import find_audio, read_profiles

    table = read_profiles(arguments.profiles) if arguments.profiles else {}
    sounds = find_audio(arguments.files) if arguments.files else list(table)
    if not sounds:
        raise InputError("no file is given; name audio files, folders or patterns")
    if arguments.bank:
        if not arguments.profile and not arguments.profiles:
            raise InputError(
                f"--bank {arguments.bank}: say which of its profiles the files are of, with --profile "
                "NAME or --profiles TABLE"
            )
        model.load_bank(arguments.bank)
    if arguments.profile:
        if not arguments.bank:
            raise InputError(f"--profile {arguments.profile}: name the bank that it is enrolled in with --bank FILE")
        return sounds, {"profiles": arguments.profile}
    if arguments.profile_from:
        name = "of --profile-from"
        model.enrol(name, find_audio(arguments.profile_from))
        return sounds, {"profiles": name}
    if arguments.profiles:
        real = {os.path.realpath(path): name for path, name in table.items()}
        missing = [sound for sound in sounds if os.path.realpath(sound) not in real]
        if missing:
            raise InputError(
                f"{arguments.profiles}: has no row for {missing[0]} ({len(missing)} of {len(sounds)} "
                "files are missing); add them, with an empty profile where none is known"
            )
        names = [real[os.path.realpath(sound)] for sound in sounds]
        return sounds, {"profiles": names, "together": not arguments.bank}
    return sounds, {}


def _run(arguments: argparse.Namespace) -> None:
    if arguments.top < 1:
        raise InputError(f"--top {arguments.top}: give a whole number from 1 up")
    with quiet_libraries():
        from fairseq_neupronet.inference import results

        model = load_model(arguments)
        sounds, grouping = sounds_and_profiles(model, arguments)
        failures = []
        predictions = _progress(
            model.stream(sounds, window=arguments.window, hop=arguments.hop, **grouping), sounds, failures
        )
        try:
            if arguments.json:
                results.write_json(predictions, arguments.top, sys.stdout)
            elif arguments.csv or not sys.stdout.isatty():
                results.write_csv(predictions, model.classes, sys.stdout)
            else:
                results.write_table(predictions, arguments.top, sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read has seen enough; Python would complain again when it closes the stream.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    report_failures(failures, len(sounds))


def report_failures(failures: list, n_sounds: int) -> None:
    """Say at the end which files could not be read.

    Raises:
        InputError: there are some.
    """
    for failure in failures:
        print(f"neupronet: {failure.sentence}", file=sys.stderr)
    if failures:
        raise InputError(f"{len(failures)} of {n_sounds} files could not be read; the others are done")


def _progress(outcomes, sounds: list[str], failures: list):
    """The predictions among the outcomes; the others are put aside."""
    from tqdm import tqdm

    from fairseq_neupronet.inference.results import Unreadable

    shown = sys.stderr.isatty() and not sys.stdout.isatty()
    with tqdm(total=len(sounds), unit=" files", disable=not shown, file=sys.stderr) as bar:
        for outcome in outcomes:
            bar.update()
            if isinstance(outcome, Unreadable):
                failures.append(outcome)
            else:
                yield outcome
