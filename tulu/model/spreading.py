"""Weights that are spread over the processes while they are loaded, for FSDP2: each process reads its rows of a file alone.

A weight is a DTensor from then on, of which every process holds a stretch of rows, cut as FSDP2 itself cuts them. Until training
begins, a model is still looked at, compared and given adapters. Where it computes for that, `lent` makes one layer after the
other whole for as long as it computes. At last `handed_over` lets FSDP2 take over the rows without putting them together.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard

from tulu.model.private_state import layer_classes, replace_as_loaded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_mesh: DeviceMesh | None = None
"""The processes over which models are spread that are loaded now; None loads them whole."""


def spread_over(mesh: DeviceMesh | None) -> DeviceMesh | None:
    """From now on spread what is loaded over these processes, or over none; returns those before."""
    global _mesh
    before, _mesh = _mesh, mesh
    return before


def own_rows(length: int, world: int, rank: int) -> slice:
    """The rows of a tensor that a process holds: equally many each, and of the last ones what is left."""
    each = math.ceil(length / world)
    return slice(min(rank * each, length), min((rank + 1) * each, length))


def spread(whole: nn.Parameter, dtype: torch.dtype | None = None) -> nn.Parameter:
    """A parameter of which this process holds its own rows alone; a number stays as it is, since it has no rows.

    A whole that is mapped from a file is read no further than in these rows.
    """
    mesh = _mesh
    if mesh is None or whole.dim() == 0 or isinstance(whole, DTensor):
        return whole
    rows = own_rows(len(whole), mesh.size(), mesh.get_local_rank())
    # "cuda" stands for the GPU of this process.
    own = whole.detach()[rows].to(mesh.device_type, dtype or whole.dtype, copy=True).contiguous()
    shape = torch.empty(whole.shape, device="meta")
    tensor = DTensor.from_local(own, mesh, [Shard(0)], run_check=False, shape=shape.shape, stride=shape.stride())
    return nn.Parameter(tensor, requires_grad=whole.requires_grad)


@contextmanager
def spread_as_loaded(dtype: torch.dtype) -> Iterator[None]:
    """While the context lasts, transformers loads models of which this process keeps its own rows, where any are to be spread."""
    if _mesh is None:
        yield
        return
    with replace_as_loaded(spread, dtype):
        yield


def spread_rest(model: nn.Module) -> None:
    """Spread every weight of a model that is still whole, where models are to be spread; weights stay shared."""
    if _mesh is None:
        return
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module, name, parameter in _parameters(model):
        module.register_parameter(name, made.setdefault(parameter, spread(parameter)))


@torch.no_grad()
def put_together(parameter: Any) -> Tensor:
    """All rows of a spread parameter, in memory for one copy of them; all processes call it together."""
    own, mesh = parameter.to_local().detach().contiguous(), parameter.device_mesh
    world, rank, group = mesh.size(), mesh.get_local_rank(), mesh.get_group()
    whole = own.new_empty(parameter.shape)
    if len(whole) % world == 0:
        distributed.all_gather_single(whole, own, group=group)
        return whole
    for other in range(world):
        rows = whole[own_rows(len(whole), world, other)]
        if other == rank:
            rows.copy_(own)
        if rows.numel():
            distributed.broadcast(rows, group=group, group_src=other)
    return whole


@torch.no_grad()
def keep_own(parameter: Any, whole: Tensor) -> None:
    """Replace the rows that this process holds by those of `whole`."""
    mesh = parameter.device_mesh
    parameter.to_local().copy_(whole[own_rows(len(whole), mesh.size(), mesh.get_local_rank())])


# -- computing with them -------------------------------------------------------------------------------------------------


@contextmanager
def lent(model: nn.Module) -> Iterator[None]:
    """While the context lasts, the spread weights of a model are whole whenever it computes, those of one layer at a time.

    They carry no gradients. All processes must run the same forward passes. FSDP2 lends what it has taken over by itself.
    """
    places = [] if any(isinstance(part, FSDPModule) for part in model.modules()) else [*_by_unit(model)]
    handles = []
    for unit, parameters in places:
        kept: list[tuple[nn.Module, str, nn.Parameter]] = []
        handles.append(unit.register_forward_pre_hook(partial(_lend, parameters, kept)))
        handles.append(unit.register_forward_hook(partial(_take_back, kept), always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _by_unit(model: nn.Module) -> Iterator[tuple[nn.Module, list[tuple[nn.Module, str]]]]:
    """Each layer, each embedding and head outside them, and each model around them, with the places of its own spread weights."""
    from transformers import PreTrainedModel

    classes = layer_classes(model)
    layers = [part for part in model.modules() if type(part).__name__ in classes]
    inside_layers = {part for layer in layers for part in layer.modules()}
    units = {model, *layers}
    for part in model.modules():
        if isinstance(part, PreTrainedModel) or (isinstance(part, nn.Embedding | nn.Linear) and part not in inside_layers):
            units.add(part)
    for unit in units:
        inside, waiting = [], [unit]
        while waiting:
            part = waiting.pop()
            waiting += [child for child in part.children() if child not in units]
            inside += [(part, name) for name, weight in part.named_parameters(recurse=False) if isinstance(weight, DTensor)]
        if inside:
            yield unit, list(dict.fromkeys(inside))


def _lend(places: Iterable[tuple[nn.Module, str]], kept: list[tuple[nn.Module, str, nn.Parameter]], *_: Any) -> None:
    whole: dict[nn.Parameter, nn.Parameter] = {}
    for module, name in places:
        parameter: Any = getattr(module, name)
        kept.append((module, name, parameter))
        if parameter not in whole:
            whole[parameter] = nn.Parameter(put_together(parameter), requires_grad=False)
        module.register_parameter(name, whole[parameter])


def _take_back(kept: list[tuple[nn.Module, str, nn.Parameter]], *_: Any) -> None:
    while kept:
        module, name, parameter = kept.pop()
        module.register_parameter(name, parameter)


@contextmanager
def opened(model: "PreTrainedModel") -> Iterator[None]:
    """While the context lasts, what is outside the layers of a model is whole, so that it can be changed; then it is spread."""
    classes = layer_classes(model)
    inside = {part for layer in model.modules() if type(layer).__name__ in classes for part in layer.modules()}
    whole: dict[nn.Parameter, nn.Parameter] = {}
    for module, name, parameter in _parameters(model):
        if module not in inside and isinstance(parameter, DTensor):
            if parameter not in whole:
                whole[parameter] = nn.Parameter(put_together(parameter), requires_grad=parameter.requires_grad)
            module.register_parameter(name, whole[parameter])
    yield
    if whole:
        spread_rest(model)


# -- handing them over ---------------------------------------------------------------------------------------------------


@contextmanager
def handed_over(module: nn.Module) -> Iterator[None]:
    """Let FSDP2 shard a module within the context as if its spread weights were empty, and give it their rows afterwards."""
    rows: dict[str, nn.Parameter] = {}
    empty: dict[nn.Parameter, nn.Parameter] = {}
    names = {place: name for name, place in _names(module)}
    for part, name, parameter in _parameters(module):
        if isinstance(parameter, DTensor):
            rows[names[part, name]] = parameter
            if parameter not in empty:
                shape = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
                empty[parameter] = nn.Parameter(shape, requires_grad=parameter.requires_grad)
            part.register_parameter(name, empty[parameter])
    yield
    if rows:
        module.load_state_dict(rows, strict=False, assign=True)


def _parameters(model: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """(module, name in it, parameter) of every place that holds a parameter; one that is shared has several."""
    return [
        (part, name, parameter)
        for part in model.modules()
        for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False)
    ]


def _names(model: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, str]]]:
    """(name in the model, (module, name in it)) of every place that holds a parameter."""
    for path, part in model.named_modules():
        for name, _ in part.named_parameters(recurse=False, remove_duplicate=False):
            yield f"{path}.{name}" if path else name, (part, name)
