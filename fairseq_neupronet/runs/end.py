"""What a finished training leaves for its user: a model card beside the checkpoint, and a summary to read.

The best checkpoint is evaluated once more on the first validation subset, under several protocols.
"""

import logging
import shlex
from pathlib import Path

import numpy as np

from fairseq_neupronet.checkpoints.contents import Contents, read_contents
from fairseq_neupronet.data.manifest import read_labels, read_manifest
from fairseq_neupronet.data.prepared import PreparedFolder
from fairseq_neupronet.errors import InputError, quiet_libraries
from fairseq_neupronet.evaluation.plan import Plan
from fairseq_neupronet.evaluation.session import Session
from fairseq_neupronet.files import atomic_file, package_folder
from fairseq_neupronet.profiles.protocols import Protocol
from fairseq_neupronet.runs.card import CARD, FIGURES, Measured, Split, depends_on_profiles, moment, write_card
from fairseq_neupronet.runs.log import LOG, can_log

_ENROLLED = "enrol-3"
_BATCH = 128


def finish(config, folder: Path) -> list[str]:
    """Write the card and give the summary's lines.

    Args:
        config: fairseq's, resolved.
        folder: of the training's outputs.

    Raises:
        InputError: the card cannot be written, or the best checkpoint not be evaluated.
    """
    checkpoints = Path(config["checkpoint"]["save_dir"])
    best = next((path for name in ("best", "last") if (path := checkpoints / f"checkpoint_{name}.pt").is_file()), None)
    if best is None:
        return ["no checkpoint was kept"]
    card = checkpoints / CARD
    contents, measured = read_contents(best), None
    _write(card, write_card(contents))  # should measuring fail, there is a card without figures
    if not contents.is_extractor and not config["dataset"]["disable_validation"]:
        measured = _measure(config, contents)
        _write(card, write_card(contents, measured))
    metric = config["checkpoint"]["best_checkpoint_metric"]
    chosen = "" if contents.best is None else f", {metric} {contents.best:.4f}"
    lines = [
        f"model: {_shown(best)} ({moment(contents)}{chosen})",
        f"card: {_shown(card)}",
        f"figures of each epoch: {_shown(checkpoints / LOG)}",
    ]
    tensorboard = config["common"].get("tensorboard_logdir")
    if tensorboard:
        lines.append(f"TensorBoard: tensorboard --logdir {_shown(tensorboard)}")
    elif not can_log():
        lines.append("no TensorBoard logs: it is not installed (pip install tensorboard)")
    if contents.is_extractor:
        return [*lines, f"next: fairseq-hydra-train … model.profile_extractor_path={_shown(best)}"]
    return [*(_figure_lines(measured) if measured else []), *lines, *_next_commands(config, folder, best)]


def _write(card: Path, text: str) -> None:
    with atomic_file(card) as file:
        file.write(text)


def _measure(config, contents: Contents) -> Measured:
    task, subset = config["task"], config["dataset"]["valid_subset"].split(",")[0]
    with quiet_libraries(logging.WARNING):
        session = Session(
            Plan(
                paths=(contents.path,),
                folders=(Path(task["data"]),),
                out=contents.path.parent,
                subsets=(subset,),
                protocols=(),
                seed=None,
                batch_size=_BATCH,
                workers=min(1, config["dataset"]["num_workers"]),
                device="cpu" if config["common"].get("cpu") else None,
                embeddings=False,
                controls=False,
                user_dir=None,
            ),
            contents,
        )
        session.begin(subset)
        names = ["single", _ENROLLED, "full"] if session.uses_profiles else ["single"]
        own = str(task["protocol"])
        if session.uses_profiles and own not in names:
            names.append(own)
        evaluated = {name: session.evaluate(Protocol.parse(name))[0] for name in names}
        splits = [split for name in ("train", subset, "test") if (split := _split(session.prepared, name))]
    wanted = dict.fromkeys([*FIGURES, config["checkpoint"]["best_checkpoint_metric"]])
    figures = {
        name: {figure: evaluation.metrics[figure] for figure in wanted if figure in evaluation.metrics}
        for name, evaluation in evaluated.items()
    }
    return Measured(splits, subset, figures, len(evaluated["single"].target))


def _split(prepared: PreparedFolder, name: str) -> Split | None:
    """What a split holds; None where the folder has none of the name, or not with these classes."""
    path = prepared.folder / f"{name}.tsv"
    if not path.is_file():
        return None
    try:
        manifest = read_manifest(path, profiling=False)
        targets = read_labels(manifest, prepared.data_classes, prepared.classes)
        n_profiles = len(read_manifest(path, profiling=True).profile_names) if prepared.options.profiling else None
    except InputError:
        return None
    return Split(name, np.bincount(targets, minlength=len(prepared.classes)).tolist(), n_profiles)


def _figure_lines(measured: Measured) -> list[str]:
    names = measured.figures["single"]
    lines = [f"{'on ' + measured.subset:<12}" + "".join(f"{name:>19}" for name in names)]
    for protocol, figures in measured.figures.items():
        lines.append(f"{protocol:<12}" + "".join(f"{value:>19.4f}" for value in figures.values()))
    return lines


def _next_commands(config, folder: Path, best: Path) -> list[str]:
    data = Path(config["task"]["data"])
    subsets = ["test", *config["dataset"]["valid_subset"].split(",")]
    subset = next((name for name in subsets if (data / f"{name}.tsv").is_file()), subsets[0])
    protocols = f"single,{_ENROLLED},full" if depends_on_profiles(config) else "single"
    user_dir = Path(config["common"]["user_dir"])
    own = "" if user_dir.resolve() == package_folder() else f" --user-dir {_shown(user_dir)}"
    return [
        f"next: neupronet evaluate --path {_shown(best)} --data {_shown(data)} --subset {subset} --protocol "
        f"{protocols} --out {_shown(folder / 'evaluation')}{own}",
        f"  or: neupronet predict --path {_shown(best)}{own} FILE…",
    ]


def _shown(path) -> str:
    """A path as a shell takes it, relative where it is below the working directory."""
    path = Path(path)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return shlex.quote(str(path))
