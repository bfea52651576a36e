"""fairseq's commands in two processes on the CPU."""

import subprocess
import sys
from pathlib import Path

import tiny

TWO_ON_CPU = [
    "common.cpu=true",
    "distributed_training.distributed_world_size=2",
    "distributed_training.distributed_backend=gloo",
]
BY_TORCHRUN = [
    "distributed_training.distributed_no_spawn=true",
    "distributed_training.distributed_init_method=env://",
    "distributed_training.distributed_rank=${oc.env:RANK}",
]


def train(*overrides, cwd: Path, recipe: str = "vocalsound", stage="finetuning") -> subprocess.CompletedProcess:
    """fairseq-hydra-train of a tiny model in two processes that torchrun starts."""
    arguments = tiny.training(stage, recipe, "task.data=data", *TWO_ON_CPU, *BY_TORCHRUN, *overrides)
    return tiny.command(
        "torchrun",
        "--standalone",
        "--nproc-per-node",
        2,
        "--no-python",
        _program("fairseq-hydra-train"),
        *arguments,
        cwd=cwd,
    )


def validate(checkpoint: Path, data: Path, *options, cwd: Path, split: str = "test", batch: int = 8) -> list[str]:
    """What fairseq-validate printed, in each of two processes that meet at a file."""
    meeting = cwd / f"meeting{len(list(cwd.glob('meeting*')))}"
    arguments = [
        "--path",
        checkpoint,
        "--user-dir",
        tiny.ROOT / "fairseq_neupronet",
        "--task",
        "audio_finetuning",
        data,
        "--cpu",
        "--valid-subset",
        split,
        "--batch-size",
        batch,
        "--num-workers",
        0,
        "--no-progress-bar",
        "--distributed-world-size",
        2,
        "--distributed-no-spawn",
        "--distributed-backend",
        "gloo",
        "--distributed-init-method",
        f"file://{meeting}",
        "--device-id",
        0,
        *options,
    ]
    processes = [
        subprocess.Popen(
            [_program("fairseq-validate"), *map(str, arguments), "--distributed-rank", str(rank)],
            cwd=cwd,
            env=tiny.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    return printed


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
