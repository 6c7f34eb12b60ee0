"""The policy's loss of a recipe over packed rows has the gradients that loops over completions have with transformers' logits."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.algorithm_lines import algorithms
from tests.policy_oracle import Case, Sampled, Terms, oracle
from tests.samples import gradients, largest_difference, make_stage, stay_in_float64, step_gradients
from tulu.advantages import group_advantages
from tulu.config.schema import Rlvr
from tulu.grading.reward import Grades
from tulu.model.batch import pack_row
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.reward_models.model import RewardModel
from tulu.rollout.batches import RolloutBatch, pack_rollouts
from tulu.rollout.records import mean_advantage
from tulu.rollout.sampler import Rollout, StepRollouts
from tulu.rollout.token_notes import TokenNotes
from tulu.stages.denominator import normaliser
from tulu.stages.kl_in_reward import compare_less_kl
from tulu.stages.policy_loss import grpo, policy_loss
from tulu.stages.ppo import ActorCritic
from tulu.stages.rlvr import Models, fix, update, update_rates
from tulu.train.optimizer import Learner
from tulu.types import Completion, Group, Problem

TEMPERATURE = 0.7
SIZES = {"prompts": 2, "samples": 3, "batch": 6, "max_prompt": 8, "max_tokens": 7, "updates": 2, "temperature": TEMPERATURE}
LENGTHS = [[2, 5, 1], [4, 3, 7]]
REWARDS = [[10.0, 0.0, 3.0], [0.0, 0.0, 10.0]]


def by_completions(tokens: int, completions: int) -> float:
    return completions


CASES = {
    "GRPO": Case(
        {"advantage": "standard", "denominator": "sequence", "beta": 0.04, "ratio_cap": None},
        Terms(mean_over_tokens=True, beta=0.04),
        by_completions,
        lambda rewards: (rewards - rewards.mean()) / (rewards.std() + 1e-8),
    ),
    "Dr. GRPO": Case({"denominator": "constant", "ratio_cap": None}, Terms(), lambda tokens, completions: completions * 7),
    "DAPO": Case({"clip_high": 0.28}, Terms(high=0.28, cap=2.0)),
    "CISPO": Case({"loss": "cispo", "clip_low": 1.0, "clip_high": 0.1}, Terms("cispo", 1.0, 0.1, cap=2.0)),
    "GSPO": Case(
        {"loss": "gspo", "clip_low": 0.05, "clip_high": 0.05, "denominator": "sequence", "ratio_cap": None},
        Terms("gspo", 0.05, 0.05, mean_over_tokens=True),
        by_completions,
    ),
    "RLOO": Case(
        {"advantage": "loo", "denominator": "constant", "beta": 0.5, "kl": "k1", "kl_in": "reward", "ratio_cap": None},
        Terms(),
        lambda tokens, completions: completions * 7,
        lambda rewards: np.array([rewards[i] - np.delete(rewards, i).mean() for i in range(3)]),
        kl_off_reward=0.5,
    ),
    "IcePop": Case(
        {"ratio_floor": 0.9, "ratio_cap": 1.1, "ratio_outside": "mask"},
        Terms(floor=0.9, cap=1.1, mask=True),
    ),
    "MIS of completions": Case(
        {"ratio_cap": 1.1, "ratio_outside": "mask", "ratio_level": "sequence"},
        Terms(cap=1.1, mask=True, level="sequence"),
    ),
    "TIS by the mean": Case({"ratio_cap": 1.01, "ratio_level": "geometric"}, Terms(cap=1.01, level="geometric")),
    "entropy": Case({"entropy_bonus": 0.3, "ratio_cap": None}, Terms(bonus=0.3)),
    "distillation": Case(
        {"advantage": "none", "refill": False, "teacher": "owner/teacher", "ratio_cap": None},
        Terms(teacher_weight=1.0),
        advantage=np.zeros_like,
    ),
    "distillation as a loss": Case(
        {"advantage": "none", "refill": False, "teacher": {"path": "owner/teacher", "through": "k2", "weight": 0.3}},
        Terms(teacher_weight=0.3, teacher_loss="k2"),
        advantage=np.zeros_like,
    ),
    "distillation beside rewards": Case(
        {
            "teacher": {"path": "owner/teacher", "weight": 0.5},
            "loss": "cispo",
            "clip_low": 1.0,
            "clip_high": 0.1,
            "ratio_cap": None,
        },
        Terms("cispo", 1.0, 0.1, teacher_weight=0.5),
    ),
}


@pytest.fixture(scope="module")
def folders(tiny_model: Callable[..., Path]) -> Sequence[Path]:
    """Policy, starting model and teacher."""
    return [tiny_model("llama", seed) for seed in range(3)]


def wide(folder: Path, trainable: bool = False) -> Policy:
    policy = Policy.load(folder, trainable=trainable)
    policy.module.double()
    return policy


def oracle_model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")


def drawn() -> list[Group]:
    generator = torch.Generator().manual_seed(5)

    def tokens(n: int) -> list[int]:
        found: list[int] = torch.randint(3, 250, (n,), generator=generator).tolist()
        return found

    return [
        Group(tokens(2 + place), tuple(Completion(tokens(n), [True] * n) for n in lengths), f"row:{place}")
        for place, lengths in enumerate(LENGTHS)
    ]


def plainly(model: Any, group: Group, completion: Completion) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of a completion's tokens from transformers' logits, alone in its row."""
    tokens_T = torch.tensor([*group.prompt, *completion.tokens])
    logits_TV = model(input_ids=tokens_T[None], use_cache=False).logits[0, len(group.prompt) - 1 : -1] / TEMPERATURE
    logps_TV = torch.log_softmax(logits_TV, -1)
    return logps_TV.gather(1, tokens_T[len(group.prompt) :, None])[:, 0], -(logps_TV.exp() * logps_TV).sum(-1)


def sampled_by(model: Any, stage: Rlvr) -> list[Rollout]:
    """The groups as an engine whose log-probs are a little off hands them over, with advantages as the sampler takes them."""
    generator = torch.Generator().manual_seed(6)
    rollouts = []
    for group, rewards in zip(drawn(), REWARDS, strict=True):
        completions = []
        for completion in group.completions:
            with torch.no_grad():
                logps_N = plainly(model, group, completion)[0]
            off_N = 0.15 * torch.randn(len(logps_N), generator=generator, dtype=torch.float64)
            completions.append(replace(completion, sampler_logps=(logps_N + off_N).tolist()))
        worth = torch.tensor(rewards, dtype=torch.float64)
        advantages = worth if stage.compares_later else group_advantages(worth, stage.advantage, stage.ddof)
        problem = Problem(group.id, [], group.prompt, None, [])
        own = replace(group, completions=tuple(completions))
        rollouts.append(Rollout(problem, own, ("",) * 3, (Grades(None),) * 3, tuple(rewards), tuple(advantages.tolist())))
    return rollouts


def expected(case: Case, models: Sequence[Any], rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
    """The gradients by the oracle: of the policy now, with that before its update, the starting model and the teacher."""
    now = models[0]
    completions = []
    for rollout in rollouts:
        held = [[plainly(model, rollout.group, one)[0].tolist() for one in rollout.group.completions] for model in models[1:]]
        divergence = [sum(old) - sum(ref) for old, ref in zip(held[0], held[1], strict=True)]
        advantages = case.advantage(np.array(rollout.rewards) - case.kl_off_reward * np.array(divergence))
        for place, one in enumerate(rollout.group.completions):
            logps, entropy = plainly(now, rollout.group, one)
            old, ref, teaching = (held[model][place] for model in range(3))
            completions.append(
                Sampled(logps, old, list(one.sampler_logps or ()), float(advantages[place]), ref, teaching, entropy)
            )
    loss = oracle(completions, case.terms) / case.divisor(sum(len(one.old) for one in completions), len(completions))
    loss.backward()
    return gradients(now)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("row_tokens", [8, 200], ids=["split", "packed"])
def test_gradients_are_those_of_the_paper(
    name: str, row_tokens: int, folders: Sequence[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_in_float64(monkeypatch)
    case = CASES[name]
    stage = make_stage(Rlvr, **{**SIZES, "row_tokens": row_tokens, **case.lines})
    policy, reference, teacher = (wide(folder, trainable=place == 0) for place, folder in enumerate(folders))
    before, now, plain_reference, plain_teacher = (oracle_model(folders[place]) for place in (0, 0, 1, 2))
    rollouts = sampled_by(before, stage)
    packed = pack_rollouts(rollouts, stage)
    asked = Models(
        policy,
        None,
        torch.no_grad()(lambda row: reference.logps(row, TEMPERATURE)) if stage.beta else None,
        torch.no_grad()(lambda row: teacher.logps(row, TEMPERATURE)) if stage.teacher else None,
    )
    with torch.no_grad():
        rows = fix(asked, packed, None, stage, Parallel(stage))
    if stage.compares_later:
        rows = compare_less_kl(rows, stage)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        # A first update has moved the policy.
        for parameter in policy.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    now.load_state_dict(policy.model.state_dict())
    wanted = expected(case, [now, before, plain_reference, plain_teacher], rollouts)
    found, metrics = step_gradients(policy, rows, partial(grpo, policy, stage), normaliser(stage))
    found = {name.removeprefix("model."): gradient for name, gradient in found.items()}
    assert largest_difference(found, wanted) < 1e-6
    assert 0.0 <= metrics["clipped"] < 1.0


STEP = {"prompts": 16, "samples": 2, "batch": 32, "max_prompt": 8, "max_tokens": 5, "micro_batch": 8, "row_tokens": 64}


def pairs_of(policy: Policy, stage: Rlvr, rewards: Sequence[float]) -> list[Rollout]:
    """Sixteen problems, each with a completion for both rewards, sampled by an engine of the policy's weights."""
    rollouts = []
    for place in range(16):
        group = Group([3, place + 4], tuple(Completion([place + 9, n, 2], [True] * 3) for n in (4, 5)), f"row:{place}")
        row = pack_row([group])
        with torch.no_grad():
            logps_N = policy.logps(row, stage.temperature)
        completions = tuple(
            replace(one, sampler_logps=logps_N[row.owner_N == copy].tolist()) for copy, one in enumerate(group.completions)
        )
        worth = torch.tensor(rewards, dtype=torch.float64)
        advantages = worth if stage.compares_later else group_advantages(worth, stage.advantage, stage.ddof)
        problem = Problem(group.id, [], group.prompt, None, [])
        own = replace(group, completions=completions)
        rollouts.append(Rollout(problem, own, ("",) * 2, (Grades(None),) * 2, tuple(worth.tolist()), tuple(advantages.tolist())))
    return rollouts


@pytest.mark.parametrize("name", algorithms())
def test_every_documented_algorithm_takes_a_step(name: str, folders: Sequence[Path]) -> None:
    lines = dict(algorithms()[name])
    if "overlong_buffer" in lines:
        lines["overlong_buffer"] = 2
    stage: Rlvr = make_stage(Rlvr, **{**STEP, **lines})
    policy, reference, teacher = (Policy.load(folder, trainable=place == 0) for place, folder in enumerate(folders))
    critic = None if stage.value is None else ActorCritic(policy, RewardModel.load(folders[0], trainable=True, new_head=1))
    models = Models(
        policy,
        critic,
        torch.no_grad()(lambda row: reference.logps(row, stage.temperature)) if stage.beta else None,
        torch.no_grad()(lambda row: teacher.logps(row, stage.temperature)) if stage.teacher else None,
    )
    rollouts = pairs_of(policy, stage, [stage.reward_scale, 0.0])
    before = [parameter.detach().clone() for parameter in policy.module.parameters()]
    learner = Learner(critic or policy, stage, Parallel(stage))
    notes = TokenNotes()
    metrics = update(learner, models, StepRollouts(rollouts, rollouts), stage, 0, update_rates(stage, 0, 1), notes)
    if stage.compares_later:
        # What the sampler calls advantages are rewards here; those that train are noted.
        noted = [[mean_advantage(notes.read()[id(one)]) for one in rollout.group.completions] for rollout in rollouts]
        assert [sum(group) for group in noted] == pytest.approx([0.0] * 16, abs=1e-4) or stage.advantage == "gae"
        assert all(right != stage.reward_scale for right, _ in noted)
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["mismatch"] < 1e-4
    assert ("kl" in metrics) == (stage.beta > 0)
    assert ("teacher_kl" in metrics) == (stage.teacher is not None)
    moved = max(float((now.detach() - then).abs().max()) for now, then in zip(policy.module.parameters(), before, strict=True))
    assert moved > 1e-5


def test_how_far_the_policy_is_from_the_sampler_is_told_without_a_reference() -> None:
    """One token is twice as likely as when it was sampled, one half as likely: k3 gives 1 - ln 2 and ln 2 - 1/2, in the mean 1/4.

    The mismatch is that of the log-probs before the update, which an update does not move.
    """
    stage: Rlvr = make_stage(Rlvr, **{**SIZES, "prompts": 1, "samples": 1, "batch": 1, "updates": 1})
    completion = Completion([5, 2], [True] * 2, [-1.0, -2.0], "stop", [(0, 0)])
    rollout = Rollout(Problem("p", [], [3], None, []), Group([3], [completion], "p"), ("",), (Grades(None),), (1.0,), (1.0,))
    [row] = pack_rollouts([rollout], stage)
    batch = RolloutBatch(**{**vars(row), "old_logps_N": row.sampler_logps_N + 0.125})
    logps_N = row.sampler_logps_N + torch.tensor([math.log(2), -math.log(2)])
    _, metrics = policy_loss(logps_N.requires_grad_(), torch.zeros(2), batch, batch.advantage_C[batch.owner_N], stage)
    total, count = metrics["kl_to_sampler"]
    assert float(total / count) == pytest.approx(0.25)
    assert not total.requires_grad
    total, count = metrics["mismatch"]
    assert float(total / count) == pytest.approx(0.125)
    assert "kl" not in metrics, "that is the name of the KL to the starting model"


@pytest.mark.parametrize("kl_in", ["loss", "reward"])
def test_equal_rewards_at_the_starting_model_teach_nothing(kl_in: str, folders: Sequence[Path]) -> None:
    """So an update compares rewards that the sampler left as they were: 10 and 10 raise no answer over another."""
    stage: Rlvr = make_stage(Rlvr, **STEP, advantage="loo", beta=0.5, kl="k2", kl_in=kl_in, refill=False)
    policy = Policy.load(folders[0])
    models = Models(policy, None, torch.no_grad()(lambda row: policy.logps(row, stage.temperature)))
    rollouts = pairs_of(policy, stage, [10.0, 10.0])
    assert rollouts[0].advantages == ((10.0, 10.0) if kl_in == "reward" else (0.0, 0.0))
    learner = Learner(policy, stage, Parallel(stage))
    metrics = update(learner, models, StepRollouts(rollouts, rollouts), stage, 0, update_rates(stage, 0, 1))
    assert metrics["gradient_norm"] == 0.0
