"""Cells of a benchmark as jobs of Hydra's launchers, for several processes or machines.

Several at a time on this machine (``pip install hydra-joblib-launcher``)::

    python -m fairseq_neupronet.benchmark.hydra_cell --multirun benchmark=CONFIG.yaml out=DIR 'cell=range(0,20)' \
        hydra/launcher=joblib hydra.launcher.n_jobs=2

A job array on a Slurm cluster (``pip install hydra-submitit-launcher``)::

    python -m fairseq_neupronet.benchmark.hydra_cell --multirun benchmark=CONFIG.yaml out=DIR 'cell=range(0,20)' \
        hydra/launcher=submitit_slurm hydra.launcher.partition=gpu hydra.launcher.gpus_per_node=1 \
        hydra.launcher.cpus_per_task=8 hydra.launcher.timeout_min=720 hydra.launcher.array_parallelism=4

``cell`` numbers the cells as ``neupronet benchmark CONFIG.yaml --out DIR --dry-run`` prints them. A cell whose
extractor is not there yet is refused: launch the extractors first. A job that is cut off goes on from its checkpoint
when it is launched again. All machines must see ``out`` and the data under the same paths. Afterwards ``neupronet
benchmark CONFIG.yaml --out DIR`` finds the cells finished, and collects.
"""

from dataclasses import dataclass, field

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra

from fairseq_neupronet.errors import InputError, show_sentences


@dataclass
class Job:
    """One cell.

    Attributes:
        benchmark: the benchmark's yaml; relative to where the command was given.
        out: the benchmark's folder, likewise.
        cell: number of the cell.
        quick: with the yaml's section ``quick``.
        settings: settings over those of the yaml.
    """

    benchmark: str
    out: str
    cell: int
    quick: bool = False
    settings: list[str] = field(default_factory=list)


ConfigStore.instance().store(
    "cell",
    {
        "defaults": ["_self_"],
        "benchmark": "???",
        "out": "???",
        "cell": "???",
        "quick": False,
        "settings": [],
        "hydra": {
            "sweep": {"dir": "${out}/jobs", "subdir": "${cell}"},
            "run": {"dir": "${out}/jobs/${cell}"},
            "output_subdir": None,
            "job": {"chdir": False},
        },
    },
)


def run_job(job: Job) -> str:
    """Run one cell to its end; returns its name.

    Raises:
        InputError: no such cell, its extractor is missing, or it failed.
    """
    from fairseq_neupronet.benchmark.benchmark import Benchmark
    from fairseq_neupronet.benchmark.runner import Progress, run_cells

    GlobalHydra.instance().clear()  # the recipes are composed by a Hydra of their own
    benchmark = Benchmark.load(job.benchmark, job.out, list(job.settings), job.quick, jobs=1)
    cells = benchmark.cells
    if not isinstance(job.cell, int) or not 0 <= job.cell < len(cells):
        raise InputError(f"cell={job.cell}: the benchmark has cells 0 to {len(cells) - 1}")
    cell, settings = cells[job.cell], benchmark.settings
    if cell.extractor is not None and not settings.folder(cell.extractor).is_finished(settings.digest(cell.extractor)):
        raise InputError(
            f"cell={job.cell}: {cell.name} starts from {cell.extractor.name}, which is not finished; run "
            f"cell={cells.index(cell.extractor)} first"
        )
    tally = run_cells([cell], settings, Progress())
    if tally.failed:
        raise InputError(f"{cell.name}: {tally.failed[cell]}")
    return cell.name


@hydra.main(version_base="1.1", config_path=None, config_name="cell")
def main(config) -> str:
    return run_job(Job(**config))


if __name__ == "__main__":
    show_sentences()
    main()
