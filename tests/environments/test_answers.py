"""What a class of the user's gives back is a plain value in the process that trains, or is told in words."""

import pickle
from decimal import Decimal
from enum import StrEnum
from typing import Any

import numpy as np
import pytest
import torch

from tulu.environments.answers import LONGEST_TEXT, as_reward, as_text, told


class Colour(StrEnum):
    """A text with a type of its own."""

    RED = "r"


class Odd:
    """Its text is a text with a type of its own."""

    def __str__(self) -> str:
        return Colour.RED


class Mute(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Colour.RED, "r"),
        (Odd(), "r"),
        (np.str_("n"), "n"),
        (None, "null"),
        ({1: [2.5, True]}, '{"1": [2.5, true]}'),
        (b"b", "b'b'"),
        (np.arange(3), "[0 1 2]"),
        (torch.tensor([1]), "tensor([1])"),
        ("a\ud800", "a\ud800"),
    ],
)
def test_results_are_plain_texts(value: Any, text: str) -> None:
    made = as_text(value)
    assert (type(made), made) == (str, text)
    assert b"Colour" not in pickle.dumps(made), "nothing of the user's is needed to read it"


def test_a_text_that_no_episode_has_room_for_is_cut() -> None:
    assert len(as_text("x" * (LONGEST_TEXT + 1))) == LONGEST_TEXT


@pytest.mark.parametrize("value", [1, 1.0, True, np.float32(1), np.array([1.0])[0], torch.tensor(1.0), Decimal(1)])
def test_rewards_are_numbers(value: Any) -> None:
    assert as_reward(value) == 1.0


def test_no_reward_is_no_score() -> None:
    assert as_reward(None) is None
    assert as_reward(-3) == -3.0


@pytest.mark.parametrize(
    "value", ["1.0", b"1", float("nan"), float("inf"), 1e10, -1e300, 10**400, 1j, [1.0], {"reward": 1}, np.array([0.5, 1.0])]
)
def test_what_is_no_number_or_ruins_sums_is_refused_with_its_value(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^get_reward returned .{1,60}; return a finite number of at most 1e\+09, or None"):
        as_reward(value)


def test_an_exception_without_words_is_told_by_its_kind() -> None:
    assert [told(fault) for fault in (KeyError("x"), KeyboardInterrupt(), Mute())] == [
        "KeyError: 'x'",
        "KeyboardInterrupt",
        "Mute",
    ]
