"""A benchmark from its config to its table: planned, run and collected."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fairseq_neupronet.benchmark.by_profile import NAME, ProfileCounts, write_by_profile
from fairseq_neupronet.benchmark.cell_folder import CellFolder, Settings
from fairseq_neupronet.benchmark.cells import Cell, chosen, composed, has_data, plan_cells
from fairseq_neupronet.benchmark.config import read_config
from fairseq_neupronet.benchmark.results import collect, read_table
from fairseq_neupronet.errors import InputError


@dataclass(frozen=True)
class Benchmark:
    """A config, resolved.

    Attributes:
        config: of :func:`~fairseq_neupronet.benchmark.config.read_config`.
        all_cells: the whole table.
        cells: what was chosen of it, with the extractors that these need.
        settings: how they are run, and where.
    """

    config: dict
    all_cells: list[Cell]
    cells: list[Cell]
    settings: Settings

    @classmethod
    def load(
        cls,
        path: str | Path,
        out: str | Path | None = None,
        settings: list[str] = (),
        quick: bool = False,
        only: dict | None = None,
        jobs: int | None = None,
    ) -> "Benchmark":
        """Read a benchmark's yaml and resolve every recipe and data folder in it.

        Args:
            path: the yaml.
            out: the benchmark's folder; unset: ``outputs/benchmark/NAME``, NAME the yaml's, with ``-quick``.
            settings: ``key.below=value``, over the yaml.
            quick: lay the yaml's section ``quick`` over the rest.
            only: axis → values, beside the yaml's own ``only``.
            jobs: cells at a time, instead of the yaml's.

        Raises:
            InputError: whatever would stop a cell at its start and can be seen now.
        """
        config = read_config(path, settings, quick)
        cells = plan_cells(config)
        folder = Path(out) if out else Path("outputs/benchmark") / (Path(path).stem + ("-quick" if quick else ""))
        first_cells = {}
        for cell in cells:
            if cell.stage == "finetuning":
                first_cells.setdefault((cell.dataset, cell.variant), cell)
        benchmark = cls(
            config,
            cells,
            chosen(cells, config["only"] | (only or {})),
            Settings(
                out=folder,
                evaluation={
                    "subsets": config["subsets"],
                    "protocols": config["protocols"],
                    "options": config["evaluation"],
                },
                keep_checkpoints=config["keep_checkpoints"],
                embeddings=frozenset(first_cells.values()) if config["embeddings"] else frozenset(),
                jobs=jobs or config["jobs"],
            ),
        )
        for cell in benchmark.cells:
            _ = benchmark.settings.folder(cell).digest, updates_of(cell)
        return benchmark

    @property
    def results(self) -> Path:
        return self.settings.out / "results.csv"

    def collect(self) -> int:
        """Write ``results.csv`` and ``by_profile.csv.gz`` of every finished cell of the whole table.

        Returns:
            The number of rows of the former.
        """
        while True:
            folders = self._finished_folders()
            n_rows = collect(folders, self.results)
            counts = ProfileCounts(self.results, from_file=False)
            write_by_profile(self.results.with_name(NAME), read_table(self.results), counts)
            # Another runner may have finished a cell and collected meanwhile, whose tables these have just replaced.
            if [folder.path for folder in self._finished_folders()] == [folder.path for folder in folders]:
                return n_rows

    def _finished_folders(self) -> list[CellFolder]:
        folders = [self.settings.folder(cell) for cell in self.all_cells if cell.stage == "finetuning"]
        return [folder for folder in folders if folder.state().get("finished") and self._is_current(folder)]

    def _is_current(self, folder: CellFolder) -> bool:
        # The digest asks for the data, which need not be here any more; then what was recorded stands.
        return folder.results.is_file() and (not has_data(folder.cell.data) or folder.is_finished())

    def plan_lines(self) -> list[str]:
        """The plan as a table: cells, updates, expected hours."""
        lines = [f"{'cells':>7}  {'updates':>8}  {'hours':>7}  data set / variant (recipe)"]
        seconds = self._measured_seconds()
        to_run = []
        for (dataset, variant), cells in _by_row(self.cells).items():
            left = [cell for cell in cells if not self.settings.folder(cell).is_finished()]
            to_run += left
            hours, updates = hours_of(left, seconds), updates_of(cells[0])[0]
            finished = f", {len(cells) - len(left)} finished" if len(left) < len(cells) else ""
            counts = f"{len(cells):>7}  {_count(updates):>8}  {_hours(hours):>7}"
            lines.append(f"{counts}  {dataset} / {variant} ({cells[0].recipe}{finished})")
        total, jobs = hours_of(to_run, seconds), self.settings.jobs
        said = f"{_hours(total)} hours one after the other" + (f", {jobs} at a time" if jobs > 1 else "")
        if total is None:
            said = "hours unknown: set ms_per_clip, or let one cell of each row run"
        lines.append(
            f"{len(self.cells):>7}  cells, {len(self.cells) - len(to_run)} finished; {said}; results in {self.results}"
        )
        return lines

    def _measured_seconds(self) -> dict[str, float]:
        measured = {}
        for row, cells in _by_row(self.all_cells).items():
            states = [self.settings.folder(cell).state() for cell in cells]
            seconds = [state["seconds"] for state in states if state.get("finished")]
            if seconds:
                measured["/".join(row)] = sum(seconds) / len(seconds)
        return measured


@lru_cache(maxsize=256)
def _train_clips(folder: str) -> int:
    with open(Path(folder) / "train.tsv", "rb") as file:
        return sum(1 for line in file if line.strip()) - 1


def updates_of(cell: Cell) -> tuple[int | None, int | None]:
    """Updates that the schedule has at most, and the clips that it trains on in them (an early stop aside).

    Batches of whole profiles may be smaller than ``dataset.batch_size``, and ``optimization.update_freq`` may differ in
    the first epochs; that is not foreseen here.

    Returns:
        Both; None for what cannot be told where batches are of ``dataset.max_tokens`` instead of so many clips.

    Raises:
        InputError: batches of no clip.
    """
    config = composed(cell)
    optimization, batch = config["optimization"], config["dataset"]["batch_size"]
    updates, epochs = (int(optimization.get(f"max_{unit}") or 0) or math.inf for unit in ("update", "epoch"))
    if batch is None:
        return None if updates == math.inf else updates, None
    if int(batch) < 1:
        raise InputError(
            f"{cell.name}: dataset.batch_size={batch} leaves no clip in a batch; give a whole number from 1 up"
        )
    n_clips = _train_clips(cell.data)
    in_an_update = (optimization.get("update_freq") or [1])[-1]
    per_epoch = math.ceil(math.ceil(n_clips / int(batch)) / int(in_an_update))
    updates = min(updates, epochs * per_epoch)
    return (0, 0) if updates == math.inf else (updates, round(updates * n_clips / per_epoch))


def hours_of(cells: Sequence[Cell], seconds: dict[str, float]) -> float | None:
    """Expected hours of the cells one after the other, from what like cells took or from ``ms_per_clip``.

    Args:
        cells: those to run.
        seconds: ``dataset/variant`` → mean seconds of the finished cells.

    Returns:
        None where a cell has neither.
    """
    total = 0.0
    for cell in cells:
        measured = seconds.get(f"{cell.dataset}/{cell.variant}")
        if measured is None:
            clips = updates_of(cell)[1]
            if cell.ms_per_clip is None or clips is None:
                return None
            measured = clips * cell.ms_per_clip / 1000
        total += measured
    return total / 3600


def _by_row(cells: list[Cell]) -> dict[tuple[str, str], list[Cell]]:
    rows = {}
    for cell in cells:
        rows.setdefault((cell.dataset, cell.variant), []).append(cell)
    return rows


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _hours(hours: float | None) -> str:
    return "?" if hours is None else f"{hours:,.2f}"
