"""KL off the reward of completions, by hand, and whatever the rows in which a group lies."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.samples import make_stage
from tulu.config.schema import Rlvr
from tulu.model.batch import pack
from tulu.rollout.batches import RolloutBatch
from tulu.stages.kl_in_reward import compare_less_kl
from tulu.types import Completion, Group

SIZES = {"prompts": 2, "samples": 2, "batch": 4, "max_prompt": 8, "max_tokens": 6, "kl": "k1", "beta": 0.5, "kl_in": "reward"}
OLD = [[[-1.0, -1.0], [-2.0]], [[-0.5], [-1.0, -1.5, -2.0]]]
REFERENCE = [[[-1.3, -0.9], [-1.6]], [[-0.5], [-1.0, -1.5, -2.0]]]
REWARDS = [[1.0, 0.0], [10.0, 0.0]]


def stage(**fields: Any) -> Rlvr:
    made: Rlvr = make_stage(Rlvr, **{**SIZES, **fields})
    return made


def rows(row_tokens: int, rewards: Sequence[Sequence[float]] = REWARDS) -> list[RolloutBatch]:
    """Two groups of two completions: rewards as the sampler leaves them, and log-probs per token."""
    groups = [
        Group([9, place], tuple(Completion([5] * len(one), [True] * len(one)) for one in group), f"row:{place}")
        for place, group in enumerate(OLD)
    ]
    return [
        RolloutBatch(
            **vars(batch),
            advantage_C=batch.of_completions(rewards),
            sampler_logps_N=batch.of_tokens(OLD),
            old_logps_N=batch.of_tokens(OLD),
            kl_reference_N=batch.of_tokens(REFERENCE),
        )
        for batch in pack(groups, row_tokens)
    ]


def by_place(rows: Sequence[RolloutBatch]) -> list[float]:
    found = {place: value for row in rows for place, value in zip(row.index_C, row.advantage_C.tolist(), strict=True)}
    return [found[place] for place in sorted(found)]


@pytest.mark.parametrize("row_tokens", [100, 4], ids=["one row", "a row each"])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # KL of the first group: 0.3 - 0.1 = 0.2 and -0.4; rewards less half of it are 0.9 and 0.2. The second has none.
        ({"advantage": "centred"}, [0.35, -0.35, 5.0, -5.0]),
        ({"advantage": "loo"}, [0.7, -0.7, 10.0, -10.0]),
        ({"advantage": "standard"}, [1.0, -1.0, 1.0, -1.0]),
        # k2 of the first group: (0.09 + 0.01) / 2 = 0.05 and 0.08, so 0.975 and -0.04.
        ({"advantage": "centred", "kl": "k2"}, [0.5075, -0.5075, 5.0, -5.0]),
    ],
)
def test_rewards_less_kl_are_compared(row_tokens: int, fields: dict[str, Any], expected: list[float]) -> None:
    made = rows(row_tokens)
    assert len(made) == (1 if row_tokens == 100 else 4)
    found = compare_less_kl(made, stage(**fields))
    assert by_place(found) == pytest.approx(expected, abs=1e-6)
    assert all(row.kl_reference_N is None for row in found), "it is no longer in the loss"
    total = sum(float(row.kl_N.sum()) for row in found if row.kl_N is not None)
    assert total == pytest.approx(-0.2 if fields.get("kl", "k1") == "k1" else 0.13)


@pytest.mark.parametrize("old", ["step", "minibatch"])
def test_ratios_compare_with_the_step_only_where_the_recipe_says_so(old: str) -> None:
    kept = [row.old_logps_N is not None for row in compare_less_kl(rows(100), stage(old=old, minibatches=2))]
    assert kept == [old == "step"]


def test_nothing_sampled_is_nothing_to_compare() -> None:
    assert compare_less_kl([], stage()) == []


def test_it_needs_both_log_probs() -> None:
    [row] = rows(100)
    with pytest.raises(ValueError, match="need the log-probs"):
        compare_less_kl([RolloutBatch(**{**vars(row), "old_logps_N": None})], stage())
