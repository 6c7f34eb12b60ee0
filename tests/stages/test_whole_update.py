"""A whole step of RLVR, several optimizer steps over a batch of real life: weights and figures are those of loops over tokens.

Of four groups one lost two completions to a grader that failed, one has a completion of which nothing is trained and one equal
rewards; tools have answered in some, whose tokens have neither loss nor ratio.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.policy_oracle import Case, Sampled, Terms, oracle
from tests.samples import make_stage, stay_in_float64
from tulu.config.schema import Rlvr
from tulu.grading.reward import Grades
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.rollout.sampler import Graded, Rollout, RolloutGrader, StepRollouts
from tulu.stages.rlvr import Models, update, update_rates
from tulu.train.optimizer import Learner
from tulu.types import Completion, Group, Problem, Verdict

TEMPERATURE = 0.7
MOST = 8
"""Tokens of a completion that is cut off."""
SIZES: dict[str, Any] = {
    **{"prompts": 4, "samples": 3, "batch": 12, "max_prompt": 8, "max_tokens": MOST, "refill": False, "temperature": TEMPERATURE},
    **{"updates": 2, "minibatches": 2, "row_tokens": 30, "micro_batch": 2, "ratio_cap": None, "reward_scale": 2.0},
    # With a large epsilon an update is proportional to its gradient, and so are differences.
    **{"learning_rate": 1e-2, "adam_epsilon": 1e-2, "weight_decay": 0.1, "clip_norm": 1.0},
}
LENGTHS = [[2, 5, 1], [4, MOST, 7], [6, 3, 2], [5, 6, MOST]]
SCORES: list[list[float | None]] = [[1.0, 0.0, 0.5], [None, 1.0, None], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
TOOLS = {(0, 1): [1, 2], (1, 1): [3], (2, 2): [0, 1], (3, 0): [2, 3]}
"""Places of tokens that are not trained; in the third group a completion has no others."""


def standard(worth: Any) -> Any:
    return (worth - worth.mean()) / (worth.std() + 1e-8)


CASES = {
    "GRPO": Case(
        {"advantage": "standard", "denominator": "sequence", "beta": 0.04},
        Terms(mean_over_tokens=True, beta=0.04),
        lambda tokens, completions: completions,
        standard,
    ),
    # Beyond five tokens the penalty grows by a third for each, and 8 are cut off.
    "DAPO": Case(
        {"advantage": "standard", "clip_high": 0.28, "overlong_buffer": 3},
        Terms(high=0.28),
        advantage=standard,
        penalty=lambda length: -max(0, length - 5) / 3,
    ),
    "Dr. GRPO": Case({"denominator": "constant"}, Terms(), lambda tokens, completions: completions * MOST),
    "GSPO with MIS of completions": Case(
        {
            "loss": "gspo",
            "clip_low": 0.02,
            "clip_high": 0.02,
            "ratio_cap": 1.1,
            "ratio_outside": "mask",
            "ratio_level": "sequence",
        },
        Terms("gspo", 0.02, 0.02, cap=1.1, mask=True, level="sequence"),
    ),
    "CISPO against each mini-batch": Case(
        {"loss": "cispo", "clip_low": 1.0, "clip_high": 0.1, "old": "minibatch"}, Terms("cispo", 1.0, 0.1)
    ),
    "RLOO": Case(
        {"advantage": "loo", "denominator": "constant", "beta": 0.5, "kl": "k1", "kl_in": "reward"},
        Terms(),
        lambda tokens, completions: completions * MOST,
        lambda worth: np.array([one - np.delete(worth, place).mean() for place, one in enumerate(worth)]),
        kl_off_reward=0.5,
    ),
    "entropy": Case({"entropy_bonus": 0.1}, Terms(bonus=0.1)),
}


def plainly(model: Any, prompt: Sequence[int], one: Completion) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of a completion's trained tokens from transformers' logits, alone in its row."""
    tokens_T = torch.tensor([*prompt, *one.tokens])
    logits_TV = model(input_ids=tokens_T[None], use_cache=False).logits[0, len(prompt) - 1 : -1] / TEMPERATURE
    logps_TV = logits_TV - logits_TV.logsumexp(-1, keepdim=True)
    trained_N = torch.tensor(one.trained)
    logps_N = logps_TV.gather(1, tokens_T[len(prompt) :, None])[:, 0][trained_N]
    return logps_N, -(logps_TV.exp() * logps_TV).sum(-1)[trained_N]


@torch.no_grad()
def held(model: Any, prompt: Sequence[int], one: Completion) -> list[float]:
    found: list[float] = plainly(model, prompt, one)[0].tolist()
    return found


def drawn(model: Any) -> list[Group]:
    """The groups as an engine whose log-probs are a little off hands them over."""
    generator = torch.Generator().manual_seed(5)

    def tokens(n: int) -> list[int]:
        found: list[int] = torch.randint(3, 250, (n,), generator=generator).tolist()
        return found

    groups = []
    for place, lengths in enumerate(LENGTHS):
        prompt, completions = tokens(2 + place), []
        for copy, n in enumerate(lengths):
            trained = [token not in TOOLS.get((place, copy), ()) for token in range(n)]
            one = Completion(tokens(n), trained)
            off = iter((0.2 * torch.randn(n, generator=generator, dtype=torch.float64)).tolist())
            logps = iter([round(logp + next(off), 3) for logp in held(model, prompt, one)])
            sampled = [next(logps) if flag else 0.0 for flag in trained]
            completions.append(Completion(one.tokens, trained, sampled, "length" if n == MOST else "stop", [(0, 0)]))
        groups.append(Group(prompt, completions, f"row:{place}"))
    return groups


def rollouts_of(groups: Sequence[Group], stage: Rlvr) -> list[Rollout]:
    problems = [Problem(group.id, [], group.prompt, None, []) for group in groups]
    unused: Any = None
    grader = RolloutGrader(unused, unused, problems, stage)
    verdicts = [[Verdict(None, "error", "down") if one is None else Verdict(one) for one in scores] for scores in SCORES]
    grades = [Graded(("",) * 3, tuple(Grades(verdict) for verdict in own)) for own in verdicts]
    return [grader.rollout(place, group, grades[place]) for place, group in enumerate(groups)]


@dataclass
class Member:
    """A completion that is trained: where, and what stays fixed."""

    group: int
    prompt: Sequence[int]
    one: Completion
    advantage: float
    old: list[float]
    reference: list[float]


def members_of(case: Case, groups: Sequence[Group], before: Any, reference: Any) -> list[Member]:
    """Everything with a score; the rewards of a group are compared among those that have one."""
    found = []
    for place, (group, scores) in enumerate(zip(groups, SCORES, strict=True)):
        graded = [score is not None for score in scores]
        kept = list(compress(group.completions, graded))
        old, ref = ([held(model, group.prompt, one) for one in kept] for model in (before, reference))
        worth = np.array([2.0 * score for score in scores if score is not None])
        worth += [case.penalty(len(one.tokens)) for one in kept]
        worth -= case.kl_off_reward * np.array([math.fsum(a) - math.fsum(b) for a, b in zip(old, ref, strict=True)])
        # A group of one has nothing to be compared with.
        advantages = case.advantage(worth) if len(worth) > 1 else [0.0]
        for one, advantage, own, theirs in zip(kept, advantages, old, ref, strict=True):
            found.append(Member(place, group.prompt, one, float(advantage), own, theirs))
    return found


def expected(case: Case, stage: Rlvr, groups: Sequence[Group], models: Sequence[Any]) -> dict[str, Tensor]:
    """The weights after two passes over both mini-batches, of which each has two prompts."""
    now, before, reference = models
    members = members_of(case, groups, before, reference)
    settings: dict[str, Any] = {"lr": 1e-2, "betas": (stage.adam_beta1, stage.adam_beta2), "eps": 1e-2, "weight_decay": 0.1}
    optimizer = torch.optim.AdamW(now.parameters(), **settings)
    for number in range(4):
        own = [member for member in members if member.group // 2 == number % 2]
        if stage.old == "minibatch" and number < 2:
            for member in own:
                member.old = held(now, member.prompt, member.one)
        tokens, completions = sum(member.one.n_trained for member in own), len(own)
        own = [member for member in own if member.one.n_trained]
        sampled = []
        for member in own:
            logps, entropy = plainly(now, member.prompt, member.one)
            sampler = list(compress(member.one.sampler_logps or (), member.one.trained))
            sampled.append(Sampled(logps, member.old, sampler, member.advantage, member.reference, (), entropy))
        optimizer.zero_grad()
        (oracle(sampled, case.terms) / case.divisor(tokens, completions)).backward()
        torch.nn.utils.clip_grad_norm_(now.parameters(), 1.0)
        optimizer.step()
    return {name: tensor.detach() for name, tensor in now.named_parameters()}


@pytest.fixture(scope="module")
def folders(tiny_model: Callable[..., Path]) -> Sequence[Path]:
    """Policy and starting model."""
    return [tiny_model("llama", seed) for seed in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_the_weights_after_a_step_are_those_of_loops_over_tokens(
    name: str, folders: Sequence[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_in_float64(monkeypatch)
    case = CASES[name]
    stage: Rlvr = make_stage(Rlvr, **{**SIZES, **case.lines})
    options: dict[str, Any] = {"dtype": torch.float64, "attn_implementation": "eager"}
    models = [AutoModelForCausalLM.from_pretrained(folders[place], **options) for place in (0, 0, 1)]
    groups = drawn(models[1])
    policy, reference = (Policy.load(folder, trainable=place == 0) for place, folder in enumerate(folders))
    for module in (policy.module, reference.module):
        module.double()
    asked = torch.no_grad()(lambda row: reference.logps(row, TEMPERATURE)) if stage.beta else None
    rollouts = rollouts_of(groups, stage)
    learner = Learner(policy, stage, Parallel(stage))
    start = {name: tensor.detach().clone() for name, tensor in policy.model.named_parameters()}
    metrics = update(learner, Models(policy, None, asked), StepRollouts(rollouts, rollouts), stage, 0, update_rates(stage, 0, 1))
    wanted = expected(case, stage, groups, models)
    found = {name: tensor.detach() for name, tensor in policy.model.named_parameters()}
    assert max(float((found[name] - start[name]).abs().max()) for name in wanted) > 1e-2
    # Advantages and weights of completions, and what the sampler says of tokens, travel as float32.
    assert max(float((found[name] - wanted[name]).abs().max()) for name in wanted) < 1e-7
    assert 0 < metrics["clipped"] < 1 or name == "CISPO against each mini-batch"
