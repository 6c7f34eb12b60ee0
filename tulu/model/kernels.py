"""Kernels that stand in for an architecture's own norms, gates and rotary embedding on a GPU, where they are exact and faster.

Each of the three is a few operations on every number of the hidden states, and the architecture's own code reads and writes
them once for every operation. Kernels read and write them once in all: those of Liger (the extra `tulu[gpu]`), and those that
torch.compile makes of the plain definitions below. No list says which architecture takes which: they are compared with the
architecture's own code and timed, and the fastest takes its place (`kernel_choice`). Then the whole model must still give the
hidden states and the gradients that it gave before, or its own code comes back.

Shape letters: T tokens of a row, H hidden size, d size of a head.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from tulu.model.private_state import allow_recompilations

log = logging.getLogger("tulu")

CASTINGS = ("llama", "gemma")
"""Whether a norm multiplies by its weight after it has rounded to the dtype of its input (llama), or before (gemma)."""


@dataclass(frozen=True)
class Kernels:
    """Functions that compute norms, gates and rotary embeddings on one type of device."""

    name: str
    device: str
    rms_norm: Callable[[Tensor, Tensor, float, float, str], Tensor]
    """(x, weight, epsilon, what is added to the weight, one of CASTINGS) -> x / rms(x) · (offset + weight)."""
    gates: tuple[Callable[[Tensor, Tensor], Tensor], ...]
    """(a, b) -> act(a) · b, one for each activation."""
    rotary: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    """(queries (1, heads, T, d), keys, cosines (1, T, d), sines) -> rotated queries and keys, in their dtype."""


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, offset: float, casting: str) -> Tensor:
    """A norm, from its definition."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    if casting == "llama":
        return (offset + weight) * wide.to(x.dtype)
    return ((offset + weight.to(wide.dtype)) * wide).to(x.dtype)


def silu_gate(a: Tensor, b: Tensor) -> Tensor:
    """SwiGLU's gate."""
    return torch.nn.functional.silu(a) * b


def gelu_gate(a: Tensor, b: Tensor) -> Tensor:
    """GeGLU's gate, with the approximation by tanh."""
    return torch.nn.functional.gelu(a, approximate="tanh") * b


def rotary(query: Tensor, key: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor]:
    """A rotary embedding that turns the first half of a head against the second, from its definition."""
    cosines, sines = cosines.unsqueeze(1), sines.unsqueeze(1)

    def turned(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return (x * cosines + torch.cat([-second, first], dim=-1) * sines).to(x.dtype)

    return turned(query), turned(key)


DEFINITIONS = Kernels("the definitions", "any", rms_norm, (silu_gate, gelu_gate), rotary)
"""What every kernel must compute."""


@cache
def installed(device: torch.device) -> tuple[Kernels, ...]:
    """The kernels that this machine has for a device, in the order in which they are preferred; none on a CPU."""
    return tuple(_found(device)) if device.type == "cuda" else ()


def _found(device: torch.device) -> Iterator[Kernels]:
    for name, load, package in (("Liger", _liger, "liger_kernel"), ("torch.compile", _compiled, "triton")):
        if find_spec(package) is None:
            log.info("no kernels of %s: %s is not installed (pip install tulu[gpu])", name, package)
            continue
        try:
            yield load()
        except (ImportError, AttributeError, RuntimeError) as error:
            log.warning("no kernels of %s: %s: %s", name, type(error).__name__, error)


def _liger() -> Kernels:
    """Liger's kernels (github.com/linkedin/Liger-Kernel, 0.8), which are written in Triton."""
    from liger_kernel.transformers.functional import liger_geglu, liger_rms_norm, liger_rope, liger_swiglu

    def norm(x: Tensor, weight: Tensor, epsilon: float, offset: float, casting: str) -> Tensor:
        # In place, it would write its gradient over one that other layers may read.
        normed: Tensor = liger_rms_norm(x, weight, epsilon, offset, casting, in_place=False)
        return normed

    def turn(query: Tensor, key: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor]:
        # It turns them where they are, and what is kept for selective checkpointing may not change.
        turned: tuple[Tensor, Tensor] = liger_rope(query.clone(), key.clone(), cosines, sines)
        return turned

    return Kernels("Liger", "cuda", norm, (liger_swiglu, liger_geglu), turn)


def _compiled() -> Kernels:
    """What torch.compile makes of the definitions."""
    # One for each width, dtype, length and mode of gradients.
    allow_recompilations(64)
    functions: Any = [torch.compile(function) for function in (rms_norm, silu_gate, gelu_gate, rotary)]
    norm, *gates, turn = functions
    return Kernels("torch.compile", "cuda", norm, tuple(gates), turn)
