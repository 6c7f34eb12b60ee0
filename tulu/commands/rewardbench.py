"""`tulu rewardbench`: score a model on a benchmark of preferences."""

from pathlib import Path
from typing import Annotated

import typer

from tulu.reward_models.options import RewardBenchOptions


def rewardbench(
    model: Annotated[str | None, typer.Argument(help="A reward model, a DPO model or a judge: folder or hub name.")] = None,
    data: Annotated[str, typer.Option(help="v1, v2, or a file of pairs.")] = "v1",
    scores: Annotated[Path | None, typer.Option(help="Only aggregate these scores, made elsewhere.")] = None,
    *,
    options: RewardBenchOptions,
) -> None:
    """Score a model on RewardBench 1, RewardBench 2 or your own pairs."""
    from tulu.reward_models.rewardbench import run

    run(model, data, scores, options)
