"""The learning rate of every step, and how many steps there are."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.samples import make_stage
from tulu.train.optimizer import learning_rate, total_steps


@pytest.mark.parametrize("schedule", ["linear", "constant", "cosine"])
def test_learning_rates_are_those_of_transformers(schedule: str) -> None:
    from transformers import get_scheduler

    stage = make_stage(schedule=schedule, warmup=0.2, learning_rate=2.0)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=4, num_training_steps=20)
    for index in range(20):
        assert learning_rate(stage, index, 20) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("fields", "rows", "steps"),
    [
        ({"epochs": 1, "batch": 8}, 20, 3),
        ({"epochs": 2.5, "batch": 10}, 20, 5),
        ({"epochs": 0.1, "batch": 8}, 20, 1),
        ({"steps": 7, "batch": 8}, 20, 7),
    ],
)
def test_total_steps(fields: dict[str, Any], rows: int, steps: int) -> None:
    assert total_steps(make_stage(**{"steps": None, **fields}), rows) == steps
