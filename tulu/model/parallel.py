"""The processes that train together, through Accelerate: one, or several with DeepSpeed ZeRO, on GPUs or on CPUs with gloo.

ZeRO-1 shards the optimizer's state between the processes, ZeRO-2 gradients too, and ZeRO-3 also the weights, already when
they are loaded. What a sharded weight needs to be read or computed with is at the end of this file.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from tulu.config.processes import world_size
from tulu.config.schema import TrainStage
from tulu.errors import RecipeError
from tulu.losses import Metrics
from tulu.model.private_state import deepspeed_engine, is_sharded, reset_accelerate, swap_zero3_settings

T = TypeVar("T")


class Parallel:
    """This process among the others, and what they do together."""

    def __init__(self, stage: TrainStage) -> None:
        # One process has nobody to share its weights with: ZeRO begins with two.
        self.deepspeed = bool(stage.zero) and world_size() > 1
        if self.deepspeed and not torch.cuda.is_available():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # DeepSpeed chooses its device when accelerate imports it.
        from accelerate import Accelerator, PartialState

        on_cpu = not torch.cuda.is_available()
        # This connects the processes. An Accelerator that is given DeepSpeed and `cpu` at once silently drops DeepSpeed.
        PartialState(cpu=on_cpu)
        reset_accelerate()
        self.accelerator = Accelerator(
            mixed_precision="bf16" if stage.precision == "bf16" else "no",
            deepspeed_plugin=_deepspeed_plugin(stage) if self.deepspeed else None,
            cpu=on_cpu and not self.deepspeed,
        )
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self.device = self.accelerator.device
        self.clip_norm = stage.clip_norm
        self.seed = stage.seed
        self.module: torch.nn.Module | None = None
        """The module under training, once it is prepared."""
        if self.world > 1 and not stage.zero:
            raise RecipeError(f"zero: 0: {self.world} processes train together through DeepSpeed; set zero to 1, 2 or 3")

    def prepare(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """Module and optimizer, wrapped for mixed precision and sharding; the random states of training begin here."""
        self.module = module
        prepared, wrapped = self.accelerator.prepare(module, optimizer)
        # Dropout draws from torch's own random state. Ranks train on different rows and draw different masks.
        torch.manual_seed(self.seed + self.rank)
        return prepared, wrapped

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate gradients. `last` marks the last micro-batch of a step, after which DeepSpeed adds up those of all ranks."""
        if self.deepspeed:
            engine = deepspeed_engine(self.accelerator)
            engine.set_gradient_accumulation_boundary(is_boundary=last)
            # DeepSpeed averages gradients over processes, where a step needs their sum.
            engine.backward(loss * self.world)
        else:
            self.accelerator.backward(loss)

    def finish_step(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> tuple[float, float]:
        """Clip the gradients, step and clear them, unless `loss` over all processes or the norm of the gradients is not finite.

        Returns both, the norm as it was before clipping; they are the same in every process, and this is the one place of a
        step that waits for the device. Where one of them is not finite no weight has moved.
        """
        if self.deepspeed:
            total, norm = self.total(float(loss)), math.nan
            if math.isfinite(total):
                engine = deepspeed_engine(self.accelerator)
                # DeepSpeed computes the norm as it steps, and passes over a step whose norm is not finite.
                engine.step()
                norm = float(engine.get_global_grad_norm() or 0.0)
            return total, norm
        parameters = [parameter for parameter in module.parameters() if parameter.grad is not None]
        norms = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        total, norm = torch.stack([loss.double(), norms.to(loss.device).double()]).tolist()
        if math.isfinite(total) and math.isfinite(norm):
            if self.clip_norm:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norms)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total, norm

    def not_finite(self, module: torch.nn.Module) -> list[str]:
        """The parameters of a module that hold a NaN or an infinity, by name; every process gets those of all."""
        # Where ZeRO-3 shards a parameter, each process looks at its own shard.
        held = {name: getattr(parameter, "ds_tensor", parameter).detach() for name, parameter in module.named_parameters()}
        whole = torch.stack([torch.isfinite(tensor).all() for tensor in held.values()]).tolist() if held else []
        own = [name for name, is_finite in zip(held, whole, strict=True) if not is_finite]
        return sorted({name for names in self.exchange(own) for name in names})

    def total(self, number: float) -> float:
        """The sum of a number over all processes."""
        if self.world == 1:
            return number
        return float(self.accelerator.reduce(torch.tensor(number, dtype=torch.float64), "sum"))

    def largest(self, number: int) -> int:
        """The largest of a number over all processes."""
        if self.world == 1:
            return number
        return int(self.accelerator.gather(torch.tensor([number])).max())

    def means(self, metrics: Metrics) -> dict[str, float]:
        """Exact means over all processes of (sum, count) metrics."""
        names = sorted(metrics)
        if not names:
            return {}
        pairs = torch.stack([torch.stack([metrics[name][0].double(), metrics[name][1].double()]) for name in names])
        pairs = self.accelerator.reduce(pairs, "sum") if self.world > 1 else pairs
        return {name: float(total / count) if count else float("nan") for name, (total, count) in zip(names, pairs, strict=True)}

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's share of items that all ranks have: every world-th one, from its own rank on."""
        return items[self.rank :: self.world]

    def level(self, rows: Sequence[T], spare: T | None) -> Iterator[tuple[T, bool]]:
        """Every row of this process with True, then `spare` with False until all processes have yielded equally many.

        Processes that share weights must run equally many forward passes. ValueError where a spare is needed and there is none.
        """
        for index in range(self.largest(len(rows))):
            is_own = index < len(rows)
            row = rows[index] if is_own else spare
            if row is None:
                raise ValueError("a process without a row of its own needs a spare one")
            yield row, is_own

    def exchange(self, item: Any) -> list[Any]:
        """Every rank's item, in the order of ranks."""
        if self.world == 1:
            return [item]
        from accelerate.utils import gather_object

        return list(gather_object([item]))

    def wait(self) -> None:
        """Wait until every process has called this."""
        self.accelerator.wait_for_everyone()

    def save(self, folder: Path) -> None:
        """Write weights, optimizer and random states of all processes into a folder."""
        self.accelerator.save_state(str(folder), safe_serialization=False)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, with as many processes as wrote it."""
        self.accelerator.load_state(str(folder))


def _deepspeed_plugin(stage: TrainStage) -> Any:
    """What accelerate is told of DeepSpeed; learning rate and schedule are not its concern."""
    from accelerate import DeepSpeedPlugin

    config: Mapping[str, Any] = {
        "zero_optimization": {"stage": stage.zero, "overlap_comm": torch.cuda.is_available()},
        # Steps differ in their number of micro-batches, so `backward` marks the last one and DeepSpeed counts none.
        "gradient_accumulation_steps": 1,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": stage.clip_norm or 0.0,
        # A step whose gradients are not finite is passed over, so that it can be refused with the weights as they were.
        "bf16": {"enabled": stage.precision == "bf16", "check_grad_overflow": True},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,
    }
    return DeepSpeedPlugin(hf_ds_config=dict(config))


@contextmanager
def whole(parameter: Tensor, overwrite: bool = False) -> Iterator[Tensor]:
    """While the context lasts, the parameter has all its entries in every process, also where ZeRO-3 sharded it.

    With `overwrite` every process may write the same new entries, which are then sharded again.
    """
    if not is_sharded(parameter):
        yield parameter
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(parameter, modifier_rank=0 if overwrite else None):
        yield parameter


@contextmanager
def gathered(model: torch.nn.Module) -> Iterator[None]:
    """While the context lasts, a module's weights are whole whenever it computes, also where ZeRO-3 sharded them at loading.

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
        yield
    finally:
        for hook in hooks:
            hook.remove()


def forget_sharding() -> None:
    """Let later models load whole in this process; transformers shards every model while ZeRO-3 settings are alive."""
    swap_zero3_settings(None)


@contextmanager
def unsharded() -> Iterator[None]:
    """While the context lasts, models load whole in this process, also where ZeRO-3 shards the trained one."""
    before = swap_zero3_settings(None)
    try:
        yield
    finally:
        swap_zero3_settings(before)
