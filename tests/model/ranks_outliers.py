"""Two ranks pass over a step that stands out, in every sharding and precision; test_outliers launches it.

Usage: torchrun --nproc-per-node 2 -m tests.model.ranks_outliers OUT, which writes OUT/found.json
"""

import json
import sys
from pathlib import Path
from typing import Any

from tests.model.ranks_not_finite import Scales, Toy, weight
from tests.samples import make_stage
from tulu.config.processes import leaving_at_once
from tulu.losses import Loss, sft_loss
from tulu.model.batch import Batch, pack_row
from tulu.model.gathering import forget_sharding
from tulu.model.parallel import Parallel
from tulu.train.optimizer import Learner
from tulu.train.step import count_tokens, step
from tulu.types import Completion, Group

STEADY = [1.0, 1.5, 1.25, 1.0, 1.5, 1.25]
JUMP = 4
"""The step before which a bad one is put in."""


class Training:
    """A toy model whose gradients are as large as a factor."""

    def __init__(self, sharding: str, precision: str) -> None:
        forget_sharding()
        shared: dict[str, Any] = {"sharding": sharding, "precision": precision, "skip_steps": {"window": 8, "sigma": 6.0}}
        stage = make_stage(learning_rate=0.1, schedule="constant", clip_norm=1.0, **shared)
        self.parallel = Parallel(stage)
        self.model = Scales()
        self.toy = Toy(self.model, self.model)
        self.learner = Learner(self.toy, stage, self.parallel)
        rank = self.parallel.rank
        self.rows = [pack_row([Group([0], (Completion([n], [True]),), f"rank{rank}:{n}")]) for n in (1, 2 + rank)]

    def weights_after(self, factors: list[float]) -> list[list[float]]:
        """The weight after every step."""
        seen = []
        for factor in factors:

            def objective(batch: Batch, factor: float = factor) -> Loss:
                return sft_loss(self.toy.runner(batch) * factor)

            metrics = step(self.learner, self.rows, objective, count_tokens)
            assert metrics["passed_over"] == self.passed_over
            seen.append(weight(self.model))
        return seen

    @property
    def passed_over(self) -> int:
        assert self.parallel.outliers is not None
        return self.parallel.outliers.passed_over


def attempt(sharding: str, precision: str, folder: Path) -> dict[str, Any]:
    """Train with a bad step, without it, and on from a checkpoint behind it."""
    jumped = Training(sharding, precision)
    begin = weight(jumped.model)
    until = jumped.weights_after([*STEADY[:JUMP], 50.0])
    folder.mkdir(parents=True, exist_ok=True)
    jumped.parallel.save(folder)
    jumped.parallel.wait()
    weights = [begin, *until, *jumped.weights_after(STEADY[JUMP:])]
    moved = [before != after for before, after in zip(weights, weights[1:], strict=False)]
    plain = Training(sharding, precision).weights_after(STEADY)
    resumed = Training(sharding, precision)
    resumed.parallel.load(folder)
    again = resumed.weights_after(STEADY[JUMP:])
    apart = max(abs(one - other) for one, other in zip(plain[-1], weights[-1], strict=True))
    return {
        "moved": moved,
        "passed over": jumped.passed_over,
        "as without it": apart,
        "resumed": again == weights[-len(again) :] and resumed.passed_over == 1,
    }


def main(out: Path) -> None:
    cases = [(sharding, precision) for sharding in ("none", "fsdp2", "zero1", "zero2", "zero3") for precision in ("fp32", "bf16")]
    found = {f"{sharding} {precision}": attempt(sharding, precision, out / sharding / precision) for sharding, precision in cases}
    training = Parallel(make_stage())
    if training.is_main:
        (out / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    with leaving_at_once():
        main(Path(sys.argv[1]))
