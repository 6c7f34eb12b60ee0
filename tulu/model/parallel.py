"""Processes that train together, through Accelerate: one, or several with DeepSpeed ZeRO, on GPUs or on gloo."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tulu.config.schema import TrainStage
from tulu.errors import RecipeError
from tulu.losses import Metrics


class Parallel:
    """This process among the others, and what they do together."""

    def __init__(self, stage: TrainStage) -> None:
        world = int(os.environ.get("WORLD_SIZE", "1"))
        # One process has nobody to share its weights with: ZeRO begins with two.
        self.deepspeed = bool(stage.zero) and world > 1
        if self.deepspeed and not torch.cuda.is_available():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        from accelerate import Accelerator, PartialState
        from accelerate.state import AcceleratorState

        on_cpu = not torch.cuda.is_available()
        # Processes are connected here: asked for DeepSpeed and CPU at once, Accelerate leaves out DeepSpeed without a word.
        PartialState(cpu=on_cpu)
        # One process runs the stages of a recipe one after the other, each in a precision of its own.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(
            mixed_precision="bf16" if stage.precision == "bf16" else "no",
            deepspeed_plugin=_deepspeed_plugin(stage) if self.deepspeed else None,
            cpu=on_cpu and not self.deepspeed,
        )
        self.clip_norm = stage.clip_norm
        if self.world > 1 and not stage.zero:
            raise RecipeError(f"zero: 0: {self.world} processes train together through DeepSpeed; set zero to 1, 2 or 3")

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    @property
    def device(self) -> torch.device:
        return torch.device(self.accelerator.device)

    def prepare(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """Module and optimizer, wrapped for mixed precision and sharding."""
        prepared, wrapped = self.accelerator.prepare(module, optimizer)
        return prepared, wrapped

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate gradients; `last` marks the final micro-batch of a step, after which DeepSpeed steps by itself."""
        if self.deepspeed:
            # DeepSpeed averages over processes, where a step wants the sum.
            self.accelerator.deepspeed_engine_wrapped.backward(loss * self.world, sync_gradients=last)
        else:
            self.accelerator.backward(loss)

    def finish_step(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> float:
        """Clip, step and clear; returns the gradient norm before clipping."""
        if self.deepspeed:
            return float(self.accelerator.deepspeed_engine_wrapped.get_global_grad_norm() or 0.0)
        parameters = [parameter for parameter in module.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(norm)

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

    def share(self, items: list[Any]) -> list[Any]:
        """Every world-th item, from this rank on."""
        return items[self.rank :: self.world]

    def exchange(self, item: Any) -> list[Any]:
        """Every rank's item, in the order of ranks."""
        if self.world == 1:
            return [item]
        from accelerate.utils import gather_object

        return list(gather_object([item]))

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()

    def save(self, folder: Path) -> None:
        """Weights, optimizer and random states of all processes."""
        self.accelerator.save_state(str(folder), safe_serialization=False)

    def load(self, folder: Path) -> None:
        """What `save` wrote, with as many processes as wrote it."""
        self.accelerator.load_state(str(folder))


def _deepspeed_plugin(stage: TrainStage) -> Any:
    from accelerate import DeepSpeedPlugin

    config: Mapping[str, Any] = {
        "zero_optimization": {"stage": stage.zero, "overlap_comm": torch.cuda.is_available()},
        # One: a step has as many micro-batches as its rows need, so `backward` marks the last one itself.
        "gradient_accumulation_steps": 1,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": stage.clip_norm or 0.0,
        "bf16": {"enabled": stage.precision == "bf16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,
    }
    return DeepSpeedPlugin(hf_ds_config=dict(config))


@contextmanager
def whole(parameter: torch.nn.Parameter) -> Iterator[torch.nn.Parameter]:
    """The parameter with all its entries where ZeRO-3 sharded it, to be overwritten alike by every process."""
    if not hasattr(parameter, "ds_id"):
        yield parameter
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(parameter, modifier_rank=0):
        yield parameter


@contextmanager
def gathered(model: torch.nn.Module) -> Iterator[None]:
    """While it lasts, each module's weights are whole while it computes, where ZeRO-3 sharded them at loading.

    For forward passes outside the training engine; all processes run the same ones.
    """
    sharded = [module for module in model.modules() if any(hasattr(p, "ds_id") for p in module.parameters(recurse=False))]
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
    """Load the next model whole in this process: transformers shards every model while a ZeRO-3 setting is alive."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


@contextmanager
def unsharded() -> Iterator[None]:
    """While it lasts, models load whole in this process, also where ZeRO-3 shards the trained one."""
    from transformers.integrations import deepspeed

    before = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = before


@cache
def is_main_process() -> bool:
    """Whether this process speaks for all, known before any of them is connected."""
    return int(os.environ.get("RANK", "0")) == 0
