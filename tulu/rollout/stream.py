"""Rollouts for one step: drawn in a resumable order, sampled, judged, and refilled until every group teaches something."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from tulu.advantages import group_advantages, has_signal
from tulu.data import order
from tulu.errors import TuluError
from tulu.grading import Grader
from tulu.parallel import Parallel
from tulu.recipe import Rlvr
from tulu.rollout.engine import RolloutEngine
from tulu.types import Completion, Group, Problem, SamplingParams, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("tulu")

MOST_ROUNDS = 8
"""Rounds of refilling before a step makes do with the groups it has."""
MOST_FAULTS = 0.5
"""Share of a step's verdicts that may be faults of ours before the run stops."""


@dataclass(frozen=True)
class Rollout:
    """A problem, its completions, what the verifier said of each, and what each is worth."""

    problem: Problem
    group: Group
    texts: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    rewards: tuple[float, ...]
    """NaN where the verifier could not judge."""
    advantages: tuple[float, ...]

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
    grader: Grader
    tokenizer: "PreTrainedTokenizerBase"
    problems: Sequence[Problem]
    stage: Rlvr
    parallel: Parallel

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
        verdicts = self.grader.grade([(text, each) for each, row in zip(problems, texts, strict=True) for text in row])
        check_faults(verdicts)
        rollouts = []
        for number, (problem, group, row) in enumerate(zip(problems, groups, texts, strict=True)):
            own = tuple(verdicts[number * stage.samples : (number + 1) * stage.samples])
            rewards = [reward(verdict, each, stage) for verdict, each in zip(own, group.completions, strict=True)]
            advantages = group_advantages(torch.tensor(rewards, dtype=torch.float64), stage.advantage, stage.ddof).tolist()
            rollouts.append(Rollout(problem, group, tuple(row), own, tuple(rewards), tuple(advantages)))
        return rollouts

    def _text(self, completion: Completion) -> str:
        return str(self.tokenizer.decode(list(completion.tokens), skip_special_tokens=True))


def reward(verdict: Verdict, completion: Completion, stage: Rlvr) -> float:
    """The verifier's score at the recipe's scale; NaN where it failed; the recipe's own where the completion did not stop."""
    if completion.finish == "length" and stage.no_stop_score is not None:
        return stage.no_stop_score
    return float("nan") if verdict.score is None else stage.reward_scale * verdict.score


def check_faults(verdicts: Sequence[Verdict]) -> None:
    """Stop where the verifier, not the policy, fails. Raises TuluError."""
    faults = Counter(f"{verdict.status}: {verdict.detail}" for verdict in verdicts if verdict.score is None)
    if faults.total() > MOST_FAULTS * len(verdicts):
        worst, count = faults.most_common(1)[0]
        raise TuluError(
            f"the verifier failed on {faults.total()} of {len(verdicts)} completions, {count} times with {worst}\n"
            "Nothing was trained on them. Check the verifier and its data, then run the same command again."
        )
