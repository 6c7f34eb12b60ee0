"""Rollouts for one step: drawn in a resumable order, sampled, judged, and refilled until every group teaches something."""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Protocol

import torch

from tulu.advantages import group_advantages, has_signal
from tulu.config.schema import RewardSignal, Rlvr
from tulu.data.datasets import order
from tulu.errors import TuluError
from tulu.grading.grader import pair_with_problem, split_off_reward_model
from tulu.model.parallel import Parallel
from tulu.rollout.engine import RolloutEngine
from tulu.types import Completion, Group, Problem, SamplingParams, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("tulu")

MOST_ROUNDS = 8
"""Rounds of refilling before a step makes do with the groups it has."""
MOST_FAULTS = 0.5
"""Share of a step's verdicts that may be faults of ours before the run stops."""


class Grades(Protocol):
    """What scores completions: a Grader, or a reward model."""

    def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]: ...


@dataclass(frozen=True, slots=True)
class Said:
    """What was said of one completion, by its verifiers and by the reward model; None where one was not asked."""

    verdict: Verdict | None
    preference: Verdict | None = None
    weight: float = 1.0
    """Of the reward model's score in its row."""

    @property
    def fault(self) -> Verdict | None:
        """The verdict that could not be reached, if any."""
        return next((each for each in (self.verdict, self.preference) if each is not None and each.score is None), None)


@dataclass(frozen=True)
class Rollout:
    """A problem, its completions, what the verifier said of each, and what each is worth."""

    problem: Problem
    group: Group
    texts: tuple[str, ...]
    verdicts: tuple[Verdict | None, ...]
    """What the verifiers said; None where only the reward model is asked."""
    rewards: tuple[float, ...]
    """NaN where either could not judge."""
    advantages: tuple[float, ...]
    preferences: tuple[Verdict | None, ...] = ()
    """What the reward model said, None where it was not asked; empty in a run without one."""

    @property
    def said(self) -> list[Said]:
        """What was said of each completion."""
        return [Said(verdict, preference) for verdict, preference in zip_longest(self.verdicts, self.preferences)]

    def trained(self, mask_truncated: bool) -> Group:
        """The completions that enter the loss, each carrying its advantage and the sampler's log-probs."""
        kept = [
            replace(completion, values={"advantage": advantage}, token_values={"sampler": completion.sampler_logps or ()})
            for completion, advantage in zip(self.group.completions, self.advantages, strict=True)
            if advantage == advantage and not (mask_truncated and completion.finish == "length")
        ]
        return replace(self.group, completions=tuple(kept))


@dataclass
class Collected:
    """One step's rollouts on this process."""

    kept: list[Rollout] = field(default_factory=list)
    """Groups to train on."""
    seen: list[Rollout] = field(default_factory=list)
    """All that were sampled, the ones without signal too."""
    drawn: int = 0
    """Problems drawn by all processes since the run began."""
    rounds: int = 0


@dataclass(frozen=True)
class Sampler:
    """Everything between a list of problems and judged rollouts."""

    engine: RolloutEngine
    grader: Grades
    tokenizer: "PreTrainedTokenizerBase"
    problems: Sequence[Problem]
    stage: Rlvr
    parallel: Parallel
    judge_model: Grades | None = None
    """The reward model of `rlvr.reward_model`."""

    def collect(self, drawn: int) -> Collected:
        """`prompts` groups over all processes; with `refill`, those whose rewards are all equal are replaced.

        What is drawn, and what is sampled from it, is a function of the seed and of how much was drawn before.
        Raises TuluError if most verdicts are faults of the verifier.
        """
        found = Collected(drawn=drawn)
        missing = self.stage.prompts
        while missing and found.rounds < MOST_ROUNDS:
            chosen = [self._problem(position) for position in range(found.drawn, found.drawn + missing)]
            rollouts = self.judge(self.parallel.share(chosen), seed=self.stage.seed * 1_000_003 + found.drawn)
            kept = [each for each in rollouts if not self.stage.refill or has_signal(torch.tensor(each.rewards))]
            found.seen += rollouts
            found.kept += kept
            found.drawn += missing
            found.rounds += 1
            missing -= int(self.parallel.total(len(kept)))
        if missing == self.stage.prompts:
            log.warning("no group teaches anything after %d rounds of %d prompts: nothing is trained", found.rounds, missing)
        return found

    def _problem(self, position: int) -> Problem:
        """The problem at a place of the endless shuffled order."""
        epoch, place = divmod(position, len(self.problems))
        return self.problems[order(len(self.problems), self.stage.seed, epoch)[place]]

    def judge(self, problems: Sequence[Problem], seed: int) -> list[Rollout]:
        """Sample and score `samples` completions of each problem."""
        if not problems:
            return []
        stage = self.stage
        params = SamplingParams(stage.max_tokens, stage.temperature, stop=stage.stop, seed=seed)
        groups = self.engine.generate(problems, stage.samples, params)
        texts = [[self._text(completion) for completion in group.completions] for group in groups]
        said = self._said([item for each in zip(problems, texts, groups, strict=True) for item in pair_with_problem(*each)])
        check_faults(said)
        rollouts = []
        for number, (problem, group, row) in enumerate(zip(problems, groups, texts, strict=True)):
            own = said[number * stage.samples : (number + 1) * stage.samples]
            rewards = [reward(each, completion, stage) for each, completion in zip(own, group.completions, strict=True)]
            advantages = group_advantages(torch.tensor(rewards, dtype=torch.float64), stage.advantage, stage.ddof).tolist()
            verdicts, preferences = tuple(each.verdict for each in own), tuple(each.preference for each in own)
            rollouts.append(Rollout(problem, group, tuple(row), verdicts, tuple(rewards), tuple(advantages), preferences))
        return rollouts

    def _said(self, items: Sequence[tuple[str, Problem]]) -> list[Said]:
        """What verifiers and reward model say of every completion; the model reads all of them in one pass."""
        parts = [split_off_reward_model(problem) for _, problem in items]
        verdicts = iter(self.grader.grade([(text, part) for (text, _), (part, _) in zip(items, parts, strict=True) if part]))
        said = [Said(next(verdicts) if part else None) for part, _ in parts]
        signal = self.stage.reward_model
        if signal is None or self.judge_model is None:
            return said
        weights = [float(signal.rows == "all") if weight is None else weight for _, weight in parts]
        wanted = [place for place, weight in enumerate(weights) if weight and counts(said[place].verdict, signal)]
        for place, found in zip(wanted, self.judge_model.grade([items[place] for place in wanted]), strict=True):
            said[place] = replace(said[place], preference=found, weight=weights[place])
        return said

    def _text(self, completion: Completion) -> str:
        return str(self.tokenizer.decode(list(completion.tokens), skip_special_tokens=True))


def counts(verdict: Verdict | None, signal: RewardSignal) -> bool:
    """Whether the reward model's score enters the reward: not where the verifier failed, nor beside a gate that is closed."""
    if verdict is None:
        return True
    return verdict.score is not None and (signal.combine == "sum" or verdict.score > 0)


def reward(said: Said, completion: Completion, stage: Rlvr) -> float:
    """reward_scale × the verifiers' score + weight × the reward model's (open-instruct, ppo_vllm_thread_ray_gtrl.py @ 004a48d).

    NaN where either failed; the recipe's own where the completion did not stop.
    """
    if completion.finish == "length" and stage.no_stop_score is not None:
        return stage.no_stop_score
    if said.fault is not None:
        return float("nan")
    verifiable = 0.0 if said.verdict is None else stage.reward_scale * (said.verdict.score or 0.0)
    if said.preference is None or stage.reward_model is None:
        return verifiable
    score = said.preference.score or 0.0
    if stage.reward_model.transform == "sigmoid":
        # Not 1 / (1 + exp(-x)), which overflows.
        score = (1 + math.tanh(score / 2)) / 2
    return verifiable + stage.reward_model.weight * said.weight * score


def check_faults(said: Sequence[Said]) -> None:
    """Stop where the verifier, not the policy, fails. Raises TuluError."""
    faults = Counter(f"{each.fault.status}: {each.fault.detail}" for each in said if each.fault is not None)
    if faults.total() > MOST_FAULTS * len(said):
        worst, count = faults.most_common(1)[0]
        raise TuluError(
            f"the verifier failed on {faults.total()} of {len(said)} completions, {count} times with {worst}\n"
            "Nothing was trained on them. Check the verifier and its data, then run the same command again."
        )
