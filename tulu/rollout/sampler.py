"""Rollouts for one step: problems drawn in a resumable order, sampled, graded, and replaced where a group teaches nothing."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING, TypeVar

import torch

from tulu.advantages import group_advantages, has_signal
from tulu.config.schema import Rlvr
from tulu.grading.grader import Scores, grade_by_verifiers, pair_with_problems, split_off_reward_model
from tulu.grading.reward import Grades, check_faults, needs_preference, overlong_penalties, reward
from tulu.model.parallel import Parallel
from tulu.rollout.engine import RolloutEngine
from tulu.rollout.problem_order import ProblemOrder
from tulu.types import Group, Problem, SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("tulu")

T = TypeVar("T")

MAX_ROUNDS = 8
"""Rounds of refilling before a step makes do with the groups it has."""


@dataclass(frozen=True)
class Rollout:
    """A problem, its sampled completions, their grades, and what each is worth; all sequences have one entry per completion."""

    problem: Problem
    group: Group
    texts: tuple[str, ...]
    grades: tuple[Grades, ...]
    rewards: tuple[float, ...]
    """NaN where verifiers or reward model failed."""
    advantages: tuple[float, ...]
    """NaN where the reward is. They are the rewards less the penalties where the learner compares those later."""
    penalties: tuple[float, ...] = ()
    """What is added to the rewards for their length, 0 or less; empty without a penalty. It makes no group worth training."""

    @property
    def solved(self) -> float | None:
        """The mean score that verifiers gave its completions; None where none has a score."""
        scores = [one.verdict.score for one in self.grades if one.verdict is not None and one.verdict.score is not None]
        return sum(scores) / len(scores) if scores else None

    def to_train(self, mask_truncated: bool) -> "Rollout":
        """The completions that enter the loss: those with an advantage, and with `mask_truncated` only those that stopped."""
        enter = [
            not math.isnan(advantage) and not (mask_truncated and completion.finish == "length")
            for completion, advantage in zip(self.group.completions, self.advantages, strict=True)
        ]

        def select(values: Sequence[T]) -> tuple[T, ...]:
            return tuple(compress(values, enter))

        group = replace(self.group, completions=select(self.group.completions))
        texts, grades = select(self.texts), select(self.grades)
        rewards, advantages, penalties = select(self.rewards), select(self.advantages), select(self.penalties)
        return Rollout(self.problem, group, texts, grades, rewards, advantages, penalties)


@dataclass
class StepRollouts:
    """One step's rollouts on this process."""

    trained: list[Rollout] = field(default_factory=list)
    """The groups to train on."""
    sampled: list[Rollout] = field(default_factory=list)
    """All groups that were sampled, those without signal too."""
    drawn: int = 0
    """Problems that all processes together drew since the run began."""
    rounds: int = 0


@dataclass(frozen=True)
class Sampler:
    """Everything between a list of problems and graded rollouts."""

    engine: RolloutEngine
    grader: Scores
    tokenizer: "PreTrainedTokenizerBase"
    problems: Sequence[Problem]
    stage: Rlvr
    parallel: Parallel
    reward_model: Scores | None = None
    """The reward model of the recipe's `rlvr.reward_model`."""
    retired: Iterable[Sequence[int]] = ()
    """The problems that an earlier session retired, as `order.state()` says it."""

    @cached_property
    def order(self) -> ProblemOrder:
        """Where each problem stands."""
        return ProblemOrder(len(self.problems), self.stage.seed, self.retired)

    def collect(self, drawn: int) -> StepRollouts:
        """`prompts` groups over all processes; with `refill`, those whose rewards are all equal are replaced.

        What is drawn, and what is sampled from it, is a function of the seed, of how much was drawn before, and of what was
        retired. Raises TuluError if most verdicts are faults of the verifier.
        """
        rollouts = StepRollouts(drawn=drawn)
        missing = self.stage.prompts
        while missing and rollouts.rounds < MAX_ROUNDS:
            places = [self.order.at(position) for position in range(rollouts.drawn, rollouts.drawn + missing)]
            own = self.parallel.share(places)
            sampled = self.sample([self.problems[place] for place in own], seed=self.stage.seed * 1_000_003 + rollouts.drawn)
            teaching = [one for one in sampled if has_signal(torch.tensor(one.rewards))]
            rollouts.sampled += sampled
            rollouts.trained += teaching if self.stage.refill or self.stage.drop_equal else sampled
            rollouts.drawn += missing
            rollouts.rounds += 1
            self._retire(own, sampled, rollouts.drawn)
            missing = missing - int(self.parallel.total(len(teaching))) if self.stage.refill else 0
        if missing == self.stage.prompts:
            log.warning("no group teaches anything after %d rounds of %d prompts: nothing is trained", rollouts.rounds, missing)
        return rollouts

    def _retire(self, places: Sequence[int], sampled: Sequence[Rollout], drawn: int) -> None:
        """Take out what is solved as often as `retire_at` says, in every process alike."""
        limit = self.stage.retire_at
        if limit is None:
            return
        solved = [
            place for place, one in zip(places, sampled, strict=True) if (share := one.solved) is not None and share >= limit
        ]
        self.order.retire(sorted(place for part in self.parallel.exchange(solved) for place in part), drawn)

    def sample(self, problems: Sequence[Problem], seed: int) -> list[Rollout]:
        """Sample and grade `samples` completions of each problem."""
        if not problems:
            return []
        params = SamplingParams(self.stage.max_tokens, self.stage.temperature, stop=self.stage.stop, seed=seed)
        groups = self.engine.generate(problems, self.stage.samples, params)
        items = pair_with_problems(problems, groups, self.tokenizer)
        grades = self.grade(items)
        check_faults(grades)
        texts, n = [text for text, _ in items], self.stage.samples
        return [
            self._rollout(problem, group, texts[first : first + n], grades[first : first + n])
            for problem, group, first in zip(problems, groups, range(0, len(items), n), strict=True)
        ]

    def _rollout(self, problem: Problem, group: Group, texts: Sequence[str], grades: Sequence[Grades]) -> Rollout:
        """The completions of a problem with their rewards and advantages."""
        rewards = [reward(one, completion, self.stage) for one, completion in zip(grades, group.completions, strict=True)]
        penalties = overlong_penalties(group, self.stage)
        worth = torch.tensor(rewards, dtype=torch.float64)
        if penalties:
            worth = worth + torch.tensor(penalties, dtype=torch.float64)
        later = self.stage.compares_later
        advantages = (worth if later else group_advantages(worth, self.stage.advantage, self.stage.ddof)).tolist()
        return Rollout(problem, group, tuple(texts), tuple(grades), tuple(rewards), tuple(advantages), penalties)

    def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Grades]:
        """Grades of every (completion, problem); the reward model scores all that it has to in one pass."""
        grades = [Grades(verdict) for verdict in grade_by_verifiers(self.grader, items)]
        signal = self.stage.reward_model
        if signal is None or self.reward_model is None:
            return grades
        unnamed = float(signal.rows == "all")
        weights = [unnamed if weight is None else weight for weight in (split_off_reward_model(row)[1] for _, row in items)]
        places = [place for place, weight in enumerate(weights) if weight and needs_preference(grades[place].verdict, signal)]
        preferences = self.reward_model.grade([items[place] for place in places])
        for place, preference in zip(places, preferences, strict=True):
            grades[place] = replace(grades[place], preference=preference, weight=weights[place])
        return grades
