"""Half precision: weights and activations of 16 bits, behind which the optimizer keeps float32 weights, the masters.

An update is often smaller than the distance between two numbers of 16 bits, and would be lost without the masters. For the
same reason the gradients of micro-batches are added up in float32 as they arrive. What is saved, hashed and sent to an engine
are the masters.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tulu.model.gathering import set_whole
from tulu.model.private_state import stays_float32

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The dtype of weights and activations in each precision of 16 bits."""
DTYPES = {"fp32": torch.float32, **HALF}
"""The same in every precision."""


def halve(module: nn.Module, dtype: torch.dtype) -> dict[nn.Parameter, Tensor]:
    """Turn the weights of a module into 16 bits; returns the master of every weight that trains and was turned.

    Buffers stay as they are, and so does what transformers keeps in float32. A frozen weight that 16 bits do not hold exactly
    is kept in the memory of the CPU, so that what is saved is not rounded.
    """
    masters = {}
    stays = stays_float32(module, dtype)
    for name, parameter in module.named_parameters():
        if not parameter.is_floating_point() or parameter.dtype == dtype or stays(name):
            continue
        exact = parameter.detach()
        parameter.data = exact.to(dtype)
        if parameter.requires_grad:
            masters[parameter] = exact.float()
            set_whole(parameter, masters[parameter].detach)
        else:
            is_exact = torch.equal(parameter.detach().to(exact.dtype), exact)
            set_whole(parameter, partial(_frozen, parameter, exact.dtype, None if is_exact else exact.cpu()))
    return masters


def _frozen(parameter: nn.Parameter, dtype: torch.dtype, exact: Tensor | None) -> Tensor:
    """A frozen weight as it was loaded; None stands for the values that it still has."""
    return (parameter.detach() if exact is None else exact).to(parameter.device, dtype)


class Masters:
    """The float32 weights that an optimizer steps, with their gradients; each stands behind a parameter of the module.

    Where the parameter is float32 itself, it is its own master.
    """

    def __init__(self, module: nn.Module, trained: Iterable[nn.Parameter], dtype: torch.dtype | None) -> None:
        """Masters of the `trained` parameters of a module, which computes in `dtype` from now on; None leaves it as it is."""
        halved = halve(module, dtype) if dtype else {}
        self.pairs = [(parameter, halved.get(parameter, parameter)) for parameter in trained]
        """Every parameter that trains, and its master."""
        for parameter, master in self.pairs:
            if master is not parameter:
                parameter.register_post_accumulate_grad_hook(_adding_to(master))

    def __iter__(self) -> Iterator[Tensor]:
        return (master for _, master in self.pairs)

    def with_gradients(self) -> list[Tensor]:
        """The masters that have a gradient."""
        return [master for master in self if master.grad is not None]

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the weights that the module computes with."""
        for parameter, master in self.pairs:
            if master is not parameter:
                parameter.copy_(master)

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter, master in self.pairs:
            parameter.grad = master.grad = None


def _adding_to(master: Tensor) -> Any:
    """A hook that adds a parameter's new gradient to that of its master, and frees it."""

    def add(parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is not None:
            if master.grad is None:
                master.grad = gradient.float()
            else:
                master.grad.add_(gradient)
        parameter.grad = None

    return add


def steps_on(optimizer: torch.optim.Optimizer, masters: Iterable[Tensor]) -> None:
    """Let an optimizer that has not stepped yet step on the masters, which come in the order of its parameters."""
    rest = iter(masters)
    for group in optimizer.param_groups:
        group["params"] = [next(rest) for _ in group["params"]]


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Any]:
    """The parameters of an optimizer in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def clip(
    optimizer: torch.optim.Optimizer, largest: Sequence[float | None], norm: Tensor, total: Callable[[Tensor], Tensor]
) -> None:
    """Scale down the gradients of each group of an optimizer's parameters to its own largest norm; `norm` is that of all.

    `total` makes the norm over all processes from the norm of what this one holds.
    """
    for group, most in zip(optimizer.param_groups, largest, strict=True):
        masters = [master for master in group["params"] if master.grad is not None]
        own = total(torch.nn.utils.get_total_norm([master.grad for master in masters])) if len(largest) > 1 else norm
        if most is not None and masters:
            torch.nn.utils.clip_grads_with_norm_(masters, most, own)


class LossScale:
    """The factor of the loss that keeps gradients within what float16 holds, found by trying: constant 1 elsewhere.

    A step whose gradients overflow is passed over and the factor halved; after GROWTH_STEPS good steps it is doubled.
    """

    GROWTH_STEPS = 1000

    def __init__(self, dtype: torch.dtype | None) -> None:
        self.moves = dtype == torch.float16
        self.factor = 2.0**16 if self.moves else 1.0
        self.good_steps = 0
        self.skipped = 0
        """Steps that were passed over since the run began."""

    def update(self, is_finite: bool) -> None:
        """Learn whether the gradients of a step were finite."""
        if not self.moves:
            return
        if is_finite:
            self.good_steps += 1
            if self.good_steps % self.GROWTH_STEPS == 0:
                self.factor *= 2.0
        else:
            self.factor, self.good_steps, self.skipped = max(1.0, self.factor / 2.0), 0, self.skipped + 1

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"factor": self.factor, "good_steps": self.good_steps, "skipped": self.skipped}

    def load(self, state: dict[str, float]) -> None:
        """Go on from what a checkpoint kept."""
        self.factor, self.good_steps, self.skipped = state["factor"], int(state["good_steps"]), int(state["skipped"])
