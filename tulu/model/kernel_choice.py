"""Which kernels stand in for the code of a model: those that are exact and faster, and leave the model as it was.

Shape letters: N positions that are read, H hidden size.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tulu.model import flash
from tulu.model.batch import pack_row
from tulu.model.dropout import evaluating
from tulu.model.gathering import gathered, is_spread
from tulu.model.kernel_places import Function, Norm, Place, places_of
from tulu.model.kernels import DEFINITIONS, Kernels, installed
from tulu.model.self_check import TOLERANCE, probe
from tulu.model.trunk import Trunk

log = logging.getLogger("tulu")

EXACT = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""By dtype, the largest mean difference of a kernel's values or gradients, relative to their mean size, that is rounding."""
COMPARED_TOKENS, TIMED_TOKENS = 300, 16_384
"""The lengths of the rows on which a kernel is compared with the architecture's own code, and timed beside it.

A row of training is as long as the latter. In a short one the time is that of Python, which says nothing about a kernel.
"""
FASTER = 0.9
"""The share of the time of what is there that a kernel may take, to be put in its place."""
REPEATS = 10
Clock = Callable[[Function, Sequence[Tensor]], float]
"""(function, its input) -> seconds of one forward and backward pass."""


def seconds(function: Function, arguments: Sequence[Tensor]) -> float:
    """The time of one forward and backward pass on the device of the arguments, compilation and other beginnings left out."""
    leaves = [tensor.detach().clone().requires_grad_(number < 2) for number, tensor in enumerate(arguments)]

    def once() -> None:
        values = _listed(function(*leaves))
        torch.autograd.grad(values, leaves[:2], [torch.ones_like(value) for value in values])

    def begin() -> float:
        if arguments[0].is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    with torch.enable_grad():
        for _ in range(REPEATS):
            once()
        start = begin()
        for _ in range(REPEATS):
            once()
        return (begin() - start) / REPEATS


def _listed(output: Any) -> list[Tensor]:
    return list(output) if isinstance(output, tuple) else [output]


def _values_and_gradients(function: Function, arguments: Sequence[Tensor]) -> list[Tensor]:
    """What a function returns, and the gradients of a weighted sum of it."""
    with torch.enable_grad():
        leaves = [tensor.detach().clone().requires_grad_(number < 2) for number, tensor in enumerate(arguments)]
        # A kernel may overwrite what it is given, which a leaf does not allow.
        output = function(*(leaf * 1 if leaf.requires_grad else leaf for leaf in leaves))
        values = _listed(output)
        weights = [torch.linspace(-1, 2, value.numel(), device=value.device, dtype=value.dtype) for value in values]
        upstream = [weight.view(value.shape) for weight, value in zip(weights, values, strict=True)]
        return [*(value.detach() for value in values), *torch.autograd.grad(values, leaves[:2], upstream)]


def _largest_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest mean difference of two lists of tensors, relative to the mean size of each."""
    off = [(a.float() - b.float()).abs().mean() / b.float().abs().mean() for a, b in zip(found, expected, strict=True)]
    # The largest of a list with NaN may be any of them; a tensor's is NaN.
    return float(torch.stack(off).max())


Choice = tuple[Kernels, Function]
"""Kernels, and that function of theirs which stands in at a place."""
_measured: dict[Any, Choice | None] = {}
"""What was chosen in this process, so that all models that it loads compute alike."""


def fastest(place: Place, sources: tuple[Kernels, ...], device: torch.device, clock: Clock) -> Choice | None:
    """What is exact at a place and faster than what is there; None where nothing is."""
    key = (place.key, sources, device, clock)
    if key not in _measured:
        _measured[key] = _measure(place, sources, device, clock)
    return _measured[key]


def _measure(place: Place, sources: tuple[Kernels, ...], device: torch.device, clock: Clock) -> Choice | None:
    try:
        # Which version a place needs is found with the definitions, since kernels are compiled for every one that is tried.
        number = _number_of_version(place, device)
        timed = [tensor.to(torch.bfloat16) for tensor in place.arguments(TIMED_TOKENS, device)]
        best, limit = None, FASTER * clock(place.own, timed)
    except Exception as error:  # noqa: BLE001  (it takes other arguments than its name says, each in a way of its own)
        log.info("%s is not replaced: %s: %s", place.name, type(error).__name__, error)
        return None
    if number is None:
        log.info("%s is not replaced: it computes something else than kernels do", place.name)
        return None
    for kernels in sources:
        version = list(place.versions(kernels))[number]
        try:
            if _is_exact(place, version, device) and (needed := clock(version, timed)) < limit:
                best, limit = (kernels, version), FASTER * needed
        except Exception as error:  # noqa: BLE001  (compilers and drivers fail in ways of their own)
            log.warning("%s of %s: %s: %s", place.name, kernels.name, type(error).__name__, error)
    return best


def _number_of_version(place: Place, device: torch.device) -> int | None:
    """The place in the order of versions of the one that computes what a place does; None where none does."""
    best, least = None, float("inf")
    for number, version in enumerate(place.versions(DEFINITIONS)):
        off = [_off(place, version, device, dtype) for dtype in EXACT]
        if all(difference <= limit for difference, limit in zip(off, EXACT.values(), strict=True)) and off[-1] < least:
            best, least = number, off[-1]
    return best


def _is_exact(place: Place, version: Function, device: torch.device) -> bool:
    """Whether a version's values and gradients are those of a place's own code."""
    return all(_off(place, version, device, dtype) <= limit for dtype, limit in EXACT.items())


def _off(place: Place, version: Function, device: torch.device, dtype: torch.dtype) -> float:
    arguments = [tensor.to(dtype) for tensor in place.arguments(COMPARED_TOKENS, device)]
    return _largest_difference(_values_and_gradients(version, arguments), _values_and_gradients(place.own, arguments))


def adopt_kernels(trunk: Trunk, sources: tuple[Kernels, ...] | None = None, clock: Clock = seconds) -> None:
    """Let kernels stand in for the code of a model where they are exact and faster, and name them in the log.

    After each of them the model must give the hidden states and gradients that it gave before, or its own code comes back.
    """
    device = next(trunk.model.parameters()).device
    if device.type == "cuda":
        flash.chosen(device)
    sources = installed(device) if sources is None else sources
    if not sources:
        return
    name, places, taken = type(trunk.owner).__name__, places_of(trunk.model), []
    # Processes that share the weights run equally many forward passes, whatever each of them measured, and no backward pass:
    # it would not find the weights whole.
    shared = is_spread(trunk.model)
    weights = None if shared else [module.weight for place in places if isinstance(place, Norm) for module in place.modules]
    with gathered(trunk.model):
        before = _states_and_gradients(trunk, weights)
        for place in places:
            choice = fastest(place, sources, device, clock)
            if choice is not None:
                place.put_in(choice[1], choice[0].device)
            if choice is None and not shared:
                continue
            fault = _fault(trunk, weights, before)
            if choice is not None and fault:
                place.take_out()
                log.warning("%s keeps its own %s, that of %s is not exact: %s", name, place.name, choice[0].name, fault)
            elif choice is not None:
                taken.append(f"{place.name} by {choice[0].name}")
    log.info("kernels of %s: %s", name, ", ".join(sorted(set(taken))) or "its own code alone")


def _fault(trunk: Trunk, weights: Sequence[Any] | None, before: Sequence[Tensor]) -> str:
    """How a model differs from what it gave before; empty where it does not."""
    try:
        off = _largest_difference(_states_and_gradients(trunk, weights), before)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    limit = TOLERANCE[before[0].dtype]
    return "" if off <= limit else f"hidden states or gradients differ by {off:.1e} of their size"


def _states_and_gradients(trunk: Trunk, weights: Sequence[Any] | None) -> list[Tensor]:
    """Hidden states of a row; of a model that trains also the gradients of its embedded tokens and of some of its weights.

    None stands for no gradients.
    """
    batch = pack_row([probe(trunk.owner, seed) for seed in (1, 2)]).to(next(trunk.model.parameters()).device)
    trains = weights is not None and any(parameter.requires_grad for parameter in trunk.model.parameters())
    leaves: list[Tensor] = [weight for weight in weights or () if weight.requires_grad]

    def catch(module: nn.Module, args: Any, output: Tensor) -> None:
        leaves.append(output if output.requires_grad else output.requires_grad_())

    handle = trunk.model.get_input_embeddings().register_forward_hook(catch) if trains else None
    try:
        with evaluating(trunk), torch.set_grad_enabled(trains):
            hidden_NH = trunk(batch)
            if not trains:
                return [hidden_NH]
            upstream_N1 = torch.linspace(-1, 2, len(hidden_NH), device=hidden_NH.device, dtype=hidden_NH.dtype)[:, None]
            found = torch.autograd.grad((hidden_NH * upstream_N1).sum(), leaves, allow_unused=True)
    finally:
        if handle is not None:
            handle.remove()
    return [hidden_NH.detach(), *(gradient for gradient in found if gradient is not None)]
