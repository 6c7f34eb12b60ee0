"""What two ranks do where one of them meets a loss, a gradient or a weight that is not finite; test_parallel launches it.

Usage: torchrun --nproc-per-node 2 -m tests.model.ranks_not_finite OUT, which writes OUT/RANK.json
"""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.samples import make_stage
from tulu.config.processes import leaving_at_once
from tulu.errors import ResumeError, TrainingError
from tulu.losses import Loss, sft_loss
from tulu.model.batch import Batch, pack_row
from tulu.model.gathering import whole
from tulu.model.parallel import Parallel
from tulu.model.private_state import shard_of
from tulu.train.checkpoints import Checkpoints
from tulu.train.optimizer import Learner
from tulu.train.step import count_tokens, step
from tulu.types import Completion, Group


class Scales(nn.Module):
    """loss per token = -scale · its number, with enough entries that every rank has some."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 1, bias=False)
        nn.init.ones_(self.linear.weight)

    def forward(self, batch: Batch) -> Tensor:
        return -self.linear(batch.target_N[:, None].expand(-1, 8).to(self.linear.weight.dtype))[:, 0].float()


@dataclass
class Toy:
    module: Scales
    runner: nn.Module


def weight(module: Scales) -> list[float]:
    with whole(module.linear.weight) as values:
        found: list[float] = values.detach().flatten().tolist()
        return found


def attempt(sharding: str, precision: str, where: str, out: Path) -> dict[str, Any]:
    """One good step and a checkpoint, then a step in which rank 1's second row is bad, and what became of the weights."""
    stage = make_stage(sharding=sharding, learning_rate=0.1, schedule="constant", precision=precision)
    parallel = Parallel(stage)
    model = Scales()
    toy = Toy(model, model)
    learner = Learner(toy, stage, parallel)
    bad = False

    def objective(batch: Batch) -> Loss:
        logps_N = toy.runner(batch)
        spoilt = bad and batch.id_C == ("rank1:2",)
        if spoilt and where == "gradient":
            # The slope of a root at 0 is infinite, times 0 not a number.
            return (0.0 * logps_N.sum()).sqrt(), {}
        return sft_loss(logps_N * (math.nan if spoilt else 1.0))

    own = [pack_row([Group([0], (Completion([n], [True]),), f"rank{parallel.rank}:{n}")]) for n in (1, 2)]
    step(learner, own, objective, count_tokens)
    Checkpoints(out / f"{sharding}-{precision}-{where}", 2, parallel).save(1, {"step": 1})
    before, bad, message = weight(model), True, ""
    try:
        step(learner, own[: 2 if parallel.rank else 1], objective, count_tokens, spare=own[0])
    except TrainingError as error:
        message = str(error)
    found = {"message": message, "moved": weight(model) != before, "trained": before != [1.0] * 8}
    # Where the weight is sharded, some ranks hold nothing of it.
    shard_of(model.linear.weight).view(-1)[-1:] = math.inf
    return {**found, "not finite": parallel.not_finite(model)}


def damaged(sharding: str, out: Path) -> str:
    """The message of both ranks where a file that only one of them reads is damaged."""
    parallel = Parallel(make_stage(sharding=sharding))
    model = Scales()
    Learner(Toy(model, model), make_stage(sharding=sharding), parallel)
    folder = out / f"{sharding}-fp32-loss"
    if parallel.is_main:
        largest = max((folder / "step-000001").rglob("*optim*"), key=lambda file: file.name)
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
    parallel.wait()
    try:
        Checkpoints(folder, 2, parallel).load_newest()
    except ResumeError as error:
        return str(error)
    return "loaded"


def main(out: Path) -> None:
    """Every sharding, with a bad loss and with a bad gradient, and then with a damaged checkpoint."""
    shardings = ("none", "zero1", "zero2", "zero3", "fsdp2")
    kinds = [(sharding, "fp32") for sharding in shardings] + [(sharding, "bf16") for sharding in shardings if sharding != "zero2"]
    found: dict[str, Any] = {
        f"{sharding} {precision} {where}": attempt(sharding, precision, where, out)
        for sharding, precision in kinds
        for where in ("loss", "gradient")
    }
    found["damaged"] = {sharding: damaged(sharding, out) for sharding in ("zero2", "zero3", "fsdp2")}
    (out / f"{torch.distributed.get_rank()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    with leaving_at_once():
        main(Path(sys.argv[1]))
