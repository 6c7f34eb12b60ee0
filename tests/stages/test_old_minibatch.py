"""Legacy GRPO: the log-probs that ratios compare with are those of the policy when it is first trained on a mini-batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.samples import make_stage, stay_in_float64
from tulu.config.schema import Rlvr
from tulu.grading.reward import Grades
from tulu.losses import grpo_loss
from tulu.model.batch import pack_row
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.rollout.sampler import Rollout, StepRollouts
from tulu.rollout.token_notes import TokenNotes
from tulu.stages import policy_loss
from tulu.stages.rlvr import Models, update, update_rates
from tulu.train.optimizer import Learner
from tulu.types import Completion, Group, Problem

SIZES = {"prompts": 2, "samples": 2, "batch": 4, "max_prompt": 8, "max_tokens": 8, "ratio_cap": None, "minibatches": 2}


@pytest.mark.parametrize(
    ("old", "updates", "first_pass", "second_pass"),
    [
        # Two mini-batches: the second one is trained after the first has moved the policy.
        ("step", 1, [True, False], []),
        ("minibatch", 1, [True, True], []),
        ("minibatch", 2, [True, True], [False, False]),
    ],
)
def test_when_the_ratio_is_one(
    old: str,
    updates: int,
    first_pass: list[bool],
    second_pass: list[bool],
    tiny_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stay_in_float64(monkeypatch)
    stage = make_stage(Rlvr, **SIZES, old=old, updates=updates, learning_rate=1e-2)
    policy = Policy.load(tiny_model("olmo2"))
    policy.module.double()
    ratios: list[bool] = []

    def watched(logps_N: Any, old_N: Any, *arguments: Any, **options: Any) -> Any:
        ratios.append(bool(torch.allclose(logps_N, old_N, atol=1e-9)))
        return grpo_loss(logps_N, old_N, *arguments, **options)

    monkeypatch.setattr(policy_loss, "grpo_loss", watched)
    learner = Learner(policy, stage, Parallel(stage))
    groups = [Group([3, seed], tuple(Completion([seed, 9, n], [True] * 3) for n in (4, 5)), f"row:{seed}") for seed in (6, 7)]
    rollouts = [rollout(policy, group) for group in groups]
    models, notes = Models(policy, None, None), TokenNotes()
    metrics = update(learner, models, StepRollouts(rollouts, rollouts), stage, 0, update_rates(stage, 0, 1), notes)
    assert ratios == [*first_pass, *second_pass]
    assert metrics["mismatch"] < 1e-6, "the engine's weights are compared with those before the first update"
    # Each mini-batch is held against the engine once. Behind the first update the policy is up to a step ahead of it.
    found = {age: (one.tokens, one.mean < 1e-6) for (_, age), one in notes.by_source(0).items()}
    assert found == ({0: (12, True)} if old == "step" else {0: (6, True), 1: (6, False)})


def rollout(policy: Policy, group: Group) -> Rollout:
    """A group with one completion that is right, and with the log-probs that an engine of the same weights gives."""
    batch = pack_row([group])
    with torch.no_grad():
        logps_N = policy.logps(batch)
    completions = tuple(
        Completion(one.tokens, one.trained, logps_N[batch.owner_N == place].tolist())
        for place, one in enumerate(group.completions)
    )
    problem = Problem(group.id, [], group.prompt, None, [])
    graded = Group(group.prompt, completions, group.id)
    return Rollout(problem, graded, ("", ""), (Grades(None), Grades(None)), (10.0, 0.0), (5.0, -5.0))
