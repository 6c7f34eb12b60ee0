"""The order of problems with some taken out: on paper, and without any taken out the plain order of epochs."""

import pytest

from tulu.data.mixing import order
from tulu.errors import TuluError
from tulu.rollout.problem_order import ProblemOrder


def test_without_any_taken_out_it_is_the_order_of_epochs() -> None:
    problems = ProblemOrder(7, seed=3)
    expected = [place for epoch in range(4) for place in order(7, 3, epoch).tolist()]
    assert [problems.at(position) for position in range(28)] == expected
    assert [problems.at(position) for position in reversed(range(28))] == expected[::-1]


def test_what_is_taken_out_stays_for_its_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Problems 0 to 3 in file order; 1 and 2 are retired in the first epoch, 3 in the second, which has two."""
    monkeypatch.setattr("tulu.rollout.problem_order.order", lambda n, seed, epoch: list(range(n)))
    problems = ProblemOrder(4, seed=0)
    problems.retire([1, 2], drawn=3)
    assert [problems.at(position) for position in range(6)] == [0, 1, 2, 3, 0, 3]
    problems.retire([3], drawn=6)
    assert [problems.at(position) for position in range(9)] == [0, 1, 2, 3, 0, 3, 0, 0, 0]
    again = ProblemOrder(4, 0, problems.state())
    assert [again.at(position) for position in range(9)] == [0, 1, 2, 3, 0, 3, 0, 0, 0]
    assert again.retired == 3


def test_to_be_solved_again_changes_nothing() -> None:
    problems = ProblemOrder(4, seed=0)
    problems.retire([1], drawn=4)
    problems.retire([1], drawn=9)
    assert problems.state() == [[1, 0]]


def test_nothing_left() -> None:
    problems = ProblemOrder(2, seed=0)
    problems.retire([0, 1], drawn=2)
    assert sorted(problems.at(position) for position in range(2)) == [0, 1]
    with pytest.raises(TuluError, match=r"rlvr.retire_at: all 2 problems .*\nRaise it"):
        problems.at(2)
