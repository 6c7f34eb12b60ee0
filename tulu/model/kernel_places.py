"""Where kernels can stand in for an architecture's own code: its norms, its gates and its rotary embedding.

Shape letters: T tokens of a row, H hidden size.
"""

import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tulu.model.kernels import CASTINGS, Kernels
from tulu.model.private_state import rotary_of, set_rotary, whole_shape

Function = Callable[..., Any]
"""A piece of code without state: tensors to a tensor, or to a tuple of them."""
OWN = "tulu_own"
"""The attribute of a rotary embedding that stands in for another one, which it holds."""
GATE_WIDTH = 4096
"""The width on which a gate is compared and timed that does not say how wide it is; each number is computed by itself."""


class Place(Protocol):
    """A piece of an architecture's code, and where a model runs it."""

    @property
    def name(self) -> str:
        """What the architecture calls it."""

    @property
    def key(self) -> tuple[Any, ...]:
        """Code and sizes: what is measured of one place holds for all with the same key."""

    def arguments(self, n_tokens: int, device: torch.device) -> list[Tensor]:
        """Random float32 input of `own`, of which the first two have gradients, made on a device: on a CPU it takes seconds."""

    def own(self, *arguments: Tensor) -> Any:
        """The architecture's own code."""

    def versions(self, kernels: Kernels) -> Iterator[Function]:
        """What could stand in for it, in an order that does not depend on the kernels."""

    def put_in(self, version: Function, device: str) -> None:
        """Let the model run a version on a type of device."""

    def take_out(self) -> None:
        """Let the model run its own code again."""


class OfModules:
    """A place that is the forward method of some modules."""

    modules: tuple[nn.Module, ...]

    def take_out(self) -> None:
        for module in self.modules:
            vars(module).pop("forward", None)


@dataclass(frozen=True)
class Norm(OfModules):
    """Norms of one class and width."""

    kind: type[nn.Module]
    width: int
    epsilon: float
    modules: tuple[nn.Module, ...] = field(repr=False)

    @property
    def name(self) -> str:
        return self.kind.__name__

    @property
    def key(self) -> tuple[Any, ...]:
        return (Norm, self.kind, self.width, self.epsilon)

    def arguments(self, n_tokens: int, device: torch.device) -> list[Tensor]:
        return [_random(device, 1, n_tokens, self.width, seed=1), 1 + 0.2 * _random(device, self.width, seed=2)]

    def own(self, *arguments: Tensor) -> Any:
        x, weight = arguments
        twin = copy.copy(self.modules[0])
        vars(twin)["_parameters"] = {"weight": weight}
        return self.kind.forward(twin, x)

    def versions(self, kernels: Kernels) -> Iterator[Function]:
        for offset in (0.0, 1.0):
            for casting in CASTINGS:
                yield partial(_norm, kernels.rms_norm, self.epsilon, offset, casting)

    def put_in(self, version: Function, device: str) -> None:
        for module in self.modules:
            vars(module)["forward"] = partial(self._forward, version, device, module)

    def _forward(self, version: Function, device: str, module: Any, x: Tensor, *others: Any, **options: Any) -> Any:
        if others or options or x.device.type != device or x.dtype != module.weight.dtype:
            return self.kind.forward(module, x, *others, **options)
        return version(x, module.weight)


def _norm(kernel: Function, epsilon: float, offset: float, casting: str, x: Tensor, weight: Tensor) -> Any:
    return kernel(x, weight, epsilon, offset, casting)


@dataclass(frozen=True)
class Gate(OfModules):
    """Gated feed-forward layers of one class: down(act(gate(x)) · up(x)), of which the part between the products is replaced."""

    PARTS: ClassVar = ("gate_proj", "up_proj", "down_proj", "act_fn")

    kind: type[nn.Module]
    activation: str
    width: int
    modules: tuple[nn.Module, ...] = field(repr=False)

    @property
    def name(self) -> str:
        return self.kind.__name__

    @property
    def key(self) -> tuple[Any, ...]:
        return (Gate, self.kind, self.activation, self.width)

    def arguments(self, n_tokens: int, device: torch.device) -> list[Tensor]:
        return [_random(device, 1, n_tokens, self.width, seed=seed) for seed in (1, 2)]

    def own(self, *arguments: Tensor) -> Any:
        a, b = arguments
        module: Any = self.modules[0]
        return module.act_fn(a) * b

    def versions(self, kernels: Kernels) -> Iterator[Function]:
        yield from kernels.gates

    def put_in(self, version: Function, device: str) -> None:
        for module in self.modules:
            vars(module)["forward"] = partial(self._forward, version, device, module)

    def _forward(self, version: Function, device: str, module: Any, x: Tensor) -> Any:
        if x.device.type != device:
            return self.kind.forward(module, x)
        return module.down_proj(version(module.gate_proj(x), module.up_proj(x)))


@dataclass(frozen=True)
class Rotary:
    """The rotary embedding of all layers in one file of an architecture."""

    file: str
    heads: int
    key_heads: int
    size: int

    @property
    def name(self) -> str:
        return str(_original(rotary_of(self.file)).__name__)

    @property
    def key(self) -> tuple[Any, ...]:
        return (Rotary, self.file, self.heads, self.key_heads, self.size)

    def arguments(self, n_tokens: int, device: torch.device) -> list[Tensor]:
        speeds = 10_000 ** -torch.linspace(0, 1, self.size // 2, device=device)
        half = torch.arange(n_tokens, device=device)[:, None] * speeds[None]
        angles = torch.cat([half, half], dim=-1)[None]
        # As they come from projections: token by token, every token's heads one after the other.
        query = _random(device, 1, n_tokens, self.heads, self.size, seed=1).transpose(1, 2)
        key = _random(device, 1, n_tokens, self.key_heads, self.size, seed=2).transpose(1, 2)
        return [query, key, angles.cos(), angles.sin()]

    def own(self, *arguments: Tensor) -> Any:
        query, key, cosines, sines = arguments
        turned = _original(rotary_of(self.file))(query, key, cosines, sines)
        return tuple(tensor.to(query.dtype) for tensor in turned)

    def versions(self, kernels: Kernels) -> Iterator[Function]:
        yield kernels.rotary

    def put_in(self, version: Function, device: str) -> None:
        own = _original(rotary_of(self.file))

        def apply_rotary_pos_emb(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *others: Any, **options: Any) -> Any:
            whole = cos.dim() == 3 and cos.shape[-1] == q.shape[-1] == k.shape[-1]
            if others or options or not whole or q.device.type != device:
                return own(q, k, cos, sin, *others, **options)
            return version(q, k, cos, sin)

        vars(apply_rotary_pos_emb)[OWN] = own
        set_rotary(self.file, apply_rotary_pos_emb)

    def take_out(self) -> None:
        set_rotary(self.file, _original(rotary_of(self.file)))


def _original(function: Any) -> Any:
    return getattr(function, OWN, function)


def _random(device: torch.device, *shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def places_of(model: PreTrainedModel) -> list[Place]:
    """The places of a transformer where kernels could stand in."""
    found: dict[Any, list[nn.Module]] = {}
    for module in model.modules():
        if "forward" not in vars(module) and (key := _norm_key(module) or _gate_key(module)) is not None:
            found.setdefault(key, []).append(module)
    places: list[Place] = [kind(*key, modules=tuple(modules)) for (kind, *key), modules in found.items()]
    config = model.config.get_text_config()
    heads, hidden = (getattr(config, name, None) for name in ("num_attention_heads", "hidden_size"))
    if heads and hidden:
        key_heads = getattr(config, "num_key_value_heads", None) or heads
        sizes = (heads, key_heads, getattr(config, "head_dim", None) or hidden // heads)
        files = sorted({type(module).__module__ for module in model.modules()})
        places += [Rotary(file, *sizes) for file in files if rotary_of(file) is not None]
    return places


def _norm_key(module: nn.Module) -> tuple[Any, ...] | None:
    """What tells a norm with one weight and an epsilon from others; None for other modules."""
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    alone = not any(True for _ in module.children()) and not any(True for _ in module.buffers())
    names = [name for name, _ in module.named_parameters()]
    if not (alone and names == ["weight"] and isinstance(epsilon, float)):
        return None
    shape = whole_shape(module.weight)
    return (Norm, type(module), shape[0], epsilon) if len(shape) == 1 else None


def _gate_key(module: nn.Module) -> tuple[Any, ...] | None:
    """What tells a gated feed-forward layer from others; None for other modules."""
    if not all(callable(getattr(module, name, None)) for name in Gate.PARTS):
        return None
    one_input = len(inspect.signature(type(module).forward).parameters) == 2
    width = getattr(module.gate_proj, "out_features", GATE_WIDTH)
    return (Gate, type(module), repr(module.act_fn), width) if one_input else None
