"""The Ties formula, branch by branch, with numbers worked on paper."""

import math

import pytest

from tulu.errors import DataError
from tulu.reward_models.ties import TiesAnswer, ties_score, ties_terms

ONE = (TiesAnswer("ref:a", [2.0], [0.5]), TiesAnswer("tied:a", [3.0, 2.5], [1.0]))
TWO = (*ONE, TiesAnswer("ref:b", [1.0], [1.5]), TiesAnswer("tied:b", [2.0, 1.0], [0.5]))
NAN = math.nan


@pytest.mark.parametrize(
    ("answers", "score"),
    [
        (ONE, 1.009640),
        (TWO, 0.650294),
        ((TiesAnswer("ref:a", [2.0], [0.5]), TiesAnswer("tied:a", [3.0, 3.0], [1.0])), 1.01),
        ((TiesAnswer("ref:a", [0.0], [1.0]), TiesAnswer("tied:a", [0.0, 0.0], [1.0])), -0.01),
        ((TiesAnswer("ref:a", [1.0], [0.0]), TiesAnswer("tied:a", [2.0, 1.0], [0.0])), 0.60),
        # spread 0 and gap 0: 0/0 is worth 0, and nothing is strictly above.
        ((TiesAnswer("ref:a", [1.0], [1.0]), TiesAnswer("tied:a", [1.0, 1.0], [1.0])), 0.0),
        # a missing score makes its own row and the common terms false, and leaves the other row alone.
        ((TiesAnswer("ref:a", [NAN], [0.5]), TiesAnswer("tied:a", [3.0, 2.5], [1.0])), 0.30 + 0.20),
        ((TiesAnswer("ref:a", [2.0], [0.5]), TiesAnswer("tied:a", [3.0, 2.5], [NAN])), 0.30),
        # c has no tied row: it counts for ref accuracy only.
        ((*ONE, TiesAnswer("ref:c", [0.0], [1.0])), 1.009640 - 0.15),
        ((*ONE, TiesAnswer("tied:c", [0.0, 0.0], [1.0])), 1.009640 - 0.15),
    ],
)
def test_ties_score(answers: tuple[TiesAnswer, ...], score: float) -> None:
    assert ties_score(ties_terms(answers)) == pytest.approx(score, abs=5e-7)
    assert ties_score(ties_terms(answers[::-1])) == pytest.approx(score, abs=5e-7)


@pytest.mark.parametrize("answers", [ONE[:1], ONE[1:], (ONE[0], TiesAnswer("tied:b", [2.0, 1.0], [0.5])), ()])
def test_ties_without_a_common_prompt_has_no_score(answers: tuple[TiesAnswer, ...]) -> None:
    assert ties_score(ties_terms(answers)) is None


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([TiesAnswer("ref:a", [1.0], [], "f:3")], "f:3: id 'ref:a': a Ties item needs at least one chosen and one rejected"),
        ([TiesAnswer("ref:a", [], [1.0])], "at least one chosen"),
        ([TiesAnswer("tied:a", [1.0], [0.0])], "two or more chosen"),
        ([TiesAnswer("ref:a", [1.0, 2.0], [0.0])], "a ref item has one chosen score"),
        ([TiesAnswer("other:a", [1.0], [0.0])], "ref:K"),
        ([TiesAnswer("7", [1.0], [0.0])], "ref:K"),
        ([ONE[0], ONE[0]], "appears twice"),
    ],
)
def test_ties_refuses(answers: list[TiesAnswer], message: str) -> None:
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        ties_terms(answers)
