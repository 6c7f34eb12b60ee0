"""How a stage trains: alone or with other processes, whole or sharded, in which precision.

| sharding | what is spread over the processes |
|---|---|
| none | nothing: gradients are added up once a step |
| zero1, zero2, zero3 | DeepSpeed: the optimizer's state; gradients too; weights too |
| fsdp2 | all of it, through torch |

Each way of sharding gives the same steps: a loss is a sum, gradients are summed over processes and micro-batches, and the
float32 masters behind weights of 16 bits (model/masters.py) are what the optimizer steps.
"""

import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tulu.config.processes import world_size
from tulu.config.schema import TrainStage, clip_norms
from tulu.errors import RecipeError
from tulu.losses import exact_dtype
from tulu.model.clock import Clock
from tulu.model.devices import has_bfloat16, name_of
from tulu.model.masters import HALF
from tulu.model.outliers import Outliers
from tulu.model.private_state import shard_of
from tulu.model.processes import Processes
from tulu.model.replicated import Replicated
from tulu.model.spreading import spread_over
from tulu.model.zero import Zero, cast_frozen

OUTLIERS = "outliers.json"
"""The file of a checkpoint that says which losses and norms the last steps had."""


class Parallel(Processes):
    """This process among the others, and what they train together."""

    def __init__(self, stage: TrainStage) -> None:
        # One process has nobody to share its weights with.
        self.sharding = stage.sharding if world_size() > 1 else "none"
        self.deepspeed = self.sharding.startswith("zero")
        if self.deepspeed and not torch.cuda.is_available():
            # DeepSpeed chooses its device when accelerate imports it.
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        super().__init__()
        if stage.precision == "bf16" and not has_bfloat16(self.device):
            cure = "set precision to fp16, or to fp32, which needs twice the memory"
            raise RecipeError(f"precision: bf16: {name_of(self.device)} computes nothing in bfloat16; {cure}")
        self.clock = Clock(self.device)
        self.precision = stage.precision
        self.clip_norms = clip_norms(stage)
        """Largest norm of the gradients of each group of the optimizer's parameters."""
        self.outliers = Outliers(stage.skip_steps) if stage.skip_steps is not None else None
        """Which steps are passed over because they stand out; None where none is."""
        self.updates = 0
        """Optimizer steps of this process that moved the weights."""
        self.seed = stage.seed
        self.module: nn.Module | None = None
        """The module under training, once it is prepared."""
        self._zero = self._new_zero(stage) if self.deepspeed else None
        self._spread_models()
        self._own: Any = None
        """What holds module and optimizer where DeepSpeed does not."""

    def _new_zero(self, stage: TrainStage) -> Zero:
        return Zero(int(self.sharding[-1]), self, self.precision, self.clip_norms, stage.offload_optimizer)

    def _spread_models(self) -> None:
        """Let the models of the stage be spread as they are loaded where FSDP2 shards them."""
        if self.sharding == "fsdp2":
            from tulu.model.fully_sharded import mesh_of

            spread_over(mesh_of(self.device.type, self.world))
        else:
            spread_over(None)

    @property
    def shards_weights(self) -> bool:
        """Whether no process holds the weights of the trained model as a whole."""
        return self.sharding in ("zero3", "fsdp2")

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """Module and optimizer, in the stage's precision and sharding; the random states of training begin here."""
        self.module = module
        if self._zero is not None:
            runner, optimizer = self._zero.prepare(module, optimizer)
        elif self.sharding == "fsdp2":
            from tulu.model.fully_sharded import FullySharded

            self._own, runner = FullySharded(module, optimizer, self, self.precision), module
        else:
            self._own, runner = Replicated(module, optimizer, self, self.precision), module
        # Dropout draws from torch's own random state. Ranks train on different rows and draw different masks.
        torch.manual_seed(self.seed + self.rank)
        return runner, optimizer

    def prepare_frozen(self, module: nn.Module) -> None:
        """Spread a frozen model over the processes as the trained one is, in the stage's precision."""
        if self.sharding == "zero3":
            cast_frozen(module, self.precision)
        elif self.sharding == "fsdp2":
            from tulu.model.fully_sharded import shard

            shard(module, self, self.precision)

    # -- a step ------------------------------------------------------------------------------------------------

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate gradients. `last` marks the last micro-batch of a step."""
        (self._zero or self._own).backward(loss, last)

    def clear(self) -> None:
        """Forget the gradients."""
        (self._zero or self._own).clear()

    def finish_step(self, sums: Tensor, divisor: float = 1.0) -> tuple[list[float], float]:
        """Clip the gradients, step and clear them, unless the loss over all processes or the norm of the gradients is not finite.

        `sums` are numbers of this process of which the first is the loss, before it is divided by `divisor`. Returns their sums
        over all processes, and the norm as it was before clipping; they are the same in every process, and this is the one place
        of a step that waits for the device, before it steps. Where one of the two is not finite, or stands out (`outliers`), no
        weight has moved.
        """
        before = self.outliers.passed_over if self.outliers is not None else 0
        if self._zero is not None:
            totals, norm = self._finish_zero_step(self._zero, sums, divisor)
        else:
            totals, norm = self._finish_own_step(sums, divisor)
        stood_out = self.outliers is not None and self.outliers.passed_over > before
        # Where every gradient is 0, as where all rewards of a group are alike, the optimizer steps and nothing moves.
        self.updates += math.isfinite(totals[0]) and math.isfinite(norm) and norm > 0 and not stood_out
        return totals, norm

    def _finish_own_step(self, sums: Tensor, divisor: float) -> tuple[list[float], float]:
        with self.clock.part("sync"):
            sums = self.add_up(sums.detach().to(self.device, exact_dtype(self.device)).clone())
            norms = self._own.gradient_norm()
            *totals, norm = torch.cat([sums, norms.to(self.device, exact_dtype(self.device))[None]]).tolist()
        with self.clock.part("optimizer"):
            self._own.scale.update(math.isfinite(norm))
            if math.isfinite(totals[0]) and math.isfinite(norm) and not self._stands_out(totals[0] / divisor, norm):
                self._own.step(self.clip_norms, norms)
            self._own.clear()
        return totals, norm

    def _stands_out(self, loss: float, norm: float) -> bool:
        return self.outliers is not None and self.outliers.stands_out(loss, norm)

    def _finish_zero_step(self, zero: Zero, sums: Tensor, divisor: float) -> tuple[list[float], float]:
        """The same through DeepSpeed, which learns the norm as it steps."""
        with self.clock.part("sync"):
            totals = self.add_up(sums.detach().to(self.device, exact_dtype(self.device)).clone()).tolist()
        with self.clock.part("optimizer"):
            if math.isfinite(totals[0]):
                return totals, zero.step(partial(self._stands_out, totals[0] / divisor) if self.outliers is not None else None)
            zero.clear()
        return totals, math.nan

    @property
    def skipped(self) -> int | None:
        """Steps that float16 passed over because gradients overflowed, since the run began; None in another precision."""
        if HALF.get(self.precision) != torch.float16:
            return None
        return self._zero.skipped if self._zero is not None else int(self._own.scale.skipped)

    def not_finite(self, module: nn.Module) -> list[str]:
        """The parameters of a module that hold a NaN or an infinity, by name; every process gets those of all."""
        held = {name: shard_of(parameter) for name, parameter in module.named_parameters()}
        whole = torch.stack([torch.isfinite(tensor).all() for tensor in held.values()]).tolist() if held else []
        own = [name for name, is_finite in zip(held, whole, strict=True) if not is_finite]
        return sorted({name for names in self.exchange(own) for name in names})

    # -- checkpoints -------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write weights, optimizer and random states of all processes into a folder."""
        (self._zero or self._own).save(folder)
        if self.outliers is not None and self.is_main:
            self.outliers.save(folder / OUTLIERS)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, with as many processes as wrote it."""
        (self._zero or self._own).load(folder)
        if self.outliers is not None:
            self.outliers.load(folder / OUTLIERS)
