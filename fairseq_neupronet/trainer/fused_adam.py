"""fairseq's Adam in one fused call of torch per group of parameters, instead of six operations for each.

The state is that of fairseq's Adam, name by name, so that a training may change from one to the other.
"""

import math
from collections import defaultdict

import torch
from fairseq.optim import adam, register_optimizer
from torch import Tensor
from torch.optim.adamw import adamw

from fairseq_neupronet.checkpoints.texts import parse_betas
from fairseq_neupronet.errors import InputError


class FusedAdam(torch.optim.Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019), as fairseq computes it.

    fairseq adds ``eps`` before the correction of the second moment's bias, torch after it; so the first updates
    differ, and with them the training. Here torch's kernel gets the ``eps`` that makes both equal.

    Args:
        params: parameters or groups of them; float32 or float64.
        lr: learning rate.
        betas: decay of the two moments.
        eps: see above.
        weight_decay: share of ``lr`` by which a parameter shrinks at each update.
    """

    supports_memory_efficient_fp16 = False
    supports_flat_params = True

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        """Do one update; ``closure`` is called first, as in fairseq's Adam."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for (step, _), parameters in self._of_equal_step(group["params"]).items():
                self._update(parameters, step, group)
        return loss

    def _of_equal_step(self, parameters: list[Tensor]) -> dict[tuple, list[Tensor]]:
        """Parameters with a gradient by the number of their update, which a frozen one begins to count later."""
        found = defaultdict(list)
        for parameter in parameters:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state |= {"step": 0, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
            state["step"] += 1
            found[state["step"], parameter.device].append(parameter)
        return found

    def _update(self, parameters: list[Tensor], step: int, group: dict) -> None:
        first, second = group["betas"]
        states = [self.state[parameter] for parameter in parameters]
        earlier = torch.full((len(parameters),), step - 1.0, device=parameters[0].device)
        adamw(
            parameters,
            [_laid_out_as(parameter, parameter.grad) for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            list(earlier.unbind()),
            fused=True,
            amsgrad=False,
            beta1=first,
            beta2=second,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"] / math.sqrt(1 - second**step),
            maximize=False,
        )

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        for parameter, state in self.state.items():
            state["step"] = int(state["step"])
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = _laid_out_as(parameter, state[name])


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The fused kernel walks through memory, so that all four tensors must lie in it in the same order."""
    if tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter).copy_(tensor)


@register_optimizer("fused_adam", dataclass=adam.FairseqAdamConfig)
class FairseqAdam(adam.FairseqAdam):
    """fairseq's adapter of :class:`FusedAdam`.

    It bears the name of fairseq's own because a checkpoint names its optimiser's class, and the state is the same.
    """

    def __init__(self, cfg, params):
        super(adam.FairseqAdam, self).__init__(cfg)
        if cfg.fp16_adam_stats:
            raise InputError("optimizer.fp16_adam_stats=true: fused_adam keeps its state in float32; leave it out")
        self._optimizer = FusedAdam(params, **self.optimizer_config)

    @property
    def optimizer_config(self) -> dict:
        cfg = self.cfg
        lr = cfg.lr if isinstance(cfg.lr, float) else cfg.lr[0]
        return {"lr": lr, "betas": parse_betas(cfg.adam_betas), "eps": cfg.adam_eps, "weight_decay": cfg.weight_decay}
