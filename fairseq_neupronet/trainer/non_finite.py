"""A loss or gradient that is NaN or infinite ends a training with one sentence, which names the clips.

fairseq stops too, but looks at the gradient only, logs every parameter's values and knows of no clips.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from fairseq_neupronet.errors import InputError

_NAMED = 10
_WHAT = "the loss or its gradient is NaN or infinite"


class RunningUpdate:
    """What has been computed of an update.

    Attributes:
        batches: the subset and clips of each batch.
        losses: of each batch.
    """

    def __init__(self):
        self._number = -1
        self.batches: list[tuple[str, list[int]]] = []
        self.losses: list[Tensor] = []

    def add(self, number: int, sample: dict, loss: Tensor) -> None:
        """A batch of update ``number``, after its backward pass."""
        if number != self._number:
            self._number, self.batches, self.losses = number, [], []
        self.batches.append((sample["subset"], sample["id"]))
        self.losses.append(loss.detach())

    def is_finite(self) -> bool:
        """Whether all losses are."""
        return not self.losses or bool(torch.stack(self.losses).isfinite().all())


def check(trainer, grad_norm: Tensor) -> None:
    """Look at an update before its step.

    Args:
        trainer: fairseq's, whose task has a :class:`RunningUpdate` as ``update``; other tasks are left to fairseq.
        grad_norm: (1,) or (); of all processes.

    Raises:
        InputError: it is to be stopped here; names the clips that do so alone, or else the batch.
    """
    update = getattr(trainer.task, "update", None)
    # With common.amp a gradient may overflow, and the step is then left out.
    gradient_is_finite = trainer.cfg.common.amp or bool(torch.isfinite(grad_norm).all())
    if update is None or (gradient_is_finite and update.is_finite()):
        return
    where = f"update {trainer.get_num_updates() + 1}: {_WHAT}"
    clips = [(subset, clip) for subset, ids in update.batches for clip in ids.tolist()]
    if dist.is_initialized() and dist.get_world_size() > 1:  # the clips alone would wait for the other processes
        whose = "this process's batch" if not update.is_finite() else "a batch of one of the processes, this one's"
        raise InputError(f"{where}, in {whose} being {_names(trainer.task, clips)}; {_cure(trainer)}")
    alone = [clip for clip in clips if not _is_finite_alone(trainer, *clip)]
    if 0 < len(alone) < len(clips):
        raise InputError(
            f"{where} because of {_names(trainer.task, alone)}; prepare these clips again, or take them out"
        )
    which = "each" if alone else "none"
    raise InputError(
        f"{where} in a batch of {len(clips)} clips, {which} of which is so alone: {_names(trainer.task, clips)}; "
        f"{_cure(trainer)}"
    )


def stopped_by(error: FloatingPointError, trainer) -> InputError:
    """The sentence for what fairseq itself stops a training with."""
    clips = [(subset, clip) for subset, ids in trainer.task.update.batches for clip in ids.tolist()]
    return InputError(
        f"update {trainer.get_num_updates() + 1}: {str(error).splitlines()[0]} Its batch is "
        f"{_names(trainer.task, clips)}; {_cure(trainer)}, or train with task.bfloat16=true in place of common.fp16"
    )


def _cure(trainer) -> str:
    return f"the training has diverged: lower optimization.lr (now {trainer.get_lr():g}) or optimization.clip_norm"


def _names(task, clips: list[tuple[str, int]]) -> str:
    shown = []
    for subset, clip in clips[:_NAMED]:
        dataset = task.dataset(subset)
        row = int(dataset.rows[clip])
        shown.append(f"{dataset.manifest.line_of(row)} ({dataset.manifest.clips[row]})")
    more = f" and {len(clips) - _NAMED} more" if len(clips) > _NAMED else ""
    return ", ".join(shown) + more


def _is_finite_alone(trainer, subset: str, clip: int) -> bool:
    """Loss and gradients of one clip as evaluation receives it: what a batch shares is left out."""
    model, criterion = trainer.get_model(), trainer.get_criterion()
    dataset = trainer.task.dataset(subset).for_evaluation()
    sample, _ = trainer._prepare_sample(dataset.collater([dataset[clip]]))
    model.eval()
    criterion.eval()
    trainer.zero_grad()
    loss = criterion(model, sample)[0]
    if not torch.isfinite(loss):
        return False
    if loss.requires_grad:
        loss.backward()
    gradients = (parameter.grad for parameter in model.parameters() if parameter.grad is not None)
    return all(bool(gradient.isfinite().all()) for gradient in gradients)
