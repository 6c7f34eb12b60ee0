"""Steps of two ranks: gradients of policy and value model that are clipped apart, and a rank without rows.

test_clipping launches it.

Usage: torchrun --nproc-per-node 2 -m tests.model.ranks_clip OUT, which writes OUT/RANK.json
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import torch
from torch import Tensor, nn

from tests.samples import make_stage
from tulu.config.processes import leaving_at_once
from tulu.config.schema import Rlvr
from tulu.losses import Loss, mean_metric, sft_loss
from tulu.model.batch import Batch, pack_row
from tulu.model.gathering import whole
from tulu.model.parallel import Parallel
from tulu.train.optimizer import Learner
from tulu.train.step import count_tokens, step
from tulu.types import Completion, Group

SHARDING = ("none", "zero1", "zero2", "zero3", "fsdp2")


class Pair(nn.Module):
    """Two models of eight weights, all 1, whose loss per token is its number, and three times its number."""

    def __init__(self) -> None:
        super().__init__()
        self.policy, self.value = nn.Linear(8, 1, bias=False), nn.Linear(8, 1, bias=False)
        for model in (self.policy, self.value):
            nn.init.ones_(model.weight)

    def forward(self, batch: Batch) -> Tensor:
        numbers_N8 = batch.target_N[:, None].expand(-1, 8).to(self.policy.weight.dtype)
        return -(self.policy(numbers_N8) + 3 * self.value(numbers_N8))[:, 0].float()


@dataclass
class Toy:
    module: Pair
    runner: nn.Module


def attempt(value_clip_norm: float | None, sharding: str = "none", precision: str = "fp32") -> dict[str, Any]:
    """The weights after a step on one token a rank, 1 and 2, and the norm of the gradients before they are clipped.

    The mean over both tokens has a gradient of 1.5 in every weight of the policy, and of 4.5 in those of the value model.
    """
    sizes = {"prompts": 4, "samples": 2, "max_prompt": 8, "max_tokens": 8, "advantage": "gae", "batch": 8}
    # With an epsilon of 1 the first step of AdamW is g / (|g| + 1).
    adam = {"learning_rate": 0.1, "adam_epsilon": 1.0, "clip_norm": 0.5, "schedule": "constant"}
    kind = {"sharding": sharding, "precision": precision}
    stage = make_stage(Rlvr, **sizes, **adam, value={"clip_norm": value_clip_norm}, **kind)
    parallel = Parallel(stage)
    module = Pair()
    toy = Toy(module, module)
    learner = Learner(toy, stage, parallel)

    def objective(batch: Batch) -> Loss:
        return sft_loss(toy.runner(batch))

    rows = [pack_row([Group([0], (Completion([n], [True]),), f"row:{n}")]) for n in (1, 2)]
    metrics = step(learner, parallel.share(rows), objective, count_tokens)
    found: dict[str, Any] = {"norm": metrics["gradient_norm"]}
    for name, model in (("policy", module.policy), ("value", module.value)):
        with whole(model.weight) as weight:
            found[name] = weight.detach().flatten().tolist()
    return found


def without_rows() -> dict[str, float]:
    """The metrics of a step for which only rank 0 has a row; rank 1 repeats a spare one, which has a metric less."""
    stage = make_stage(sharding="zero1")
    parallel = Parallel(stage)
    module = Pair()
    toy = Toy(module, module)
    learner = Learner(toy, stage, parallel)
    rows = [pack_row([Group([0], (Completion([n], [True]),), f"row:{n}")]) for n in (1, 2)]

    def objective(batch: Batch) -> Loss:
        loss, metrics = sft_loss(toy.runner(batch))
        return loss, {**metrics, "number": mean_metric(batch.target_N.double())} if batch.id_C == ("row:2",) else metrics

    own = [] if parallel.rank else rows[1:]
    return step(learner, own, objective, count_tokens, spare=rows[0])


def in_small_groups(make_plugin: Any) -> Any:
    """Let ZeRO-3 cut each group of parameters into several, as it does with billions of them."""

    def make(hf_ds_config: dict[str, Any]) -> Any:
        zero = {**hf_ds_config["zero_optimization"], "sub_group_size": 2}
        return make_plugin(hf_ds_config={**hf_ds_config, "zero_optimization": zero})

    return make


def main(out: Path) -> None:
    """Every way of sharding, and of 16 bits."""
    accelerate.DeepSpeedPlugin = in_small_groups(accelerate.DeepSpeedPlugin)
    kinds = [(sharding, "fp32") for sharding in SHARDING] + [(sharding, "bf16") for sharding in SHARDING]
    found = {f"{sharding} {precision}": attempt(0.25, sharding, precision) for sharding, precision in kinds}
    found["without rows"] = without_rows()
    (out / f"{torch.distributed.get_rank()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    with leaving_at_once():
        main(Path(sys.argv[1]))
