"""The commands of a cell: what a user would type."""

import shlex
import sys
from pathlib import Path

from fairseq_neupronet.benchmark.cell_folder import CellFolder


def training_command(folder: CellFolder, extractor: CellFolder | None) -> list[str]:
    """``fairseq-hydra-train`` with the cell's recipe, data, seed and folder."""
    cell = folder.cell
    command = [
        _program("fairseq-hydra-train"),
        "--config-dir",
        str(cell.recipe_folder),
        "--config-name",
        cell.recipe,
        *cell.overrides,
        f"task.data={_quoted(Path(cell.data).resolve())}",
        f"common.seed={cell.seed}",
        f"hydra.run.dir={_quoted(folder.train.resolve())}",
    ]
    if extractor is not None:
        command.append(f"model.profile_extractor_path={_quoted(extractor.best.resolve())}")
    return command


def evaluation_command(folder: CellFolder, evaluation: dict, embeddings: bool) -> list[str]:
    """``neupronet evaluate`` of the cell's best checkpoint."""
    command = [
        sys.executable,
        "-m",
        "fairseq_neupronet",
        "evaluate",
        "--path",
        str(folder.best),
        "--data",
        folder.cell.data,
        "--subset",
        ",".join(evaluation["subsets"]),
        "--protocol",
        ",".join(evaluation["protocols"]),
        "--out",
        str(folder.evaluation),
        *map(str, evaluation["options"]),
    ]
    return command + ["--embeddings"] if embeddings else command


def printed(command: list[str]) -> str:
    """As a shell would take it."""
    return shlex.join([Path(command[0]).name if command[0] != sys.executable else "python", *command[1:]])


def _program(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else name


def _quoted(path: Path) -> str:
    """In Hydra's grammar, where a path may hold signs that mean something."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
