"""The Ties formula, branch by branch, with numbers worked on paper."""

import math

import pytest

from tulu.errors import DataError
from tulu.reward_models.items import Scored
from tulu.reward_models.ties import ties_score, ties_terms


def row(key: str, chosen: list[float], rejected: list[float], where: str = "") -> Scored:
    return Scored(key, "Ties", tuple(chosen), tuple(rejected), None, where)


ONE = (row("ref:a", [2.0], [0.5]), row("tied:a", [3.0, 2.5], [1.0]))
TWO = (*ONE, row("ref:b", [1.0], [1.5]), row("tied:b", [2.0, 1.0], [0.5]))
NAN = math.nan


@pytest.mark.parametrize(
    ("answers", "score"),
    [
        (ONE, 1.009640),
        (TWO, 0.650294),
        ((row("ref:a", [2.0], [0.5]), row("tied:a", [3.0, 3.0], [1.0])), 1.01),
        ((row("ref:a", [0.0], [1.0]), row("tied:a", [0.0, 0.0], [1.0])), -0.01),
        ((row("ref:a", [1.0], [0.0]), row("tied:a", [2.0, 1.0], [0.0])), 0.60),
        # spread 0 and gap 0: 0/0 is worth 0, and nothing is strictly above.
        ((row("ref:a", [1.0], [1.0]), row("tied:a", [1.0, 1.0], [1.0])), 0.0),
        # a missing score makes its own row and the common terms false, and leaves the other row alone.
        ((row("ref:a", [NAN], [0.5]), row("tied:a", [3.0, 2.5], [1.0])), 0.30 + 0.20),
        ((row("ref:a", [2.0], [0.5]), row("tied:a", [3.0, 2.5], [NAN])), 0.30),
        # c has no tied row: it counts for ref accuracy only.
        ((*ONE, row("ref:c", [0.0], [1.0])), 1.009640 - 0.15),
        ((*ONE, row("tied:c", [0.0, 0.0], [1.0])), 1.009640 - 0.15),
    ],
)
def test_ties_score(answers: tuple[Scored, ...], score: float) -> None:
    assert ties_score(ties_terms(answers)) == pytest.approx(score, abs=5e-7)
    assert ties_score(ties_terms(answers[::-1])) == pytest.approx(score, abs=5e-7)


@pytest.mark.parametrize("answers", [ONE[:1], ONE[1:], (ONE[0], row("tied:b", [2.0, 1.0], [0.5])), ()])
def test_ties_without_a_common_prompt_has_no_score(answers: tuple[Scored, ...]) -> None:
    assert ties_score(ties_terms(answers)) is None


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([row("ref:a", [1.0], [], "f:3")], "f:3: id 'ref:a': a Ties item needs at least one chosen and one rejected"),
        ([row("ref:a", [], [1.0])], "at least one chosen"),
        ([row("tied:a", [1.0], [0.0])], "two or more chosen"),
        ([row("ref:a", [1.0, 2.0], [0.0])], "a ref item has one chosen score"),
        ([row("other:a", [1.0], [0.0])], "ref:K"),
        ([row("7", [1.0], [0.0])], "ref:K"),
        ([ONE[0], ONE[0]], "appears twice"),
    ],
)
def test_ties_refuses(answers: list[Scored], message: str) -> None:
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        ties_terms(answers)


def test_all_odd_ties_are_told_at_once() -> None:
    odd = [row("other:a", [1.0], [0.0], "f:1"), *ONE, row("tied:b", [1.0], [0.0], "f:4")]
    with pytest.raises(DataError) as told:
        ties_terms(odd)
    lines = str(told.value).splitlines()
    assert lines[0] == "2 of 4 rows cannot be aggregated:"
    assert [line[:4] for line in lines[1:3]] == ["f:1:", "f:4:"]
