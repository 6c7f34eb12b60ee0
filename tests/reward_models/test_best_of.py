"""Best of N: the choice, its expectation by enumeration, and a reward model behind it."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from tulu.reward_models.answers import AnswerScorer
from tulu.reward_models.best_of import best_of, expected_best_of, oracle_best_of
from tulu.types import Message

NAN = math.nan


@pytest.mark.parametrize(
    ("rewards", "index"), [([1, 3, 2], 1), ([2, 2, 1], 0), ([NAN, 1, NAN], 1), ([-1.0], 0), ([-math.inf, NAN], 0)]
)
def test_choice(rewards: list[float], index: int) -> None:
    assert best_of(rewards) == index


def test_nothing_to_choose() -> None:
    with pytest.raises(ValueError, match="none of 2 answers has a reward"):
        best_of([NAN, NAN])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_expectation_is_the_mean_over_all_draws(n: int) -> None:
    rewards, scores = [0.3, 0.9, 0.3, -1.0, 0.5], [1.0, 0.0, 0.5, 1.0, 1.0]
    draws = list(itertools.combinations(range(5), n))
    by_hand = sum(scores[draw[best_of([rewards[index] for index in draw])]] for draw in draws) / len(draws)
    assert expected_best_of(rewards, scores, n) == pytest.approx(by_hand)
    assert oracle_best_of(scores, n) == pytest.approx(sum(max(scores[index] for index in draw) for draw in draws) / len(draws))


def test_one_of_n_is_the_mean_and_all_of_n_the_choice() -> None:
    assert expected_best_of([3, 1, 2], [0, 1, 1], 1) == pytest.approx(2 / 3)
    assert expected_best_of([3, 1, 2], [0, 1, 1], 3) == 0
    with pytest.raises(ValueError, match="best of 4"):
        expected_best_of([3, 1, 2], [0, 1, 1], 4)


def test_a_reward_model_chooses(tiny_reward_model: Callable[..., Path]) -> None:
    scorer = AnswerScorer.load(tiny_reward_model("olmo2"))
    prompts: list[list[Message]] = [[{"role": "user", "content": "Q"}], [{"role": "user", "content": "Another"}]]
    answers = [["one", "two", "three"], ["yes"]]
    chosen = scorer.choose(prompts, answers)
    assert [len(choice.rewards) for choice in chosen] == [3, 1]
    assert [choice.index for choice in chosen] == [max(range(3), key=lambda k: chosen[0].rewards[k]), 0]
    assert not any(choice.cut for choice in chosen)
    alone = [scorer.rewards([prompts[0]], [[text]])[0][0] for text in answers[0]]
    assert chosen[0].rewards == pytest.approx(alone, abs=1e-5)
    assert AnswerScorer.load(tiny_reward_model("olmo2"), max_length=12).choose(prompts, answers)[0].cut
