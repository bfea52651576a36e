"""``neupronet enrol``: profiles from a few clips each, kept in a file."""

import argparse
from pathlib import Path

from fairseq_neupronet.cli.model_options import add_model_options, load_model
from fairseq_neupronet.errors import InputError, quiet_libraries

_DESCRIPTION = """\
Enrol a profile (a speaker, a patient, a machine) from a few recordings of it, for neupronet predict --profile. The bank
keeps embeddings only: neither sound nor file names. Recordings of a profile that is there already are added to it. The
bank belongs to the model that made it, or to the models, in their order, where several --path are given.
"""


def add_parser(subparsers) -> None:
    """Add ``enrol``."""
    parser = subparsers.add_parser("enrol", help="learn a profile from a few recordings", description=_DESCRIPTION)
    parser.add_argument("files", nargs="*", metavar="FILE", help="recordings of the profile")
    parser.add_argument("--bank", required=True, metavar="FILE", help="profile bank (.npz); made where it is missing")
    parser.add_argument("--profile", metavar="NAME", help="the profile that the recordings are of")
    add_model_options(parser, required=False, several=True)
    parser.add_argument("--profiles", metavar="TABLE", help="enrol the files of a CSV with columns path, profile")
    parser.add_argument("--forget", nargs="+", metavar="NAME", help="remove profiles and write the file anew")
    parser.add_argument("--list", action="store_true", help="print the profiles and how many clips each has")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from fairseq_neupronet.inference.clips import find_audio, read_profiles
    from fairseq_neupronet.profiles.profile import Bank

    jobs = [arguments.profile is not None, arguments.profiles is not None, bool(arguments.forget), arguments.list]
    if sum(jobs) != 1:
        raise InputError("say what to do: --profile NAME FILE…, --profiles TABLE, --forget NAME… or --list")
    if arguments.list or arguments.forget:
        bank = Bank.load(arguments.bank)
        for name in arguments.forget or ():
            bank.forget(name)
        if arguments.forget:
            bank.save(arguments.bank)
            print(f"{arguments.bank}: {', '.join(arguments.forget)} forgotten, {len(bank.clips)} profiles left")
            return
        for name, n_clips in bank.clips.items():
            print(f"{name}\t{n_clips}")
        return
    if not arguments.path:
        raise InputError("--path is missing; give the checkpoint of the model that is to use them")
    groups: dict[str, list[str]] = {}
    if arguments.profiles:
        for path, name in read_profiles(arguments.profiles).items():
            if name is None:
                raise InputError(f"{arguments.profiles}: {path} has no profile; give it one or take the row out")
            groups.setdefault(name, []).append(path)
    else:
        groups[arguments.profile] = find_audio(arguments.files)
    with quiet_libraries():
        model = load_model(arguments)
        if Path(arguments.bank).exists():
            model.load_bank(arguments.bank)
        n_clips = sum(model.enrol(name, files) for name, files in groups.items())
    model.save_bank(arguments.bank)
    print(f"{arguments.bank}: clips enrolled: {n_clips}, profiles: {len(model.bank.clips)}")
