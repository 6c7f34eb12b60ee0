"""From the verdicts and the reward model's score of a completion to the one number that it is trained towards."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tulu.config.schema import RewardModelSignal, Rlvr
from tulu.errors import TuluError
from tulu.types import Completion, Group, Problem, Verdict
from tulu.verifiers.reward_model import NAME as REWARD_MODEL

MAX_FAULTS = 0.5
"""Share of a step's completions whose grading may fail through no fault of theirs before the run stops."""
ENVIRONMENT = "env"
"""What an environment that scores is called among the verifiers."""


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


@dataclass(frozen=True)
class Fault:
    """Why a completion has no score through no fault of its own."""

    whom: str
    """Who failed, such as "the verifier math"."""
    why: str
    cure: str


def by_grader(problem: Problem, completion: Completion, grades: Grades) -> list[tuple[str, Verdict]]:
    """What each grader of a completion said, by name; nothing where no engine ended the completion.

    An environment that scores, or failed, speaks for the whole episode. Of several verifiers each speaks for itself.
    """
    if completion.verdict is not None:
        return [(ENVIRONMENT, completion.verdict)]
    if completion.finish == "data":
        return []
    verdict, preference = grades.verdict, grades.preference
    said = [] if preference is None else [(REWARD_MODEL, preference)]
    names = [name for name in problem.verifiers if name.lower() != REWARD_MODEL]
    if verdict is None or not names:
        return said
    return [*(verdict.parts or ([(names[0], verdict)] if len(names) == 1 else [])), *said]


def fault_of(problem: Problem, completion: Completion, grades: Grades, environment: str = "") -> Fault | None:
    """Who failed on a completion and why; None where it has a score. `environment` is where the environment's class stands."""
    if (verdict := grades.fault) is None:
        return None
    failed = [name for name, part in by_grader(problem, completion, grades) if part.score is None]
    if not failed and completion.finish == "data":
        whom, cure = "every engine", "Check the engines and rlvr.rollout_seconds"
    elif failed == [ENVIRONMENT]:
        whom, cure = f"the environment {environment}".rstrip(), "Check the environment: its tools, reset and get_reward"
    elif failed == [REWARD_MODEL]:
        whom, cure = "the reward model", "Check the reward model and how long its inputs may be"
    else:
        names = " and ".join(dict.fromkeys(failed)) or "+".join(problem.verifiers)
        whom, cure = f"the verifier {names}", "Check the verifier and its data"
    return Fault(whom, f"{verdict.status}: {verdict.detail}", cure)


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


def check_faults(latest: Sequence[Fault | None]) -> None:
    """Stop where what grades fails rather than the policy; None stands for a completion with a score. Raises TuluError."""
    faults = [fault for fault in latest if fault is not None]
    if len(faults) > MAX_FAULTS * len(latest):
        told, cure = commonest(latest)
        raise TuluError(f"{told}\nNothing was trained on them. {cure}, then run the same command again.")


def commonest(latest: Sequence[Fault | None]) -> tuple[str, str]:
    """Who failed most on these completions, on how many and what it mostly said, and what to do about it."""
    faults = [fault for fault in latest if fault is not None]
    whom, count = Counter(fault.whom for fault in faults).most_common(1)[0]
    of_whom = [fault for fault in faults if fault.whom == whom]
    why, times = Counter(fault.why for fault in of_whom).most_common(1)[0]
    beside = "" if count == len(faults) else f" ({len(faults)} have no score)"
    return f"{whom} failed on {count} of {len(latest)} completions{beside}, {times} times with {why}", of_whom[0].cure
