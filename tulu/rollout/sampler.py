"""From sampled groups to rollouts: their grades, rewards and advantages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, compress
from typing import TYPE_CHECKING, TypeVar

import torch

from tulu.advantages import group_advantages, has_signal
from tulu.config.schema import Rlvr
from tulu.grading.grader import Scores, grade_by_verifiers, pair_with_problems, split_off_reward_model
from tulu.grading.reward import Grades, needs_preference, overlong_penalties, reward
from tulu.types import Group, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")


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
        """The completions that enter the loss: those with an advantage, and with `mask_truncated` only those that stopped.

        One that no engine began has no token, and nothing to learn from.
        """
        enter = [
            not math.isnan(advantage) and len(completion.tokens) > 0 and not (mask_truncated and completion.finish == "length")
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
    places: Sequence[int] | None = None
    """The place of each of `trained` among those of all processes, in the order of drawing; None where it has all."""
    count: int | None = None
    """How many groups all processes train on in this step; None where this one has all."""

    def parts(self, count: int) -> list[list[tuple[int, Rollout]]]:
        """`trained` in so many parts, each rollout with its place among those of all processes.

        A part is a stretch of the order of drawing. So which part a group falls into does not depend on the process that it is
        in, and where each process has every nth group, each has its share of every part.
        """
        places = range(len(self.trained)) if self.places is None else self.places
        total = len(self.trained) if self.count is None else self.count
        found: list[list[tuple[int, Rollout]]] = [[] for _ in range(count)]
        for place, rollout in zip(places, self.trained, strict=True):
            found[place * count // total].append((place, rollout))
        return found


@dataclass(frozen=True)
class Graded:
    """What is known of a group's completions once they are graded, with one entry per completion."""

    texts: tuple[str, ...]
    grades: tuple[Grades, ...]


Sampled = tuple[int, Group]
"""The place of a problem among all problems, and the group that was sampled of it."""


@dataclass(frozen=True)
class RolloutGrader:
    """Everything between sampled groups and rollouts. Each process of a learner has one, and may be asked about any group."""

    grader: Scores
    tokenizer: "PreTrainedTokenizerBase"
    problems: Sequence[Problem]
    stage: Rlvr
    reward_model: Scores | None = None
    """The reward model of the recipe's `rlvr.reward_model`."""

    def grade(self, sampled: Sequence[Sampled]) -> list[Graded]:
        """The grades of each group, by verifiers and reward model."""
        return self.prefer([(place, group, graded) for (place, group), graded in zip(sampled, self.verify(sampled), strict=True)])

    def verify(self, sampled: Sequence[Sampled]) -> list[Graded]:
        """The verdicts of the verifiers on each group. This may be called from any thread."""
        items, given = self._items(sampled), [one.verdict for _, group in sampled for one in group.completions]
        # An environment's verdict on its episode stands.
        verdicts = iter(grade_by_verifiers(self.grader, [item for item, own in zip(items, given, strict=True) if own is None]))
        grades = [Grades(next(verdicts) if own is None else own) for own in given]
        counts = [len(group.completions) for _, group in sampled]
        return [
            Graded(
                tuple(text for text, _ in items[first : first + n]) if _in_one_turn(group) else self.texts(group),
                tuple(grades[first : first + n]),
            )
            for first, n, (_, group) in zip(_firsts(counts), counts, sampled, strict=True)
        ]

    def prefer(self, verified: Sequence[tuple[int, Group, Graded]]) -> list[Graded]:
        """The same with the reward model's scores, which it gives to all that it has to score in one pass."""
        signal, before = self.stage.reward_model, [graded for *_, graded in verified]
        if signal is None or self.reward_model is None:
            return before
        items = self._items([(place, group) for place, group, _ in verified], [graded.texts for graded in before])
        grades = [one for graded in before for one in graded.grades]
        unnamed = float(signal.rows == "all")
        weights = [unnamed if weight is None else weight for weight in (split_off_reward_model(row)[1] for _, row in items)]
        places = [place for place, weight in enumerate(weights) if weight and needs_preference(grades[place].verdict, signal)]
        preferences = self.reward_model.grade([items[place] for place in places])
        for place, preference in zip(places, preferences, strict=True):
            grades[place] = replace(grades[place], preference=preference, weight=weights[place])
        counts = [len(graded.grades) for graded in before]
        return [
            replace(graded, grades=tuple(grades[first : first + n]))
            for graded, first, n in zip(before, _firsts(counts), counts, strict=True)
        ]

    def rollout(self, place: int, group: Group, graded: Graded) -> Rollout:
        """The completions of a problem with their rewards and advantages."""
        rewards = [reward(one, completion, self.stage) for one, completion in zip(graded.grades, group.completions, strict=True)]
        penalties = overlong_penalties(group, self.stage)
        worth = torch.tensor(rewards, dtype=torch.float64)
        if penalties:
            worth = worth + torch.tensor(penalties, dtype=torch.float64)
        later = self.stage.compares_later
        advantages = (worth if later else group_advantages(worth, self.stage.advantage, self.stage.ddof)).tolist()
        return Rollout(self.problems[place], group, graded.texts, graded.grades, tuple(rewards), tuple(advantages), penalties)

    def teaches(self, rollout: Rollout) -> bool:
        """Whether a group is trained on: with `refill` or `drop_equal`, one whose rewards are all equal is not."""
        sifted = self.stage.refill or self.stage.drop_equal
        return not sifted or has_signal(torch.tensor(rollout.rewards))

    def texts(self, group: Group) -> tuple[str, ...]:
        """The completions of a group as text."""
        return tuple(str(self.tokenizer.decode(list(one.tokens), skip_special_tokens=True)) for one in group.completions)

    def _items(self, sampled: Sequence[Sampled], texts: Sequence[Sequence[str]] | None = None) -> list[tuple[str, Problem]]:
        """Every completion as graders take it; `texts` are those of the completions where they are known."""
        problems, groups = [self.problems[place] for place, _ in sampled], [group for _, group in sampled]
        if texts is None:
            return pair_with_problems(problems, groups, self.tokenizer)
        return [
            (text, problem.with_tokens(len(completion.tokens)))
            for problem, group, known in zip(problems, groups, texts, strict=True)
            for text, completion in zip(known, group.completions, strict=True)
        ]


def _in_one_turn(group: Group) -> bool:
    return all(len(one.last_turn) == len(one.tokens) for one in group.completions)


def _firsts(counts: Sequence[int]) -> list[int]:
    """Where each part begins that has so many entries: [2, 3, 1] -> [0, 2, 5]."""
    return [0, *accumulate(counts)][: len(counts)]
