"""Whole weights of a model of which this process may hold only a shard, or only a rounded copy.

A parameter that is not simply what it stands for carries a way to its whole values: its float32 master, or the shards of all
processes put together. ZeRO-3 and FSDP2 shard weights already when they are loaded, before any optimizer is there; what it
takes to compute with such weights is here and in model/spreading.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor
from torch.func import functional_call

from tulu.errors import RecipeError, first_few
from tulu.model.private_state import is_sharded, shard_of, swap_zero3_settings
from tulu.model.spreading import keep_own, lent, put_together, spread_over

_WHOLE = "tulu_whole_values"
"""The attribute of a parameter that holds the way to its whole values."""


def set_whole(parameter: Tensor, values: Callable[[], Tensor]) -> None:
    """From now on `values()` are the whole values of a parameter; where it is sharded, all processes call it together."""
    setattr(parameter, _WHOLE, values)


def has_whole(parameter: Tensor) -> bool:
    """Whether a parameter's whole values are others than those it holds."""
    return hasattr(parameter, _WHOLE)


def is_spread(module: nn.Module) -> bool:
    """Whether this process holds no more than a shard of some weight of a module."""
    return any(is_sharded(parameter) or isinstance(parameter, DTensor) for parameter in module.parameters())


@contextmanager
def whole(parameter: Tensor, overwrite: bool = False) -> Iterator[Tensor]:
    """All entries of a parameter in every process: of its float32 master where there is one, and gathered where it is sharded.

    With `overwrite`, which serves before there is an optimizer, every process may write the same new entries.
    """
    values: Callable[[], Tensor] | None = getattr(parameter, _WHOLE, None)
    if values is not None:
        yield values()
    elif is_sharded(parameter):
        import deepspeed

        with deepspeed.zero.GatheredParameters(parameter, modifier_rank=0 if overwrite else None):
            yield parameter
    elif isinstance(parameter, DTensor):
        together = put_together(parameter)
        yield together
        if overwrite:
            keep_own(parameter, together)
    else:
        yield parameter


def whole_values(parameter: Tensor) -> Tensor:
    """All entries of a parameter; where they are only gathered for a while, in a tensor that stays."""
    if is_sharded(parameter) and not has_whole(parameter):
        return from_shards(parameter, shard_of(parameter))
    with whole(parameter) as values:
        return values.detach()


def from_shards(parameter: Any, own: Tensor) -> Tensor:
    """The entries of a parameter that ZeRO-3 shards, from a shard of each process, in memory for one copy of them."""
    flat = own.new_empty(distributed.get_world_size() * own.numel())
    distributed.all_gather_single(flat, own)
    return flat[: parameter.ds_numel].view(parameter.ds_shape)


class _Delta(nn.Module):
    """What an adapter adds to the weight of its layer, as a forward pass, for which a layer can be lent other weights."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, adapter: str) -> Tensor:
        delta: Tensor = self.layer.get_delta_weight(adapter)
        return delta


@torch.no_grad()
def adapter_delta(layer: Any, adapter: str) -> Tensor:
    """What an adapter adds to the weight of its layer, from whole float32 weights of the adapter.

    peft knows how each of its layers adds to its weight: transposed, one matrix for each expert …
    """
    own = {name: parameter for name, parameter in layer.named_parameters() if not name.startswith("base_layer.")}
    lent = {f"layer.{name}": whole_values(parameter) for name, parameter in own.items()}
    delta: Tensor = functional_call(_Delta(layer), lent, (adapter,))
    return delta


@contextmanager
def gathered(model: torch.nn.Module) -> Iterator[None]:
    """While the context lasts, a module's weights are whole whenever it computes, also where they were sharded at loading.

    It serves forward passes outside the training engine. All processes must run the same ones.
    """
    sharded = [module for module in model.modules() if any(map(is_sharded, module.parameters(recurse=False)))]
    open_contexts: dict[torch.nn.Module, Any] = {}

    def gather(module: torch.nn.Module, *_: Any) -> None:
        import deepspeed

        open_contexts[module] = deepspeed.zero.GatheredParameters(list(module.parameters(recurse=False)))
        open_contexts[module].__enter__()

    def release(module: torch.nn.Module, *_: Any) -> None:
        open_contexts.pop(module).__exit__(None, None, None)

    hooks = [module.register_forward_pre_hook(gather) for module in sharded]
    hooks += [module.register_forward_hook(release) for module in sharded]
    try:
        with lent(model):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def forget_sharding() -> None:
    """Let later models load whole in this process; transformers shards every model while ZeRO-3 settings are alive."""
    swap_zero3_settings(None)
    spread_over(None)


@contextmanager
def unsharded() -> Iterator[None]:
    """While the context lasts, models load whole in this process, also where the trained one is sharded."""
    before, mesh = swap_zero3_settings(None), spread_over(None)
    try:
        yield
    finally:
        swap_zero3_settings(before)
        spread_over(mesh)


def refuse_not_finite(model: Any) -> None:
    """Raise RecipeError where weights of a transformers model are not finite; every process must ask, and gets the same."""
    names = []
    for name, parameter in model.named_parameters():
        with whole(parameter) as values:
            if not torch.isfinite(values).all():
                names.append(name)
    if names:
        raise RecipeError(
            f"{model.name_or_path}: weights that are not finite: {first_few(names)}\nTake another checkpoint of it."
        )
