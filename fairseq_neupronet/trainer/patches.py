"""All that is changed in fairseq itself, at run time; nothing else of this package replaces a function of it.

Checkpoints are written whole and a damaged one is replaced; nothing of a checkpoint is run; stop signals are heeded;
what fairseq forgets between two starts of a training is put back; NaN names its clips; Python objects are gathered over
processes without a GPU.
"""

import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import fairseq
import torch
import torch.distributed as dist
from fairseq import checkpoint_utils
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from fairseq.utils import move_to_cpu

from fairseq_neupronet.checkpoints import durable as checkpoint_files
from fairseq_neupronet.checkpoints.plain import read_plain_checkpoint
from fairseq_neupronet.checkpoints.texts import check_texts
from fairseq_neupronet.config.retired import check_retired
from fairseq_neupronet.trainer import non_finite, stopping
from fairseq_neupronet.trainer.processes import is_master
from fairseq_neupronet.training_progress import ProgressWriter, updates_in_all

logger = logging.getLogger(__name__)

TESTED_VERSION = "0.12.3.1"
_LAST = "checkpoint_last"

_originals: dict[str, Callable] = {}
_saved_updates: list[int] = []
_stopping_at: list[int] = []
_skipped: list[bool] = []
_before_saving: list[Callable[[], None]] = []
_preparations: list[Callable[[], None]] = []
_followers: dict[Callable, Callable[[], None]] = {}
_progress: list[ProgressWriter] = []  # of this training, in the process that writes what is written once


def patch_fairseq() -> None:
    """Replace the functions below, each once; those of the training command where a process has imported it.

    A function of other arguments than expected is left alone, with a warning.
    """
    if not _originals and fairseq.__version__ != TESTED_VERSION:
        logger.warning(
            f"fairseq {fairseq.__version__}: fairseq_neupronet is tested with {TESTED_VERSION}; exact resumption is "
            "not certain with another"
        )
    _replace(distributed_utils, "call_main", _call_main)
    _replace(distributed_utils, "all_gather_list", _all_gather_list)
    _replace(checkpoint_utils, "torch_persistent_save", _torch_persistent_save)
    _replace(checkpoint_utils, "load_checkpoint", _load_checkpoint)
    _replace(checkpoint_utils, "load_checkpoint_to_cpu", _load_checkpoint_to_cpu)
    _replace(checkpoint_utils, "PathManager", _WholeCopies, "copy")
    # Only a training has imported it, and importing it changes the process's logging.
    training = sys.modules.get(stopping.TRAINING_COMMAND)
    if training is not None:
        _replace(training, "train", _train)
        _replace(Trainer, "_check_grad_norms", _check_grad_norms)
        _replace(Trainer, "valid_step", _valid_step)
        _replace(training, "validate_and_save", _validate_and_save)


def _replace(module, name: str, replacement, method: str | None = None) -> None:
    """Replace a function, or a class for the sake of one method, if it takes what its replacement takes."""
    original = getattr(module, name)
    if name in _originals:
        return
    taken, expected = (
        list(inspect.signature(getattr(called, method) if method else called).parameters)
        for called in (original, replacement)
    )
    if taken == expected:
        _originals[name] = original
        setattr(module, name, replacement)
    else:
        logger.warning(
            f"fairseq {fairseq.__version__}: {name} takes other arguments than in {TESTED_VERSION} and is left as it "
            "is; trainings may not survive kills and full disks"
        )


# ---- processes -----------------------------------------------------------------------------------------------------


def skip_training() -> None:
    """The next training of this process has nothing left to do."""
    _skipped.append(True)


def prepare_each_process(preparation: Callable[[], None]) -> None:
    """Have a function called in every process of a training before it begins, also in those that fairseq starts.

    Args:
        preparation: a function of a module, which the processes import.
    """
    if preparation not in _preparations:
        _preparations.append(preparation)


def follow_updates(follow: Callable, finish: Callable[[], None]) -> None:
    """Have functions called in this process while it trains.

    Args:
        follow: called after every update, and before a checkpoint of it is written, with fairseq's configuration, its
            trainer, the task, the epoch (from 1) and whether the update is the epoch's last.
        finish: called after the last update.
    """
    _followers[follow] = finish


@dataclass(frozen=True)
class _Prepared:
    """A command's main function behind preparations; picklable, as fairseq sends it to the processes that it starts."""

    main: Callable
    preparations: tuple[Callable[[], None], ...]

    def __call__(self, *arguments, **options):
        for prepare in self.preparations:
            prepare()
        return self.main(*arguments, **options)


def _call_main(cfg, main, **kwargs) -> None:
    if _skipped:
        _skipped.clear()
        metrics.reset()  # a sweep would take the figures of its last training for those of this one
    else:
        _originals["call_main"](cfg, _Prepared(main, tuple(_preparations)) if _preparations else main, **kwargs)


def _all_gather_list(data, group=None, max_size=16384) -> list:
    """fairseq's buffer is a CUDA tensor."""
    if torch.cuda.is_available():
        return _originals["all_gather_list"](data, group, max_size)
    gathered = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, move_to_cpu(data), group)
    return gathered


# ---- checkpoints ---------------------------------------------------------------------------------------------------


def _torch_persistent_save(obj, filename, async_write: bool = False) -> None:
    """fairseq does not sync, tries three times, and leaves a traceback in the log."""
    _run_before_saving()
    if async_write or not isinstance(filename, str):
        _originals["torch_persistent_save"](obj, filename, async_write)
        return
    if _LAST in filename:
        checkpoint_files.keep_previous(filename)
    checkpoint_files.write(obj, filename)
    _saved_updates[:] = [history["num_updates"] for history in obj.get("optimizer_history", [])[-1:]]


def _run_before_saving() -> None:
    while _before_saving:
        _before_saving.pop()()


class _WholeCopies(PathManager):
    """fairseq copies onto the checkpoint that a training is resumed from, which a kill tears."""

    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        if _LAST in dst_path:
            checkpoint_files.keep_previous(dst_path)
        checkpoint_files.copy(src_path, dst_path)
        return True


def _load_checkpoint_to_cpu(path, arg_overrides=None, load_on_all_ranks=False):
    """fairseq evaluates some texts of a checkpoint's configuration, resolves its resolvers, and drops unknown options.

    Raises:
        InputError: a file that does not exist, is damaged, asks for more than tensors and literals, or was trained with
            an option that this version no longer has.
    """
    config = read_plain_checkpoint(path).get("cfg")
    if isinstance(config, dict):
        check_texts(config, path)
        check_retired(config, path)
    return _originals["load_checkpoint_to_cpu"](path, arg_overrides, load_on_all_ranks)


def _load_checkpoint(cfg, trainer, **passthrough_args):
    """Also what fairseq leaves out: repair, running averages at an epoch's start, what its last validation decided."""
    stopping.listen()
    _forget_earlier_training()
    if cfg.restore_file == f"{_LAST}.pt":
        if trainer.data_parallel_rank == 0:
            checkpoint_files.repair(f"{cfg.save_dir}/{_LAST}{trainer.checkpoint_suffix}.pt")
        if dist.is_initialized():
            dist.barrier()
    own, options = trainer.cfg.checkpoint.load_checkpoint_on_all_dp_ranks, trainer.cfg.checkpoint
    # Sent from the first process to the others it is refused there: torch reads no config objects any more.
    options.load_checkpoint_on_all_dp_ranks = True
    extra_state, epoch_itr = _originals["load_checkpoint"](cfg, trainer, **passthrough_args)
    options.load_checkpoint_on_all_dp_ranks = own
    # Without updates it is a checkpoint to start from, not one to go on with.
    resumes = extra_state is not None and trainer.get_num_updates() > 0
    begins_epoch = resumes and extra_state["train_iterator"]["iterations_in_epoch"] == 0
    if begins_epoch and not cfg.reset_meters:
        # fairseq forgets them all; only those of the epoch are of no use any more.
        inner = extra_state.get("metrics", {}).get("train_inner")
        if inner is not None:
            metrics.load_state_dict({"train_inner": inner})
    if begins_epoch and not cfg.reset_lr_scheduler and extra_state.get("val_loss") is not None:
        # It is saved before the schedule is told of the epoch's validation.
        trainer.lr_step(epoch_itr.epoch - 1, extra_state["val_loss"])
    if is_master():
        figure = extra_state.get("val_loss") if resumes else None
        _progress[:] = [ProgressWriter(cfg.save_dir, cfg.best_checkpoint_metric, figure, trainer.get_num_updates())]
    return extra_state, epoch_itr


def _forget_earlier_training() -> None:
    """A Hydra sweep trains several times in one process, and fairseq keeps the best figures as long as that."""
    _saved_updates.clear()
    _before_saving.clear()
    _progress.clear()
    stopping.forget_best_figures()


# ---- the training loop ---------------------------------------------------------------------------------------------


def _train(cfg, trainer, task, epoch_itr):
    """An epoch. A training that was killed between its last checkpoint and its end has none left."""
    max_update, patience = cfg.optimization.max_update, cfg.checkpoint.patience
    if 0 < max_update <= trainer.get_num_updates() or 0 < patience <= stopping.early_stopping_state().get(
        "num_runs", 0
    ):
        return [None], True
    _stopping_at.clear()
    try:
        losses, should_stop = _originals["train"](cfg, trainer, task, epoch_itr)
    except FloatingPointError as error:
        # What is left of it: the loss scale of half precision at its end, or gradients that differ between processes.
        raise non_finite.stopped_by(error, trainer) from None
    except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
        # A batch system may send the signal to the loader's processes as well.
        if not stopping.received() or not stopping.tells_of_an_ended_worker(error):
            raise
        stopping.leave(f"update {trainer.get_num_updates()} is not saved, an earlier one is")
    if _stopping_at:
        stopping.leave(f"update {_stopping_at[0]} is saved")
    return losses, should_stop


def _check_grad_norms(self: Trainer, grad_norm) -> None:
    """The host waits for the gradient's norm here anyway."""
    non_finite.check(self, grad_norm)
    _originals["_check_grad_norms"](self, grad_norm)


def _validate_and_save(cfg, trainer, task, epoch_itr, valid_subsets, end_of_epoch):
    """After every update. What is due is done, so that a resumed training has validated what an unbroken one has."""
    # A training that is resumed from this update's checkpoint does not follow the update again.
    _before_saving[:] = [partial(follow, cfg, trainer, task, epoch_itr.epoch, end_of_epoch) for follow in _followers]
    updates = trainer.get_num_updates()
    for progress in _progress:
        progress.move(updates, updates_in_all(cfg.optimization, epoch_itr, updates), epoch_itr.epoch)
        progress.write("training")
    losses, should_stop = _originals["validate_and_save"](cfg, trainer, task, epoch_itr, valid_subsets, end_of_epoch)
    _run_before_saving()
    is_last = should_stop or (end_of_epoch and 0 < cfg.optimization.max_epoch <= epoch_itr.epoch)
    for progress in _progress:
        if losses[0] is not None:
            progress.validated(losses[0])
        progress.write("training", at_once=is_last)
    if is_last:
        for finish in _followers.values():
            finish()
    if not should_stop and stopping.received_by_any(trainer.device):
        if _saved_updates != [updates]:
            checkpoint_utils.save_checkpoint(cfg.checkpoint, trainer, epoch_itr, None)
        if dist.is_initialized():
            dist.barrier()
        if not end_of_epoch:
            stopping.leave(f"update {updates} is saved")
        _stopping_at.append(updates)  # the epoch's figures are still to be logged
    return losses, should_stop


def _valid_step(self: Trainer, sample, raise_oom: bool = False):
    for progress in _progress:
        progress.write("validating")
    return _originals["valid_step"](self, sample, raise_oom)
