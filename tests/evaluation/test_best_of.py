"""What a reward model's picks are worth: figures worked out on paper, and by drawing every subset."""

import itertools
import math

import pytest

from tulu.evaluation.best_of import best_of_figures, expected_best_of, oracle_best_of, pick, rewards_of
from tulu.evaluation.candidates import Candidate, ScoredProblem

NAN = math.nan


def candidates(*answers: tuple[float | None, float | None]) -> ScoredProblem:
    """One problem, its answers given as (score, reward)."""
    sampled = tuple(
        Candidate("x", "stop", 1, score, "ok" if score is not None else "timeout", "", reward) for score, reward in answers
    )
    return ScoredProblem("p", [{"role": "user", "content": "?"}], None, sampled)


@pytest.mark.parametrize(
    ("rewards", "place"),
    [([0.1, 0.3, 0.2], 1), ([2.0, 2.0], 0), ([None, -5.0], 1), ([None, None], None)],
)
def test_the_pick_is_the_highest_reward(rewards: list[float | None], place: int | None) -> None:
    assert pick(rewards_of(candidates(*((1.0, reward) for reward in rewards)).answers)) == place


@pytest.mark.parametrize(
    ("rewards", "index"), [([1, 3, 2], 1), ([2, 2, 1], 0), ([NAN, 1, NAN], 1), ([-1.0], 0), ([-math.inf, NAN], 0)]
)
def test_the_pick_is_the_first_of_the_highest_rewards(rewards: list[float], index: int) -> None:
    assert pick(rewards) == index


def test_nothing_to_pick() -> None:
    assert pick([NAN, NAN]) is None


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_expectation_is_the_mean_over_all_draws(n: int) -> None:
    rewards, scores = [0.3, 0.9, 0.3, -1.0, 0.5], [1.0, 0.0, 0.5, 1.0, 1.0]
    draws = list(itertools.combinations(range(5), n))
    picks = [draw[pick([rewards[index] for index in draw]) or 0] for draw in draws]
    by_hand = sum(scores[index] for index in picks) / len(draws)
    assert expected_best_of(rewards, scores, n) == pytest.approx(by_hand)
    assert oracle_best_of(scores, n) == pytest.approx(sum(max(scores[index] for index in draw) for draw in draws) / len(draws))


def test_one_of_n_is_the_mean_and_all_of_n_the_choice() -> None:
    assert expected_best_of([3, 1, 2], [0, 1, 1], 1) == pytest.approx(2 / 3)
    assert expected_best_of([3, 1, 2], [0, 1, 1], 3) == 0
    with pytest.raises(ValueError, match="best of 4"):
        expected_best_of([3, 1, 2], [0, 1, 1], 4)


def test_figures_on_paper() -> None:
    problems = [
        candidates((1, 0.9), (0, 0.1), (0, 0.2), (0, 0.0)),  # picked right; 1 of 4; possible
        candidates((1, 0.1), (1, 0.2), (0, 0.9), (0, 0.3)),  # picked wrong; 2 of 4; possible
        candidates((0, 1.0), (0, 0.2), (0, 0.3), (0, 0.4)),  # nothing to pick
        candidates((1, None), (1, 0.5), (1, None), (1, 0.4)),  # two without a reward
    ]
    result = best_of_figures(problems, 4, seed=1)
    assert (result.problems, result.left_out, result.unrewarded) == (4, 0, 2)
    assert result.picked.value == pytest.approx(2 / 4)
    assert result.single.value == pytest.approx((1 / 4 + 2 / 4 + 0 + 1) / 4)
    assert result.oracle.value == pytest.approx(3 / 4)
    assert result.gain.value == pytest.approx(2 / 4 - 7 / 16)
    # Wilson of 2 of 4: 1/2 -+ z / (2 sqrt(4 + z^2)).
    half = 1.959964 / (2 * math.sqrt(4 + 1.959964**2))
    assert result.picked.ci95 == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    assert result.gain.ci95[0] <= result.gain.value <= result.gain.ci95[1]
    assert list(result.curve) == [1, 2, 4]
    assert result.curve[1] == pytest.approx({"picked": 7 / 16, "oracle": 7 / 16})
    assert result.curve[4] == pytest.approx({"picked": 1 / 2, "oracle": 3 / 4})


def test_the_curve_is_the_mean_over_every_draw() -> None:
    answers = [(1, 0.3), (0, 0.9), (0, 0.1), (1, 0.5), (0, 0.2), (1, 0.8)]
    result = best_of_figures([candidates(*answers)], 6, seed=1)
    assert list(result.curve) == [1, 2, 4, 6]
    for size, values in result.curve.items():
        draws = list(itertools.combinations(answers, size))
        by_hand = sum(max(draw, key=lambda answer: answer[1])[0] for draw in draws) / len(draws)
        assert values["picked"] == pytest.approx(by_hand)
        assert values["oracle"] == pytest.approx(sum(max(score for score, _ in draw) for draw in draws) / len(draws))


def test_what_cannot_be_graded_or_picked_is_left_out_and_counted() -> None:
    problems = [candidates((1, 0.2), (0, 0.1)), candidates((None, 0.2), (1, 0.1)), candidates((1, None), (0, None))]
    result = best_of_figures(problems, 2, seed=1)
    assert (result.problems, result.left_out, result.unrewarded) == (1, 2, 2)
    assert (result.picked.value, result.single.value, result.oracle.value) == (1.0, 0.5, 1.0)


def test_nothing_to_count_is_no_figure() -> None:
    result = best_of_figures([candidates((None, None), (None, None))], 2, seed=1)
    assert math.isnan(result.picked.value)


def test_same_seed_same_interval() -> None:
    problems = [candidates((n % 3 == 0, float(n)), (n % 2 == 0, 0.5)) for n in range(20)]
    assert best_of_figures(problems, 2, seed=5) == best_of_figures(problems, 2, seed=5)
