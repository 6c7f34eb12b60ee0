"""PPO as the released models were trained: the reward after the last token, and the learning rate of every update."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.samples import stay_in_float64
from tests.stages.test_ppo import Pair, ppo, row, run_ppo, with_advantages
from tulu.model.batch import pack, pack_row, padded_rows, without_sharing
from tulu.rollout.batches import RolloutBatch
from tulu.stages.ppo import _completion_advantages, ppo_loss, with_ends
from tulu.stages.rlvr import update_rates
from tulu.types import Completion, Group


def with_end(rewards: list[float], lengths: list[int], values: list[float], ends: list[float], **numbers: Any) -> RolloutBatch:
    """As `row`, with the values of the states in which the completions have ended."""
    return replace(row(rewards, lengths, values, **numbers), old_end_C=torch.tensor(ends, dtype=torch.float64))


def test_a_reward_after_the_last_token() -> None:
    # losses.md §6, step 3: the reward 1 is a step's of its own, whose value is 0.8: δ = [0.1, 0.1, 0.1, 0.2].
    batch = with_end([1.0], [3], [0.5, 0.6, 0.7], [0.8], old=[-1.0] * 3)
    after = ppo(value={"whiten": False, "reward_at": "after"})
    result = with_advantages(batch, after)
    # λ · s + (1 - λ) · V_end - V = 0.95 + 0.04 - 0.7 at the last token; backwards 0.1 + 0.95 · 0.29 and 0.1 + 0.95 · 0.3755.
    assert result.advantage_N.tolist() == pytest.approx([0.456725, 0.3755, 0.29])
    assert result.return_N.tolist() == pytest.approx([0.956725, 0.9755, 0.99])
    assert result.end_return_C is not None
    assert result.end_return_C.tolist() == pytest.approx([1.0]), "the value at the end is trained towards the reward itself"


def test_a_completion_that_was_cut_off_is_rewarded_at_its_last_token() -> None:
    stage = ppo(value={"whiten": False, "reward_at": "after"}, max_tokens=3)
    batch = with_end([1.0, 1.0], [3, 2], [0.5, 0.6, 0.7, 0.6, 0.7], [0.8, 0.8], old=[-1.0] * 5)
    result = with_advantages(batch, stage)
    # The first is as long as a completion may be, and as without a state behind it.
    assert result.advantage_N.tolist() == pytest.approx([0.46575, 0.385, 0.3, 0.1 + 0.95 * 0.29, 0.29])
    assert result.end_return_C is not None
    assert result.end_return_C.tolist() == [0.0, 1.0]


def test_a_completion_that_only_ends_earns_its_reward_there() -> None:
    """Nothing of it is trained, so no token has an advantage; the state in which it has ended is worth its reward."""
    value = ppo(value={"reward_at": "after"}).value
    assert value is not None
    nothing = torch.zeros(0, dtype=torch.float64)
    advantages, returns, end = _completion_advantages(nothing, nothing, 3.0, 0.5, value)
    assert (len(advantages), len(returns), end) == (0, 0, 3.0)
    assert _completion_advantages(nothing, nothing, 3.0, None, value)[2] == 0.0


def test_the_value_loss_has_one_state_more_for_each_completion_that_ended() -> None:
    stage = ppo(value={"whiten": False, "reward_at": "after", "coefficient": 1.0, "clip": 10.0}, max_tokens=3)
    assert stage.value is not None
    batch = with_advantages(with_end([1.0, 1.0], [3, 2], [0.0] * 5, [0.0, 0.0], old=[-1.0] * 5), stage)
    nothing: tuple[Tensor, dict[str, Any]] = (torch.zeros(()), {})
    # Values that are right at the tokens, wrong by 2 at the end of the first one, which has none, and by 0.5 at the second's.
    values_M = torch.cat([batch.return_N, torch.tensor([2.0, 1.5], dtype=torch.float64)])
    loss, metrics = ppo_loss(nothing, values_M, batch, stage, stage.value, None)
    assert float(loss) == pytest.approx(0.5 * 0.25)
    assert metrics["value_error"][1] == 6
    weighted, _ = ppo_loss(nothing, values_M, batch, stage, stage.value, torch.tensor([1.0, 0.5]))
    assert float(weighted) == pytest.approx(0.5 * 0.5 * 0.25)


@pytest.mark.parametrize("row_tokens", [1000, 9])
def test_values_at_the_end_are_those_of_the_plain_model(
    row_tokens: int,
    tiny_model: Callable[..., Path],
    tiny_reward_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stay_in_float64(monkeypatch)
    pair = Pair(tiny_model("olmo2"), tiny_reward_model("olmo2", 1))
    pair.critic.ends = True
    groups = [Group([7, 8], (Completion([9] * n, [True] * n), Completion([n], [True]))) for n in (3, 5)]
    for batch in pack(groups, row_tokens):
        with torch.no_grad():
            _, _, values_M = pair.critic(batch, 1.0)
            for place, (index, which) in enumerate(batch.index_C):
                tokens = torch.tensor([[*groups[index].prompt, *groups[index].completions[which].tokens]])
                hidden = pair.classifier.base_model(input_ids=tokens).last_hidden_state[0]
                expected = pair.classifier.score(hidden)[:, 0]
                assert values_M[: batch.n_trained][batch.owner_N == place].tolist() == pytest.approx(expected[1:-1].tolist())
                assert float(values_M[batch.n_trained + place]) == pytest.approx(float(expected[-1]))


def test_ends_are_read_where_prompts_are_not_shared() -> None:
    groups = [Group([7, 8], (Completion([9] * n, [True] * n), Completion([n], [True]))) for n in (3, 5)]
    batch = with_ends(pack_row(groups))
    [rows, apart] = padded_rows(batch), without_sharing(batch)
    assert rows.read_N[-4:].tolist() == rows.last_C.tolist()
    assert apart.read_N[-4:].tolist() == apart.last_C.tolist()
    assert apart.tokens_T[apart.last_C].tolist() == [9, 3, 9, 5]


@pytest.mark.parametrize(
    ("rate_by", "expected"),
    [("step", [[1.0] * 4, [0.5] * 4]), ("update", [[1.0, 0.875, 0.75, 0.625], [0.5, 0.375, 0.25, 0.125]])],
)
def test_the_learning_rate_of_every_update(rate_by: str, expected: list[list[float]]) -> None:
    stage = ppo(minibatches=2, updates=2, learning_rate=1.0, rate_by=rate_by)
    assert [update_rates(stage, index, 2) for index in (0, 1)] == expected


def test_a_warm_up_counts_updates() -> None:
    stage = ppo(updates=2, learning_rate=1.0, rate_by="update", warmup=0.5, schedule="constant")
    assert [rate for index in range(4) for rate in update_rates(stage, index, 4)] == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]


def test_the_stage_trains_as_the_released_models_were(
    tiny_model: Callable[..., Path], tiny_reward_model: Callable[..., Path], tmp_path: Path
) -> None:
    value = {"path": str(tiny_reward_model("olmo2", 1)), "reward_at": "after", "clip_norm": 1.0, "whiten_over": 4}
    fields = {"denominator": "micro_mean", "loss_micro_batch": 2, "rate_by": "update", "clip_norm": 1.0}
    result = run_ppo(tmp_path, tiny_model("olmo2"), value=value, **fields)
    assert result.exit_code == 0, result.output
    logged = [json.loads(line) for line in (tmp_path / "runs/p/rlvr/metrics.jsonl").read_text().splitlines()]
    assert [line["learning_rate"] for line in logged] == pytest.approx([1e-3, 1e-3 * 2 / 3, 1e-3 / 3])
    assert all(line["value_error"] > 0 and line["mismatch"] < 1e-3 for line in logged)
