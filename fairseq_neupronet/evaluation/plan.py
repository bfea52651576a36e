"""What ``neupronet evaluate`` is asked for, checked before anything is loaded; torch is not imported."""

import argparse
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fairseq_neupronet.errors import InputError

if TYPE_CHECKING:
    from fairseq_neupronet.profiles.protocols import Protocol

RESULTS = "results.csv"


@dataclass(frozen=True)
class Plan:
    """An evaluation.

    Attributes:
        paths: the checkpoint, or those of an ensemble.
        folders: the prepared folder of each checkpoint.
        out: the folder to write.
        subsets: names of splits, each once.
        protocols: each once.
        seed: of draws and shuffles; None: the checkpoint's ``protocol_seed``.
        batch_size: clips.
        workers: processes that read.
        device: torch's name of it; None: a GPU if there is one.
        embeddings: write them too.
        controls: evaluate them too.
        user_dir: a package to import first.
        adaptive_batch_norm: ``task.adaptive_batch_norm``; None: the checkpoint's.
    """

    paths: tuple[Path, ...]
    folders: tuple[Path, ...]
    out: Path
    subsets: tuple[str, ...]
    protocols: "tuple[Protocol, ...]"
    seed: int | None = None
    batch_size: int = 128
    workers: int = 1
    device: str | None = None
    embeddings: bool = False
    controls: bool = True
    user_dir: str | None = None
    adaptive_batch_norm: float | None = None

    @classmethod
    def of(
        cls,
        path: str | Sequence[str],
        data: str | Sequence[str],
        out: str,
        subsets: str,
        protocols: str,
        force: bool = False,
        **options,
    ) -> "Plan":
        """Check the arguments of the command line; names are comma-separated.

        Args:
            path: the checkpoint, or several.
            data: the prepared folder, or one a checkpoint.
            out, subsets, protocols: see the attributes.
            force: write over an earlier evaluation.
            options: other attributes.

        Raises:
            InputError: naming the option that cannot be used.
        """
        # It needs numpy, which the command line's help is spared.
        from fairseq_neupronet.profiles.protocols import Protocol

        paths, folders = ([each] if isinstance(each, str) else list(each) for each in (path, data))
        if len(folders) not in (1, len(paths)):
            raise InputError(
                f"--data: {len(folders)} folders for {len(paths)} models; give one for all, or one a model, in the "
                "order of --path"
            )
        plan = cls(
            tuple(map(Path, paths)),
            tuple(map(Path, folders * len(paths) if len(folders) == 1 else folders)),
            Path(out),
            _names(subsets, "--subset"),
            tuple(Protocol.parse(name) for name in _names(protocols, "--protocol")),
            **options,
        )
        plan._check(force)
        return plan

    def _check(self, force: bool) -> None:
        for path in self.paths:
            if not path.is_file():
                raise InputError(f"--path {path}: no such file; give a checkpoint of fine-tuning")
        for folder in self.folders:
            if not folder.is_dir():
                raise InputError(f"--data {folder}: no such folder; prepare the data or correct the path")
        for folder, subset in itertools.product(dict.fromkeys(self.folders), self.subsets):
            if not (folder / f"{subset}.tsv").is_file():
                known = ", ".join(sorted(manifest.stem for manifest in folder.glob("*.tsv"))) or "none"
                raise InputError(f"--subset {subset}: {folder} has no {subset}.tsv; its manifests are {known}")
            if subset.startswith("train"):
                raise InputError(f"--subset {subset}: fairseq trains on a split of such a name; evaluate another one")
        if self.embeddings and len(self.paths) > 1:
            raise InputError("--embeddings: an ensemble has none of its own; evaluate its models one at a time")
        _check_numbers(self.seed, self.batch_size, self.workers)
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"--out {self.out}: is a file; name a folder")
        if (self.out / RESULTS).exists() and not force:
            raise InputError(f"{self.out / RESULTS}: is there already; give another --out, or --force to write over it")


def _names(text: str, option: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(names):
        raise InputError(f"{option} {text!r}: holds an empty name; give names parted by commas")
    return names


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options beside what is evaluated and where that is written."""
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="of enrol-N's draw and of shuffled profiles (default: the checkpoint's protocol_seed)",
    )
    parser.add_argument("--batch-size", type=int, default=128, metavar="N", help="clips (default: %(default)s)")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that read; 0: none beside this one (default: %(default)s)",
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 … (default: cuda if there is one)")
    parser.add_argument("--embeddings", action="store_true", help="also write embeddings.npz")
    parser.add_argument("--no-controls", action="store_true", help="the model's own figures only")
    parser.add_argument(
        "--adaptive-batch-norm",
        type=float,
        metavar="CLIPS",
        help="batch-normalise each clip by its group, as task.adaptive_batch_norm=CLIPS does (default: "
        "as the checkpoint says)",
    )
    parser.add_argument("--user-dir", metavar="DIR", help="package with backbones of your own, as fairseq's --user-dir")
    parser.add_argument(
        "--force", action="store_true", help="write over an earlier evaluation in --out; its other folders stay"
    )


def _check_numbers(seed: int | None, batch_size: int, workers: int) -> None:
    """Refuse numbers out of range.

    Raises:
        InputError: naming the option.
    """
    if batch_size < 1:
        raise InputError(f"--batch-size {batch_size}: give a whole number from 1 up")
    if workers < 0:
        raise InputError(f"--workers {workers}: give a whole number from 0 up")
    if seed is not None and seed < 0:
        raise InputError(f"--seed {seed}: give a whole number from 0 up")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise InputError(f"{message}; neupronet evaluate --help tells the options")


def parse_options(given: Iterable[str]) -> argparse.Namespace:
    """Parse options that stand in a config.

    Raises:
        InputError: an option that there is not, or a value that does not fit it.
    """
    parser = _Parser(add_help=False)
    add_options(parser)
    options = parser.parse_args(list(given))
    _check_numbers(options.seed, options.batch_size, options.workers)
    return options
