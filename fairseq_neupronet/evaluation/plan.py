"""What ``neupronet evaluate`` is asked for, checked before anything is loaded."""

from dataclasses import dataclass
from pathlib import Path

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.options import check_numbers
from fairseq_neupronet.profiles.protocols import Protocol

RESULTS = "results.csv"


@dataclass(frozen=True)
class Plan:
    """An evaluation.

    Attributes:
        path: the checkpoint.
        data: the prepared folder.
        out: the folder to write.
        subsets: names of splits, each once.
        protocols: each once.
        seed: of draws and shuffles; None: the checkpoint's ``protocol_seed``.
        batch_size: clips.
        workers: processes that read.
        device: torch's name of it; None: a GPU if there is one.
        embeddings: write them too.
        controls: evaluate them too.
        user_dir: a plugin to import first.
        adaptive_batch_norm: ``task.adaptive_batch_norm``; None: the checkpoint's.
    """

    path: Path
    data: Path
    out: Path
    subsets: tuple[str, ...]
    protocols: tuple[Protocol, ...]
    seed: int | None
    batch_size: int
    workers: int
    device: str | None
    embeddings: bool
    controls: bool
    user_dir: str | None
    adaptive_batch_norm: float | None = None

    @classmethod
    def of(
        cls,
        path: str,
        data: str,
        out: str,
        subsets: str,
        protocols: str,
        seed: int | None = None,
        batch_size: int = 128,
        workers: int = 1,
        device: str | None = None,
        embeddings: bool = False,
        controls: bool = True,
        user_dir: str | None = None,
        adaptive_batch_norm: float | None = None,
        force: bool = False,
    ) -> "Plan":
        """Check the arguments of the command line; names are comma-separated.

        Raises:
            InputError: naming the option that cannot be used.
        """
        plan = cls(
            Path(path),
            Path(data),
            Path(out),
            _names(subsets, "--subset"),
            tuple(Protocol.parse(name) for name in _names(protocols, "--protocol")),
            seed,
            batch_size,
            workers,
            device,
            embeddings,
            controls,
            user_dir,
            adaptive_batch_norm,
        )
        if not plan.path.is_file():
            raise InputError(f"--path {path}: no such file; give a checkpoint of fine-tuning")
        if not plan.data.is_dir():
            raise InputError(f"--data {data}: no such folder; prepare the data or correct the path")
        for subset in plan.subsets:
            if not (plan.data / f"{subset}.tsv").is_file():
                known = ", ".join(sorted(manifest.stem for manifest in plan.data.glob("*.tsv"))) or "none"
                raise InputError(f"--subset {subset}: {plan.data} has no {subset}.tsv; its manifests are {known}")
            if subset.startswith("train"):
                raise InputError(f"--subset {subset}: fairseq trains on a split of such a name; evaluate another one")
        check_numbers(seed, batch_size, workers)
        if plan.out.exists() and not plan.out.is_dir():
            raise InputError(f"--out {out}: is a file; name a folder")
        if (plan.out / RESULTS).exists() and not force:
            raise InputError(f"{plan.out / RESULTS}: is there already; give another --out, or --force to write over it")
        return plan


def _names(text: str, option: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(names):
        raise InputError(f"{option} {text!r}: holds an empty name; give names parted by commas")
    return names
