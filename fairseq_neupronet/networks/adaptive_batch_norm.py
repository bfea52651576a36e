"""Batch norm by the statistics of a clip's group, in a network that was trained with those of its batches.

What is normalised away is what the group's clips have in common in every layer, and not in the mel bands only. Nothing
is trained for it (AdaBN: Li et al., "Revisiting batch normalization for practical domain adaptation", 2016); a group of
few clips is weighed against the running statistics as in Schneider et al., "Improving robustness against common
corruptions by covariate shift adaptation", NeurIPS 2020, section 2.

Letters: B clips, C channels of a batch norm, S = 2 · (channels of all of them), P groups or parts of groups.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from fairseq_neupronet.errors import InputError


def has_batch_norm(network: nn.Module | None) -> bool:
    """Whether there is anything to adapt."""
    return network is not None and any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def check_batch_norm(backbone: nn.Module | None, name: str, prior: float | None) -> None:
    """Refuse ``task.adaptive_batch_norm`` where there is nothing to adapt.

    Args:
        backbone: the network.
        name: of the backbone, for the message.
        prior: the option; None: it is not set.

    Raises:
        InputError: it is set, and the network has no batch norm.
    """
    if prior is not None and not has_batch_norm(backbone):
        raise InputError(
            f"task.adaptive_batch_norm={prior}: model.backbone={name} has no batch norm that could be adapted; take an "
            "efficientnet or a resnet, or leave it out"
        )


def n_sums(network: nn.Module) -> int:
    """1 + S."""
    return 1 + 2 * sum(module.num_features for module in network.modules() if isinstance(module, nn.BatchNorm2d))


@contextlib.contextmanager
def adapted_to_groups(network: nn.Module, part: Tensor, members: Tensor, prior: float) -> Iterator[list[Tensor]]:
    """As long as the context lasts, each clip of a batch is normalised by the statistics of its group.

    A group's mean and variance count as its n clips, the running ones as ``prior`` clips. All clips of a group have to
    be in the batch; which other groups are makes no difference.

    Args:
        network: in evaluation mode.
        part: (B,) int64, 0 … P − 1, by whose statistics each clip is normalised.
        members: (P, B) bool, the clips that these statistics are of; without any the running statistics stay. A clip
            need not be a member of its part.
        prior: clips, 0 or more.

    Yields:
        A list that a forward pass fills: (P, 1) the n of each part, and of each batch norm in turn (P, 2 C), sums over
        the clips of their means and mean squares. Joined they are what :func:`adapted_to_sums` takes; those of parts of
        a group add up.
    """
    # Summed in float64, so that the other groups of a batch do not show in the last digits.
    members = members.double()
    n_clips = members.sum(dim=1, keepdim=True)
    found = [n_clips]

    def sums_of(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        # torch.var_mean takes ten times as long over a channels-last map on a CPU.
        means = x.mean(dim=(2, 3))
        variances = (x - means[:, :, None, None]).square_().mean(dim=(2, 3))
        found.append(members @ torch.cat([means.double(), variances.double() + means.double().square()], dim=1))
        return found[-1]

    with _hooked(network, lambda norm, x: _normalized(norm, x, n_clips, sums_of(norm, x), prior, part)):
        yield found


def adapted_to_batch(backbone: nn.Module | None, batch: dict, prior: float | None) -> AbstractContextManager:
    """:func:`adapted_to_groups` for a batch that says which of its clips are together; nothing for another."""
    if "together" not in batch:
        return contextlib.nullcontext()
    return adapted_to_groups(backbone, **batch["together"], prior=prior)


@contextlib.contextmanager
def adapted_to_sums(network: nn.Module, sums: Tensor, prior: float) -> Iterator[None]:
    """The same by statistics that are there already.

    Args:
        network: in evaluation mode.
        sums: (B, 1 + S) float64, a row for each clip; zeros for one by itself.
        prior: clips, 0 or more.
    """
    n_clips, begin = sums[:, :1], 1

    def normalize(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        nonlocal begin
        begin, own = begin + 2 * norm.num_features, sums[:, begin : begin + 2 * norm.num_features]
        return _normalized(norm, x, n_clips, own, prior, slice(None))

    with _hooked(network, normalize):
        yield


def _normalized(
    norm: nn.BatchNorm2d, x: Tensor, n_clips: Tensor, sums: Tensor, prior: float, part: Tensor | slice
) -> Tensor:
    """(B, C, H, W), from the sums (P, 2 C) over parts' clips and the part (B,) that each clip is normalised by."""
    mean, square = (sums / n_clips.clamp(min=1)).chunk(2, dim=1)
    share = n_clips / (n_clips + prior).clamp(min=torch.finfo(torch.float64).tiny)
    variance = share * (square - mean.square()) + (1 - share) * norm.running_var
    scale = norm.weight * (variance + norm.eps).rsqrt()
    shift = norm.bias - (share * mean + (1 - share) * norm.running_mean) * scale
    scale, shift = (each.to(x.dtype)[part, :, None, None] for each in (scale, shift))
    return torch.addcmul(shift, x, scale)


@contextlib.contextmanager
def _hooked(network: nn.Module, normalize: Callable[[nn.BatchNorm2d, Tensor], Tensor]) -> Iterator[None]:
    def replace(norm: nn.BatchNorm2d, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        wide = inputs[0].to(torch.promote_types(inputs[0].dtype, torch.float32))
        return normalize(norm, wide).to(output.dtype)

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_hook(replace) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
