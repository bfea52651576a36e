"""What stops a training: a signal, after which it saves, ends and is resumed later, and figures that no longer rise.

The signals are SIGTERM, and SIGUSR1 as Slurm's ``--signal`` sends it before the time is up.
"""

import contextlib
import os
import signal
import sys
from multiprocessing import active_children

import torch
import torch.distributed as dist
from fairseq import checkpoint_utils

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
TRAINING_COMMAND = "fairseq_cli.train"
EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not done, start it again

_received: list[int] = []


def listen() -> None:
    """From now on a stop signal is remembered, instead of ending the process."""
    with contextlib.suppress(ValueError):  # outside of the main thread signals cannot be handled
        for number in SIGNALS:
            signal.signal(number, _remember)


def _remember(number: int, frame) -> None:
    _received.append(number)


def forward_to_processes() -> None:
    """Pass stop signals on to the worker processes that this one has started; without any they do as by default."""
    for number in SIGNALS:
        signal.signal(number, _forward)


def _forward(number: int, frame) -> None:
    children = active_children()
    for child in children:
        os.kill(child.pid, number)
    if not children:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def received() -> bool:
    """Whether this process has got a stop signal."""
    return bool(_received)


def received_by_any(device: torch.device) -> bool:
    """Whether any worker process has; all of them have to ask at the same update."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return received()
    flag = torch.tensor(float(received()), device=device)
    dist.all_reduce(flag)
    return bool(flag)


def leave(sentence: str) -> None:
    """End the process with one sentence and :data:`EXIT_CODE`.

    Raises:
        SystemExit: always.
    """
    name = signal.Signals(_received[0]).name if _received else "a stop signal of another process"
    print(f"neupronet: stopped by {name}: {sentence}; the same command resumes", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_CODE)


def tells_of_an_ended_worker(error: Exception) -> bool:
    """Torch sees that a loader's process has ended, or fetches a batch from it and finds the connection closed."""
    return "DataLoader worker" in str(error) or not isinstance(error, RuntimeError)


def early_stopping_state() -> dict:
    """What fairseq knows of early stopping, which it does not save: the best figure, and validations since."""
    decide = _early_stopping()
    return {} if getattr(decide, "best", None) is None else {"best": float(decide.best), "num_runs": decide.num_runs}


def restore_early_stopping(state: dict) -> None:
    """Put back what :func:`early_stopping_state` gave."""
    decide = _early_stopping()
    if decide is not None:
        vars(decide).update(state)


def forget_best_figures() -> None:
    """A Hydra sweep trains several times in one process, and fairseq keeps the best figures as long as that."""
    for function in (checkpoint_utils.save_checkpoint, _early_stopping()):
        for name in ("best", "num_runs"):
            if hasattr(function, name):
                delattr(function, name)


def _early_stopping():
    return getattr(sys.modules.get(TRAINING_COMMAND), "should_stop_early", None)
