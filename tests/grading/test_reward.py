"""The reward of a completion, and what happens where verifiers fail."""

import math
from dataclasses import replace
from typing import Any

import pytest

from tulu.config.schema import Rlvr
from tulu.errors import TuluError
from tulu.grading.reward import Fault, Grades, check_faults, fault_of, overlong_penalties, overlong_penalty, reward
from tulu.types import Completion, Group, Problem, Verdict

VERDICTS = {"r": Verdict(1.0), "w": Verdict(0.0), "?": Verdict(None, "timeout", "10 s"), "!": Verdict(None, "error")}
"""Right, wrong, and two verdicts that failed."""
PROBLEM, ENDED = Problem("p", (), [1], "4", ("math",)), Completion([7], [True], [-1.0], "stop", [(0, 0)])


def rlvr(**fields: Any) -> Rlvr:
    lengths = {"max_prompt": 8, "max_tokens": 8, "max_length": 16}
    sizes = {"prompts": 4, "samples": 2, "batch": 8, "steps": 1, "reward_scale": 1.0, "learning_rate": 1e-3}
    return Rlvr.model_validate({"data": {"name": "sums:train", "count": 10}, **lengths, **sizes, **fields})


def completion(letter: str) -> Completion:
    """A completion of one token; an upper-case letter is one that its length cut off."""
    return Completion([7], [True], finish="length" if letter.isupper() else "stop")


@pytest.mark.parametrize(
    ("verdict", "letter", "fields", "expected"),
    [
        (Verdict(1.0), "r", {}, 1.0),
        (Verdict(0.5), "r", {"reward_scale": 10.0}, 5.0),
        # A right answer that did not stop gets the recipe's own score, unscaled; without one, the verifier's.
        (Verdict(1.0), "R", {"reward_scale": 10.0, "no_stop_score": -2.0}, -2.0),
        (Verdict(1.0), "R", {"reward_scale": 10.0, "no_stop_score": 0.0}, 0.0),
        (Verdict(1.0), "R", {"reward_scale": 10.0, "no_stop_score": None}, 10.0),
        (Verdict(1.0), "r", {"no_stop_score": -2.0}, 1.0),
        (Verdict(None, "timeout"), "R", {"no_stop_score": -2.0}, -2.0),
        (Verdict(None, "timeout"), "r", {"no_stop_score": -2.0}, math.nan),
    ],
)
def test_reward(verdict: Verdict, letter: str, fields: dict[str, Any], expected: float) -> None:
    assert reward(Grades(verdict), completion(letter), rlvr(**fields)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("length", "expected"), [(0, 0.0), (16, 0.0), (17, -0.25), (18, -0.5), (19, -0.75), (20, -1.0), (25, -1.0)]
)
def test_the_overlong_penalty_grows_over_the_buffer(length: int, expected: float) -> None:
    # 20 tokens at most, of which the last 4 are the buffer.
    assert overlong_penalty(length, max_tokens=20, buffer=4) == expected


def test_the_overlong_penalty_is_that_of_the_recipe() -> None:
    lengths = (1, 6, 7, 8)
    group = Group([1], tuple(Completion([7] * n, [True] * n) for n in lengths))
    assert overlong_penalties(group, rlvr()) == ()
    assert overlong_penalties(group, rlvr(overlong_buffer=4, overlong_penalty=2.0)) == (0.0, -1.0, -1.5, -2.0)


def test_a_run_goes_on_while_at_most_half_of_the_verdicts_fail() -> None:
    def faults(letters: str) -> list[Fault | None]:
        return [fault_of(PROBLEM, ENDED, Grades(VERDICTS[letter])) for letter in letters]

    check_faults(faults("rw?!"))
    with pytest.raises(
        TuluError, match=r"^the verifier math failed on 3 of 4 completions, 2 times with timeout: 10 s\n.*the verifier and"
    ):
        check_faults(faults("r??!"))
    check_faults([])


def test_who_failed_is_told_by_name() -> None:
    """The verifier of several that failed, the environment where it scores, the reward model, or that no engine ended it."""
    failed = Verdict(None, "error", "it broke")
    both = replace(PROBLEM, verifiers=("math", "ifeval"), ground_truth=["4", "{}"])
    of_both = Verdict(None, "error", "it broke", (("math", Verdict(1.0)), ("ifeval", failed)))
    played, unfinished = replace(ENDED, verdict=failed), replace(ENDED, finish="data")
    cases = [
        (both, ENDED, Grades(of_both), "the verifier ifeval"),
        (PROBLEM, played, Grades(failed), "the environment shop.py:Shop"),
        (PROBLEM, replace(played, finish="data"), Grades(failed), "the environment shop.py:Shop"),
        (PROBLEM, ENDED, Grades(Verdict(1.0), failed), "the reward model"),
        (PROBLEM, unfinished, Grades(failed), "every engine"),
    ]
    for problem, completion, grades, whom in cases:
        found = fault_of(problem, completion, grades, "shop.py:Shop")
        assert found is not None
        assert (found.whom, found.why) == (whom, "error: it broke")
    assert fault_of(PROBLEM, ENDED, Grades(Verdict(0.0))) is None
    unscored = fault_of(PROBLEM, played, Grades(failed), "shop.py:Shop")
    with pytest.raises(TuluError, match=r"the environment shop.py:Shop failed on 8 of 8 .*\n.*get_reward, then run"):
        check_faults([unscored] * 8)
