"""FSDP2: weights, gradients and optimizer of every layer are spread over the processes, and a layer is whole while it computes.

torch's `fully_shard` is called here directly. Accelerate's way to it averages gradients over processes and micro-batches,
where a step needs sums, and binds precision to autocast.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from tulu.errors import RecipeError
from tulu.model import state_files
from tulu.model.adapters import refuse_expert_adapters
from tulu.model.masters import HALF, LossScale, clip, parameters_of, steps_on
from tulu.model.packed import PackedModule
from tulu.model.private_state import layer_classes, stays_float32
from tulu.model.processes import Processes
from tulu.model.spreading import handed_over
from tulu.model.trunk import Trunk


def shard(module: nn.Module, processes: Processes, precision: str) -> None:
    """Spread a module over the processes: each layer by itself, and what is outside the layers together.

    The shards keep the dtype that the weights have now; what computes is in the given precision, and gradients arrive in float32.
    Raises RecipeError for a model whose forward passes a process cannot count beforehand, and for adapters of experts.
    """
    if any(isinstance(part, Trunk) and part.rows == "single" for part in module.modules()):
        cure = "Set sharding to none, zero1 or zero2: with fsdp2 every process must make equally many forward passes."
        raise RecipeError(f"sharding: fsdp2: this model must read one document at a time\n{cure}")
    refuse_expert_adapters(module, "fsdp2")
    mesh = mesh_of(processes.device.type, processes.world)
    half = HALF.get(precision)
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    as_they_are = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    with handed_over(module):
        if half is not None:
            for part in _float32_parts(module, half):
                fully_shard(part, mesh=mesh, mp_policy=as_they_are)
        for together in _parts(module):
            fully_shard(together, mesh=mesh, mp_policy=policy)
    for sharded_part in _fsdp_modules(module):
        # FSDP divides by the number of processes, where a step needs the sum. Gloo knows sums alone.
        sharded_part.set_force_sum_reduction_for_comms(True)
        sharded_part.set_gradient_divide_factor(1.0)
    # What is outside the layers stays whole until the backward pass. Where none follows, nobody may read it as weights.
    module.register_forward_hook(_spread_again)


@cache
def mesh_of(device_type: str, world: int) -> DeviceMesh:
    """All processes, as torch counts those that share a model."""
    return init_device_mesh(device_type, (world,))


def _spread_again(module: Any, *_: Any) -> None:
    """After a forward pass without gradients: hold shards alone again."""
    if not torch.is_grad_enabled():
        module.reshard()


def _parts(module: nn.Module) -> Iterator[list[nn.Module]]:
    """The layers, then the modules that compute by themselves, from the inside to the outside."""
    classes = layer_classes(module)
    # Modules come from the outside to the inside, and what Mamba calls a layer holds another.
    yield from _that_share([part for part in module.modules() if type(part).__name__ in classes][::-1])
    # PPO asks policy and value model together, and the policy alone for the log-probs of the reference.
    for part in module.modules():
        if isinstance(part, PackedModule) and part is not module:
            yield [part]
    yield [module]


def _that_share(layers: Sequence[nn.Module]) -> list[list[nn.Module]]:
    """Layers, those together that share a weight: Zamba's hybrid layers have one transformer between them."""
    inside = {layer: set(layer.modules()) for layer in layers}
    groups: list[list[nn.Module]] = []
    for layer in layers:
        own = set(layer.parameters())
        sharing = [
            group
            for group in groups
            if any(other not in inside[layer] and not own.isdisjoint(other.parameters()) for other in group)
        ]
        groups = [group for group in groups if group not in sharing]
        groups.append([*(other for group in sharing for other in group), layer])
    return groups


def _float32_parts(module: nn.Module, half: torch.dtype) -> Iterator[nn.Module]:
    """The modules that hold weights which transformers keeps in float32."""
    stays = stays_float32(module, half)
    for name, part in module.named_modules():
        own = [f"{name}.{parameter}" for parameter, _ in part.named_parameters(recurse=False)]
        if own and all(map(stays, own)):
            yield part


def _fsdp_modules(module: nn.Module) -> Iterator[FSDPModule]:
    return (part for part in module.modules() if isinstance(part, FSDPModule))


class FullySharded:
    """A module and its optimizer, spread over the processes. The shards are float32, and so are the masters themselves."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, processes: Processes, precision: str) -> None:
        self.module, self.optimizer, self.processes = module, optimizer, processes
        self.scale = LossScale(HALF.get(precision))
        places = {parameter: name for name, parameter in module.named_parameters()}
        trained = [places[parameter] for parameter in parameters_of(optimizer)]
        shard(module, processes, precision)
        found: dict[str, Any] = dict(module.named_parameters())
        self._sharded = {name: found[name] for name in trained}
        self._shards = {name: parameter.to_local().detach() for name, parameter in self._sharded.items()}
        steps_on(optimizer, self._shards.values())

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradients of a micro-batch, which are summed over the processes at once."""
        (loss * self.scale.factor if self.scale.moves else loss).backward()

    def gradient_norm(self) -> Tensor:
        """The norm of the gradients of all processes together."""
        gradients = []
        for name, parameter in self._sharded.items():
            if parameter.grad is not None:
                gradient = parameter.grad.to_local()
                self._shards[name].grad = gradient.div_(self.scale.factor) if self.scale.moves else gradient
                gradients.append(gradient)
        return self._total_norm(torch.nn.utils.get_total_norm(gradients))

    def _total_norm(self, own: Tensor) -> Tensor:
        """The norm over all processes, from that of the shards of this one."""
        return self.processes.add_up(own.to(self.processes.device).double().square()).sqrt().float()

    def step(self, clip_norms: Sequence[float | None], norm: Tensor) -> None:
        """Clip the gradients of each group of parameters to a norm, and step; `norm` is that of all gradients."""
        clip(self.optimizer, clip_norms, norm, self._total_norm)
        self.optimizer.step()

    def clear(self) -> None:
        """Forget the gradients, and the whole weights that a forward pass may have left."""
        for name, parameter in self._sharded.items():
            parameter.grad = self._shards[name].grad = None
        for part in _fsdp_modules(self.module):
            part.reshard()

    def save(self, folder: Path) -> None:
        """Write the shards of weights and optimizer, and the random states, of every process."""
        rank = self.processes.rank
        state_files.write(self._shards, folder / f"shards_{rank}.bin")
        state = {"state": self.optimizer.state_dict(), "scale": self.scale.state()}
        state_files.write(state, folder / f"optimizer_{rank}.bin")
        state_files.write_random_states(folder, rank)

    def load(self, folder: Path) -> None:
        """Go on from what as many processes wrote."""
        rank = self.processes.rank
        weights = folder / f"shards_{rank}.bin"
        state_files.fill(self._shards, state_files.read(weights), weights)
        stored = state_files.read(folder / f"optimizer_{rank}.bin")
        self.optimizer.load_state_dict(stored["state"])
        self.scale.load(stored["scale"])
        state_files.read_random_states(folder, rank)
        self.clear()
