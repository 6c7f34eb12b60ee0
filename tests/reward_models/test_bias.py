"""Form bias by hand, and length baselines by the benchmark's own rules."""

import pytest

from tulu.reward_models.bias import Bias, baselines, biases, markup
from tulu.reward_models.items import Item
from tulu.types import Message


def item(chosen: list[str], rejected: list[str]) -> Item:
    def say(texts: list[str]) -> tuple[tuple[Message, ...], ...]:
        return tuple(({"role": "assistant", "content": text},) for text in texts)

    return Item("i", "x", ({"role": "user", "content": "Q"},), say(chosen), say(rejected))


ITEMS = [
    item(["long one"], ["short"]),  # model prefers the longer, which is right
    item(["short"], ["long one"]),  # model prefers the longer, which is wrong
    item(["same"], ["size"]),  # says nothing about length
    item(["- marked, long"], ["plain"]),  # model ties: it prefers neither
    item(["a", "bb"], ["ccc"]),  # two pairs, the longer wrong in both, preferred in one
]
SCORES = [[2.0, 1.0], [1.0, 2.0], [1.0, 0.0], [1.0, 1.0], [3.0, 1.0, 2.0]]


def test_biases_by_hand() -> None:
    scored = [one.scored(scores) for one, scores in zip(ITEMS, SCORES, strict=True)]
    assert biases(ITEMS, scored) == {"x": {"longer": Bias(3 / 5, 2 / 5, 5), "markup": Bias(0.0, 1.0, 1)}}


def test_missing_scores_have_no_bias() -> None:
    assert biases(ITEMS[:1], [ITEMS[0].scored([float("nan"), 1.0])]) == {}


def test_baselines_by_hand() -> None:
    found = {name: summary.score for name, summary in baselines(ITEMS[:4], "free").items()}
    assert found == {"longer wins": 0.5, "shorter wins": 0.25}


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("plain - text * with 1. marks inside", 0),
        ("- a\n* b\n1. c\n2) d", 4),
        ("# Title\n**bold** and **more**\n```py\nx\n```", 5),
    ],
)
def test_markup(text: str, marks: int) -> None:
    assert markup(({"role": "assistant", "content": text},)) == marks
