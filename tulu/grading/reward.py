"""From the verdicts and the reward model's score of a completion to the one number that it is trained towards."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tulu.config.schema import RewardModelSignal, Rlvr
from tulu.errors import TuluError
from tulu.types import Completion, Group, Verdict

MAX_FAULTS = 0.5
"""Share of a step's completions whose grading may fail through no fault of theirs before the run stops."""


@dataclass(frozen=True, slots=True)
class Grades:
    """What verifiers and reward model make of one completion; None where one of them does not grade it."""

    verdict: Verdict | None
    """The verifiers' verdict, over all of them."""
    preference: Verdict | None = None
    """The reward model's score, or why there is none."""
    weight: float = 1.0
    """What the problem's row multiplies the reward model's score by."""

    @property
    def fault(self) -> Verdict | None:
        """The verdict without a score, if there is one."""
        return next((part for part in (self.verdict, self.preference) if part is not None and part.score is None), None)


def needs_preference(verdict: Verdict | None, signal: RewardModelSignal) -> bool:
    """Whether the reward model's score enters the reward: not where the verifier failed, nor behind a gate that is closed."""
    if verdict is None:
        return True
    return verdict.score is not None and (signal.combine == "sum" or verdict.score > 0)


def reward(grades: Grades, completion: Completion, stage: Rlvr) -> float:
    """reward_scale × the verifiers' score + weight × the reward model's (open-instruct, ppo_vllm_thread_ray_gtrl.py @ 004a48d).

    It is NaN where either failed, and the recipe's `no_stop_score` where the completion did not stop and the recipe has one.
    """
    if completion.finish == "length" and stage.no_stop_score is not None:
        return stage.no_stop_score
    if grades.fault is not None:
        return float("nan")
    verifiable = 0.0 if grades.verdict is None else stage.reward_scale * (grades.verdict.score or 0.0)
    if grades.preference is None or stage.reward_model is None:
        return verifiable
    score = grades.preference.score or 0.0
    if stage.reward_model.transform == "sigmoid":
        # This is 1 / (1 + exp(-x)) in a form that does not overflow.
        score = (1 + math.tanh(score / 2)) / 2
    return verifiable + stage.reward_model.weight * grades.weight * score


def overlong_penalty(length: int, max_tokens: int, buffer: int) -> float:
    """DAPO's soft punishment of long answers, from 0 down to -1 ("DAPO", arXiv 2503.14476, eq. 13).

    It is 0 up to max_tokens - buffer tokens, falls in a straight line over the buffer, and is -1 from max_tokens on.
    """
    return -min(1.0, max(0.0, (length - (max_tokens - buffer)) / buffer))


def overlong_penalties(group: Group, stage: Rlvr) -> tuple[float, ...]:
    """What the recipe adds to the reward of each completion of a group for its length; empty where it has no penalty."""
    if stage.overlong_buffer is None:
        return ()
    lengths = [len(completion.tokens) for completion in group.completions]
    return tuple(stage.overlong_penalty * overlong_penalty(n, stage.max_tokens, stage.overlong_buffer) for n in lengths)


def check_faults(grades: Sequence[Grades]) -> None:
    """Stop where the verifier fails rather than the policy. Raises TuluError."""
    faults = Counter(f"{fault.status}: {fault.detail}" for fault in (entry.fault for entry in grades) if fault is not None)
    if faults.total() > MAX_FAULTS * len(grades):
        commonest, count = faults.most_common(1)[0]
        raise TuluError(
            f"the verifier failed on {faults.total()} of {len(grades)} completions, {count} times with {commonest}\n"
            "Nothing was trained on them. Check the verifier and its data, then run the same command again."
        )
