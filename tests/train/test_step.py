"""One step: the division by a global count, and gradients that no micro-batch, budget, order or split can change."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.samples import before_step, gradients, largest_difference, make_group, make_stage, stay_in_float64, step_gradients
from tulu.config.schema import Dpo, Rm, Sft
from tulu.losses import Loss, grpo_loss, sft_loss
from tulu.model.batch import Batch, lay, pack
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.reward_models.model import RewardModel
from tulu.reward_models.training import count_pairs, ranking_loss, with_margins
from tulu.stages.dpo import pair_loss
from tulu.stages.sft import normaliser as sft_normaliser
from tulu.stages.sft import weigh
from tulu.train.step import (
    Learner,
    Normaliser,
    completions,
    draw,
    learning_rate,
    pairs,
    rows_of,
    step,
    tokens_trained,
    total_steps,
)
from tulu.types import Completion, Group


class Scale(nn.Module):
    """loss per token = -scale · its number: a model whose loss is known on paper."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))


@dataclass
class Toy:
    module: Scale
    runner: nn.Module


def toy_rows() -> list[Group]:
    """Four tokens of loss 1 in one sequence, one token of loss 3 in another."""
    four = Completion([1, 1, 1, 1], [True] * 4, token_values={"loss": [1.0] * 4})
    one = Completion([2], [True], token_values={"loss": [3.0]})
    return [Group([0], (four,), "four"), Group([0], (one,), "one")]


@pytest.mark.parametrize(("loss", "expected"), [("sum", 3.5), ("micro_mean", 2.0), ("token", 1.4)])
@pytest.mark.parametrize("together", [True, False])
def test_the_three_normalisers_of_losses_md_1(loss: str, expected: float, together: bool) -> None:
    toy = Toy(Scale(), nn.Identity())
    stage = make_stage(Sft, loss=loss)
    rows = weigh(toy_rows(), stage)
    batches = [lay(rows)] if together else [lay([row]) for row in rows]

    def objective(batch: Batch) -> Loss:
        weight_N = None if loss == "token" else batch.values["weight"][batch.owner_N]
        return sft_loss(-toy.module.scale * batch.token_values["loss"], weight_N)

    grads, metrics = step_gradients(toy, batches, objective, sft_normaliser(stage))
    assert metrics["loss"] == pytest.approx(expected)
    assert grads["scale"].item() == pytest.approx(expected)
    assert metrics["nll"] == pytest.approx(1.4), "metrics are exact means over tokens whatever is optimised"
    assert metrics["gradient_norm"] == pytest.approx(expected)


def test_clipping_reports_the_norm_before_it() -> None:
    toy = Toy(Scale(), nn.Identity())
    stage = make_stage(Sft, learning_rate=1e4, adam_epsilon=1e4, clip_norm=0.5)
    learner = Learner(toy, stage, Parallel(stage))
    metrics = step(learner, [lay(toy_rows())], lambda b: sft_loss(-toy.module.scale * b.token_values["loss"]), tokens_trained)
    assert metrics["gradient_norm"] == pytest.approx(1.4)
    # With so large an epsilon Adam's first step is lr · g / ε, here the clipped gradient itself.
    assert 1.0 - toy.module.scale.item() == pytest.approx(0.5, abs=1e-3)
    assert toy.module.scale.grad is None


def test_a_process_without_rows_takes_part_at_weight_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Toy(Scale(), nn.Identity())
    stage = make_stage()
    parallel = Parallel(stage)
    monkeypatch.setattr(parallel, "largest", lambda number: 2)
    learner = Learner(toy, stage, parallel)
    seen: list[float] = []
    before_step(learner, lambda: seen.append(gradients(toy.module)["scale"].item()))
    rows = toy_rows()

    def objective(batch: Batch) -> Loss:
        return sft_loss(-toy.module.scale * batch.token_values["loss"])

    metrics = step(learner, [lay([rows[0]])], objective, tokens_trained, spare=lay([rows[1]]))
    assert (metrics["loss"], metrics["nll"], seen) == (1.0, 1.0, [1.0])
    with pytest.raises(ValueError, match="spare"):
        step(learner, [lay([rows[0]])], objective, tokens_trained)


# -- gradients that nothing about the laying of rows may change ---------------------------------------------------

Case = tuple[Any, list[Group], Callable[[Batch], Loss], Normaliser]


def sft_case(loss: str, model: Path) -> Case:
    policy, stage = Policy.load(model), make_stage(Sft, loss=loss, loss_micro_batch=2)
    groups = weigh([make_group(seed, 4 + seed % 5, [3 + 2 * seed % 13]) for seed in range(8)], stage)

    def objective(batch: Batch) -> Loss:
        weight_N = None if loss == "token" else batch.values["weight"][batch.owner_N]
        return sft_loss(policy.logps(batch), weight_N)

    return policy, groups, objective, sft_normaliser(stage)


def pair_groups() -> list[Group]:
    """Eight pairs whose completions carry a made-up reference log-prob."""
    groups = [make_group(seed, 4 + seed % 5, [3 + 2 * seed % 13, 4 + seed % 3], reference=-5.0 - seed) for seed in range(8)]
    return [replace(group, margin=0.1 * at) for at, group in enumerate(groups)]


def dpo_case(loss: str, model: Path) -> Case:
    policy, stage = Policy.load(model), make_stage(Dpo, loss=loss, beta=0.2, label_smoothing=0.1)
    return policy, pair_groups(), lambda batch: pair_loss(policy, batch, stage), pairs


def rm_case(lengths: Sequence[int], model: Path) -> Case:
    reward_model, stage = RewardModel.load(model, new_head=1, trainable=True), make_stage(Rm, centre=0.01)
    groups = with_margins([replace(make_group(seed, 4, [n + seed % 3 for n in lengths]), margin=0.1) for seed in range(8)])
    return reward_model, groups, lambda batch: ranking_loss(reward_model, batch, stage), count_pairs


def grpo_case(denominator: str, model: Path) -> Case:
    policy = Policy.load(model)
    groups = []
    for seed in range(4):
        group = make_group(seed, 6, [3, 9, 5, 12])
        rewarded = tuple(
            replace(c, values={"advantage": 1.0 - at}, token_values={"old": [-5.0] * len(c.tokens)})
            for at, c in enumerate(group.completions)
        )
        groups.append(replace(group, completions=rewarded))

    def objective(batch: Batch) -> Loss:
        return grpo_loss(
            policy.logps(batch),
            batch.token_values["old"],
            batch.values["advantage"][batch.owner_N],
            weight_N=1 / batch.lengths_C[batch.owner_N] if denominator == "sequence" else None,
        )

    return policy, groups, objective, tokens_trained if denominator == "token" else completions


CASES: dict[str, Callable[[Path], Case]] = {
    "sft-sum": lambda model: sft_case("sum", model),
    "sft-micro_mean": lambda model: sft_case("micro_mean", model),
    "sft-token": lambda model: sft_case("token", model),
    "dpo": lambda model: dpo_case("dpo", model),
    "dpo_norm": lambda model: dpo_case("dpo_norm", model),
    "simpo": lambda model: dpo_case("simpo", model),
    "rm": lambda model: rm_case([5, 9], model),
    "rm-ranked-lists": lambda model: rm_case([5, 9, 2], model),
    "grpo-token": lambda model: grpo_case("token", model),
    "grpo-sequence": lambda model: grpo_case("sequence", model),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_do_not_depend_on_how_rows_are_laid(name: str, tiny_model: Callable[..., Path]) -> None:
    model, groups, objective, normaliser = CASES[name](tiny_model("qwen3"))
    laid = {"one row": [lay(groups)], "reversed": [lay(groups[::-1])], "one each": [lay([group]) for group in groups]}
    for micro_batch in (1, 2, 8):
        laid[f"micro-batch {micro_batch}"] = rows_of(groups, make_stage(micro_batch=micro_batch))
    for row_tokens in (20, 45, 100):
        laid[f"{row_tokens} tokens"] = rows_of(groups, make_stage(row_tokens=row_tokens))
    expected, expected_metrics = step_gradients(model, laid.pop("one row"), objective, normaliser)
    for way, batches in laid.items():
        found, metrics = step_gradients(model, batches, objective, normaliser)
        assert largest_difference(found, expected) < 1e-6, way
        assert metrics == pytest.approx(expected_metrics, rel=1e-5, abs=1e-6), way


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_group_of_16_split_over_rows_is_the_whole_one(
    dtype: torch.dtype, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_in_float64(monkeypatch)
    policy = Policy.load(tiny_model("olmo2"))
    policy.module.to(dtype)
    group = make_group(1, 12, [5 + at % 7 for at in range(16)])
    group = replace(
        group, completions=tuple(replace(c, values={"advantage": at - 7.5}) for at, c in enumerate(group.completions))
    )

    def objective(batch: Batch) -> Loss:
        logps_N = policy.logps(batch)
        return grpo_loss(logps_N, logps_N.detach() - 0.1, batch.values["advantage"][batch.owner_N])

    whole, metrics = step_gradients(policy, pack([group], 1000), objective, tokens_trained)
    for row_tokens in (20, 60, 100):
        batches = pack([group], row_tokens)
        assert len(batches) > 1
        found, split_metrics = step_gradients(policy, batches, objective, tokens_trained)
        assert largest_difference(found, whole) < (1e-6 if dtype == torch.float32 else 1e-12)
        assert split_metrics["loss"] == pytest.approx(metrics["loss"], rel=1e-5)


# -- the schedule and the order of rows ---------------------------------------------------------------------------


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


def test_an_epoch_draws_every_row_once() -> None:
    stage = make_stage(batch=8, epochs=2.0, steps=None)
    rows = [make_group(seed, 1, [1]) for seed in range(20)]
    drawn = [group.id for index in range(total_steps(stage, 20)) for group in draw(rows, stage, index)]
    names = sorted(group.id for group in rows)
    assert len(drawn) == 40
    assert sorted(drawn[:20]) == sorted(drawn[20:]) == names
    assert drawn[:20] != drawn[20:]


def test_the_draw_is_a_function_of_seed_and_step() -> None:
    rows = [make_group(seed, 1, [1]) for seed in range(20)]
    steps = [[group.id for group in draw(rows, make_stage(seed=seed), 3)] for seed in (1, 1, 2)]
    assert steps[0] == steps[1] != steps[2]


def test_weights_are_a_function_of_the_step_alone(tiny_model: Callable[..., Path]) -> None:
    def trained() -> Tensor:
        policy = Policy.load(tiny_model("olmo2"))
        stage = make_stage()
        learner = Learner(policy, stage, Parallel(stage))
        step(learner, [lay([make_group(0, 4, [8])])], lambda batch: sft_loss(policy.logps(batch)), tokens_trained)
        return policy.model.lm_head.weight.detach()

    assert torch.equal(trained(), trained())
    assert not math.isnan(trained().sum().item())
