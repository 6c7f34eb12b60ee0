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
from tulu.config.schema import Dpo, Rm, Sft, TrainStage
from tulu.losses import Loss, grpo_loss, sft_loss
from tulu.model.batch import Batch, pack, pack_row
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.reward_models.model import RewardModel
from tulu.reward_models.training import count_pairs as count_ranked_pairs
from tulu.reward_models.training import pack_ranked, ranking_loss
from tulu.stages.dpo import count_pairs, dpo, pack_pairs, simpo, with_reference
from tulu.stages.sft import WeightedBatch, WeightedGroup, count_micro_batches, pack_weighted, weight_groups
from tulu.train.fit import pack_whole
from tulu.train.optimizer import Learner
from tulu.train.step import Normaliser, count_completions, count_tokens, step
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

    def logps(self, batch: Batch) -> Tensor:
        """Tokens 1 have a loss of 1, tokens 3 one of 3."""
        return -self.module.scale * batch.target_N


def toy() -> Toy:
    return Toy(Scale(), nn.Identity())


def toy_rows() -> list[Group]:
    """Four tokens of loss 1 in one sequence, one token of loss 3 in another."""
    return [Group([0], (Completion([1] * 4, [True] * 4),), "four"), Group([0], (Completion([3], [True]),), "one")]


@pytest.mark.parametrize(("loss", "expected"), [("sum", 3.5), ("micro_mean", 2.0), ("token", 1.4)])
@pytest.mark.parametrize("together", [True, False])
def test_the_three_normalisers_of_losses_md_1(loss: str, expected: float, together: bool) -> None:
    model, stage = toy(), make_stage(Sft, loss=loss)

    def weighted(batch: WeightedBatch) -> Loss:
        return sft_loss(model.logps(batch), batch.weight_C[batch.owner_N])

    if loss == "token":
        rows = toy_rows()
        batches: list[Any] = [pack_row(rows)] if together else [pack_row([row]) for row in rows]
        grads, metrics = step_gradients(model, batches, lambda batch: sft_loss(model.logps(batch)), count_tokens)
    else:
        examples = weight_groups(toy_rows(), stage)
        parts = [examples] if together else [[example] for example in examples]
        batches = [batch for part in parts for batch in pack_weighted(part, make_stage(Sft, loss=loss, micro_batch=2))]
        assert len(batches) == len(parts)
        grads, metrics = step_gradients(model, batches, weighted, count_micro_batches)
    assert metrics["loss"] == pytest.approx(expected)
    assert grads["scale"].item() == pytest.approx(expected)
    assert metrics["nll"] == pytest.approx(1.4), "metrics are exact means over tokens whatever is optimised"
    assert metrics["gradient_norm"] == pytest.approx(expected)


def test_clipping_reports_the_norm_before_it() -> None:
    model = toy()
    stage = make_stage(Sft, learning_rate=1e4, adam_epsilon=1e4, clip_norm=0.5)
    learner = Learner(model, stage, Parallel(stage))
    metrics = step(learner, [pack_row(toy_rows())], lambda batch: sft_loss(model.logps(batch)), count_tokens)
    assert metrics["gradient_norm"] == pytest.approx(1.4)
    # With so large an epsilon Adam's first step is lr · g / ε, here the clipped gradient itself.
    assert 1.0 - model.module.scale.item() == pytest.approx(0.5, abs=1e-3)
    assert model.module.scale.grad is None


def test_a_process_without_rows_takes_part_at_weight_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, stage = toy(), make_stage()
    parallel = Parallel(stage)
    monkeypatch.setattr(parallel, "largest", lambda number: 2)
    learner = Learner(model, stage, parallel)
    seen: list[float] = []
    before_step(learner, lambda: seen.append(gradients(model.module)["scale"].item()))
    rows = toy_rows()

    def objective(batch: Batch) -> Loss:
        return sft_loss(model.logps(batch))

    metrics = step(learner, [pack_row([rows[0]])], objective, count_tokens, spare=pack_row([rows[1]]))
    assert (metrics["loss"], metrics["nll"], seen) == (1.0, 1.0, [1.0])
    with pytest.raises(ValueError, match="spare"):
        step(learner, [pack_row([rows[0]])], objective, count_tokens)


def test_a_process_without_rows_adds_up_what_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of a step are added up in one exchange, which waits for ever where a process has fewer of them."""
    model, stage = toy(), make_stage()
    parallel = Parallel(stage)
    learner = Learner(model, stage, parallel)
    added: list[list[float]] = []
    add_up = parallel.add_up

    def noted(tensor: Tensor) -> Tensor:
        added.append(tensor.tolist())
        return add_up(tensor)

    monkeypatch.setattr(parallel, "largest", lambda number: 1)
    monkeypatch.setattr(parallel, "total", lambda number: 4.0)
    monkeypatch.setattr(parallel, "add_up", noted)
    row = pack_row(toy_rows()[:1])
    step(learner, [row], lambda batch: sft_loss(model.logps(batch)), count_tokens)
    step(learner, [], lambda batch: sft_loss(model.logps(batch)), count_tokens, spare=row)
    assert [len(numbers) for numbers in added] == [4, 4], "loss, work, and nll with its count"
    assert added[1] == [0.0, 0.0, 0.0, 0.0]


# -- gradients that no packing may change ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A stage's objective over made-up examples."""

    model: Any
    examples: Sequence[Any]
    pack: Callable[[Sequence[Any], Any], list[Any]]
    """(examples, stage) -> batches; the stage says how large they may be."""
    objective: Callable[[Any], Loss]
    normaliser: Normaliser[Any]


def sft_case(loss: str, model: Path) -> Case:
    policy, stage = Policy.load(model), make_stage(Sft, loss=loss, loss_micro_batch=2)
    groups = [make_group(seed, 4 + seed % 5, [3 + 2 * seed % 13]) for seed in range(8)]
    if loss == "token":
        return Case(policy, groups, pack_whole, lambda batch: sft_loss(policy.logps(batch)), count_tokens)

    def weighted(batch: WeightedBatch) -> Loss:
        return sft_loss(policy.logps(batch), batch.weight_C[batch.owner_N])

    examples: list[WeightedGroup] = weight_groups(groups, stage)
    return Case(policy, examples, pack_weighted, weighted, count_micro_batches)


def dpo_case(loss: str, model: Path) -> Case:
    """Eight pairs with a made-up reference log-prob."""
    policy, stage = Policy.load(model), make_stage(Dpo, loss=loss, beta=0.2, label_smoothing=0.1)
    groups = [make_group(seed, 4 + seed % 5, [3 + 2 * seed % 13, 4 + seed % 3]) for seed in range(8)]
    if loss == "simpo":
        return Case(policy, groups, pack_whole, lambda batch: simpo(policy, batch, stage), count_pairs)
    pairs = [with_reference(group, [-5.0 - seed] * 2) for seed, group in enumerate(groups)]
    return Case(policy, pairs, pack_pairs, lambda batch: dpo(policy, batch, stage), count_pairs)


def rm_case(lengths: Sequence[int], model: Path) -> Case:
    reward_model, stage = RewardModel.load(model, new_head=1, trainable=True), make_stage(Rm, centre=0.01)
    groups = [replace(make_group(seed, 4, [n + seed % 3 for n in lengths]), margin=0.1) for seed in range(8)]
    return Case(reward_model, groups, pack_ranked, lambda batch: ranking_loss(reward_model, batch, stage), count_ranked_pairs)


@dataclass(frozen=True, kw_only=True)
class AdvantageBatch(Batch):
    advantage_C: Tensor


def pack_advantages(examples: Sequence[tuple[Group, list[float]]], stage: TrainStage) -> list[AdvantageBatch]:
    advantages = [advantage for _, advantage in examples]
    batches = pack([group for group, _ in examples], stage.row_limit, 4 * stage.micro_batch)
    return [AdvantageBatch(**vars(batch), advantage_C=batch.of_completions(advantages)) for batch in batches]


def grpo_case(denominator: str, model: Path) -> Case:
    policy = Policy.load(model)
    examples = [(make_group(seed, 6, [3, 9, 5, 12]), [1.0, 0.0, -1.0, -2.0]) for seed in range(4)]

    def objective(batch: AdvantageBatch) -> Loss:
        logps_N = policy.logps(batch)
        return grpo_loss(
            logps_N,
            torch.full_like(logps_N, -5.0),
            batch.advantage_C[batch.owner_N],
            weight_N=1 / batch.lengths_C[batch.owner_N] if denominator == "sequence" else None,
        )

    return Case(policy, examples, pack_advantages, objective, count_tokens if denominator == "token" else count_completions)


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
def test_gradients_do_not_depend_on_packing(name: str, tiny_model: Callable[..., Path]) -> None:
    case = CASES[name](tiny_model("qwen3"))
    one_row = make_stage(micro_batch=8, row_tokens=10_000)
    packed = {
        "reversed": case.pack(case.examples[::-1], one_row),
        "one each": [batch for example in case.examples for batch in case.pack([example], one_row)],
    }
    for micro_batch in (1, 2, 4):
        packed[f"micro-batch {micro_batch}"] = case.pack(case.examples, make_stage(micro_batch=micro_batch))
    for row_tokens in (20, 45, 100):
        packed[f"{row_tokens} tokens"] = case.pack(case.examples, make_stage(row_tokens=row_tokens))
    whole = case.pack(case.examples, one_row)
    assert len(whole) == 1
    expected, expected_metrics = step_gradients(case.model, whole, case.objective, case.normaliser)
    for way, batches in packed.items():
        actual, metrics = step_gradients(case.model, batches, case.objective, case.normaliser)
        assert largest_difference(actual, expected) < 1e-6, way
        assert metrics == pytest.approx(expected_metrics, rel=1e-5, abs=1e-6), way


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_group_of_16_split_over_rows_is_the_whole_one(
    dtype: torch.dtype, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_in_float64(monkeypatch)
    policy = Policy.load(tiny_model("olmo2"))
    policy.module.to(dtype)
    group = make_group(1, 12, [5 + place % 7 for place in range(16)])
    advantages = [[place - 7.5 for place in range(16)]]

    def batches_of(row_tokens: int) -> list[AdvantageBatch]:
        return [
            AdvantageBatch(**vars(batch), advantage_C=batch.of_completions(advantages)) for batch in pack([group], row_tokens)
        ]

    def objective(batch: AdvantageBatch) -> Loss:
        logps_N = policy.logps(batch)
        return grpo_loss(logps_N, logps_N.detach() - 0.1, batch.advantage_C[batch.owner_N])

    whole, metrics = step_gradients(policy, batches_of(1000), objective, count_tokens)
    for row_tokens in (20, 60, 100):
        batches = batches_of(row_tokens)
        assert len(batches) > 1
        split, split_metrics = step_gradients(policy, batches, objective, count_tokens)
        assert largest_difference(split, whole) < (1e-6 if dtype == torch.float32 else 1e-12)
        assert split_metrics["loss"] == pytest.approx(metrics["loss"], rel=1e-5)


def test_weights_are_a_function_of_the_step_alone(tiny_model: Callable[..., Path]) -> None:
    def trained() -> Tensor:
        policy = Policy.load(tiny_model("olmo2"))
        stage = make_stage()
        learner = Learner(policy, stage, Parallel(stage))
        step(learner, [pack_row([make_group(0, 4, [8])])], lambda batch: sft_loss(policy.logps(batch)), count_tokens)
        return policy.model.lm_head.weight.detach()

    assert torch.equal(trained(), trained())
    assert not math.isnan(trained().sum().item())
