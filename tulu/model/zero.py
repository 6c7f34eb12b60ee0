"""DeepSpeed ZeRO through Accelerate: 1 shards the optimizer, 2 gradients too, 3 also the weights, already as they are loaded."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tulu.errors import RecipeError
from tulu.model.gathering import from_shards, set_whole
from tulu.model.masters import HALF, LossScale, halve
from tulu.model.private_state import (
    build_nothing,
    cast_shard,
    clip_zero_groups,
    deepspeed_engine,
    is_sharded,
    passing_over,
    reset_accelerate,
    shard_of,
)
from tulu.model.processes import Processes


class Zero:
    """A module and its optimizer inside a DeepSpeed engine. It is made before the model is loaded, which ZeRO-3 shards then."""

    def __init__(
        self, level: int, processes: Processes, precision: str, clip_norms: Sequence[float | None], offload: bool
    ) -> None:
        from accelerate import Accelerator, DeepSpeedPlugin

        self.processes, self.half, self.clip_norms = processes, HALF.get(precision), clip_norms
        config: dict[str, Any] = {
            "zero_optimization": {"stage": level, "overlap_comm": torch.cuda.is_available()},
            # Steps differ in their number of micro-batches, so `backward` marks the last one and DeepSpeed counts none.
            "gradient_accumulation_steps": 1,
            "train_micro_batch_size_per_gpu": 1,
            # DeepSpeed clips all gradients together. Where they are clipped apart, they have been when it steps.
            "gradient_clipping": clip_norms[0] or 0.0 if len(clip_norms) == 1 else 0.0,
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 1_000_000_000,
        }
        if offload:
            where = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
            config["zero_optimization"]["offload_optimizer"] = where
            # DeepSpeed's own optimizer for the CPU would have to be compiled on this machine.
            config["zero_force_ds_cpu_optimizer"] = False
        if self.half == torch.float16:
            from deepspeed.accelerator import get_accelerator

            if not get_accelerator().is_fp16_supported():
                cure = "set sharding to none or fsdp2, or precision to bf16"
                raise RecipeError(f"precision: fp16: DeepSpeed does not compute in it on this device; {cure}")
        if not torch.cuda.is_available():
            build_nothing()
        self._plugin = DeepSpeedPlugin(hf_ds_config=config)
        reset_accelerate()
        # An Accelerator that is given DeepSpeed and `cpu` at once silently drops DeepSpeed. Its own precision is autocast.
        self._accelerator = Accelerator(mixed_precision="no", deepspeed_plugin=self._plugin)

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """What forward passes go through, and the optimizer."""
        exact = self._halve(module) if self.half else {}
        runner, wrapped = self._accelerator.prepare(module, optimizer)
        self.module, self.engine = module, deepspeed_engine(self._accelerator)
        self._keep_exact(exact)
        return runner, wrapped

    # -- precision ---------------------------------------------------------------------------------------------

    def _halve(self, module: nn.Module) -> dict[nn.Parameter, Tensor]:
        """Weights of 16 bits; the float32 ones that train, as far as this process holds them.

        ZeRO-3 sharded the weights as they were loaded, in float32, since DeepSpeed knows of no precision until now.
        """
        assert self.half is not None
        config: dict[str, Any] = self._plugin.deepspeed_config
        # DeepSpeed would add up gradients in 16 bits.
        config["data_types"] = {"grad_accum_dtype": "fp32"}
        config["communication_data_type"] = "fp32"
        if self.half == torch.float16:
            scale = {"initial_scale_power": 16, "loss_scale_window": LossScale.GROWTH_STEPS, "hysteresis": 1}
            config["fp16"] = {"enabled": True, **scale}
        else:
            # A step whose gradients are not finite is passed over, as in float16.
            config["bf16"] = {"enabled": True, "check_grad_overflow": True}
        sharded = [parameter for parameter in module.parameters() if is_sharded(parameter)]
        exact = {}
        for parameter in sharded:
            before = cast_shard(parameter, self.half)
            if parameter.requires_grad:
                exact[parameter] = before
            else:
                is_exact = torch.equal(shard_of(parameter).to(before.dtype), before)
                exact_shard = None if is_exact else before.cpu()
                set_whole(parameter, partial(self._put_together, parameter, before.dtype, exact_shard))
        # Adapters are added to a loaded model, and are whole until DeepSpeed takes them.
        return {**exact, **halve(module, self.half)}

    def _keep_exact(self, exact: dict[nn.Parameter, Tensor]) -> None:
        """Give DeepSpeed's masters the values that 16 bits do not hold, and let masters be what is saved."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param, safe_set_local_fp32_param

        for parameter, values in exact.items():
            if is_sharded(parameter):
                safe_set_local_fp32_param(parameter, self._own_part(values, shard_of(parameter).numel()))
            else:
                safe_set_full_fp32_param(parameter, values)
            set_whole(parameter, partial(safe_get_full_fp32_param, parameter))

    def _own_part(self, values: Tensor, size: int) -> Tensor:
        """The part of whole values that this process holds, padded with zeros to the size of all parts; or the part itself."""
        if values.numel() == size:
            return values
        flat = values.flatten()
        padded = torch.cat([flat, flat.new_zeros(size * self.processes.world - flat.numel())])
        return padded[size * self.processes.rank :][:size]

    def _put_together(self, parameter: Any, dtype: torch.dtype, exact: Tensor | None) -> Tensor:
        """A frozen weight as it was loaded, from the shards of all processes; None stands for the values that it still has."""
        own = (shard_of(parameter) if exact is None else exact).to(self.processes.device, dtype)
        return from_shards(parameter, own)

    # -- a step ------------------------------------------------------------------------------------------------

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradients of a micro-batch; after the `last` one of a step they are summed over the processes."""
        self.engine.set_gradient_accumulation_boundary(is_boundary=last)
        # DeepSpeed averages gradients over processes, where a step needs their sum.
        self.engine.backward(loss * self.processes.world)

    def step(self, stands_out: Callable[[float], bool] | None = None) -> float:
        """Clip the gradients, step and clear them; returns their norm, at which a step is passed over if it is not finite.

        It is passed over, too, where `stands_out(norm)` says so, which is asked at most once.
        """
        before = clip_zero_groups(self.engine, self.clip_norms) if len(self.clip_norms) > 1 else None
        if stands_out is None:
            self.engine.step()
        else:
            with passing_over(self.engine, lambda norm: stands_out(norm if before is None else before)):
                self.engine.step()
        norm = float(self.engine.get_global_grad_norm() or 0.0)
        return norm if before is None or not math.isfinite(norm) else before

    def clear(self) -> None:
        """Forget the gradients."""
        self.engine.optimizer.zero_grad(set_to_none=True)

    @property
    def skipped(self) -> int:
        """Steps that were passed over since the run began."""
        return int(self.engine.skipped_steps)

    # -- checkpoints -------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the shards of weights, masters and optimizer, and the random states, of every process."""
        self._accelerator.save_state(str(folder), safe_serialization=False)

    def load(self, folder: Path) -> None:
        """Go on from what as many processes wrote."""
        self._accelerator.load_state(str(folder))


def cast_frozen(module: nn.Module, precision: str) -> None:
    """Give the shards of a frozen model, which ZeRO-3 always loads in float32, the precision that it computes in."""
    if precision in HALF:
        for parameter in filter(is_sharded, module.parameters()):
            cast_shard(parameter, HALF[precision])
