"""What judges are shown, and how what they say is read."""

import pytest

from tulu.reward_models.judge_prompts import (
    parse_choices,
    parse_rating,
    ranking_messages,
    rating_credit,
    rating_messages,
)
from tulu.types import Message

Q: Message = {"role": "user", "content": "What {is} this?"}


def say(text: str) -> tuple[Message, ...]:
    return ({"role": "assistant", "content": text},)


@pytest.mark.parametrize(
    ("reply", "count", "choice", "several"),
    [
        ("A is better. [[A]]", 2, 0, False),
        ("[[B]]", 2, 1, False),
        ("first [[B]], then [[A]]", 2, 0, True),
        ("[[C]]", 2, None, False),
        ("[[D]] wins over [[C]]", 4, 2, True),
        ("[A]", 2, None, False),
        ("[[a]]", 2, None, False),
        ("", 4, None, False),
    ],
)
def test_choices(reply: str, count: int, choice: int | None, several: bool) -> None:
    named = parse_choices(reply, count)
    assert (named[0] if named else None) == choice
    assert (len(named) > 1) is several


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ("Good. 7", 7),
        ("Rating: 10\n", 10),
        ("8/10", 10),
        ("7.5", 5),
        ("-3", 3),
        ("9.", -1),
        ("**9**", -1),
        ("0", -1),
        ("100", -1),
        ("11", -1),
        ("no idea", -1),
        ("", -1),
    ],
)
def test_ratings(reply: str, rating: float) -> None:
    assert parse_rating(reply) == rating


@pytest.mark.parametrize(
    ("ratings", "credit"),
    [
        ([9, 3], 1.0),
        ([3, 9], 0.0),
        ([5, 5], 0.5),
        ([-1, 5], 0.5),
        ([5, -1], 0.5),
        ([9, 3, 3, 3], 1.0),
        ([9, 9, 3, 3], 0.5),
        ([9, 9, 9, 3], 1 / 3),
        ([9, 9, 9, 9], 0.25),
        ([8, 9, 3, 3], 0.0),
        ([-1, 9, 3, 3], 0.0),
        ([3, -1, -1, -1], 1.0),
        ([-1, -1, -1, -1], 0.25),
    ],
)
def test_rating_credit(ratings: list[float], credit: float) -> None:
    assert rating_credit(ratings) == pytest.approx(credit)


def test_pairs_are_shown_as_a_and_b() -> None:
    system, user = ranking_messages([Q], [say("one {x}"), say("two")])
    assert "two AI assistants to the user question" in system["content"]
    assert '"[[A]]" if assistant A is better, "[[B]]" if assistant B is better.' in system["content"]
    assert user["content"] == (
        "[User Question]\nWhat {is} this?\n\n"
        "[The Start of Assistant A's Answer]\none {x}\n[The End of Assistant A's Answer]\n\n"
        "[The Start of Assistant B's Answer]\ntwo\n[The End of Assistant B's Answer]"
    )


def test_four_and_conversations() -> None:
    system, user = ranking_messages([Q, *say("hm"), Q], [say(text) for text in ("1", "2", "3", "4")])
    assert "four AI assistants to the conversations" in system["content"]
    assert '"[[D]]" if assistant D is best.' in system["content"]
    assert user["content"].count("### User:\nWhat {is} this?") == 8
    assert "<|The Start of Assistant D's Conversation with User|>" in user["content"]
    assert "### Assistant C:\n3" in user["content"]


def test_ratings_leave_form_out_of_ties() -> None:
    plain, ties = (rating_messages([Q], say("yes"), flag)[0]["content"] for flag in (False, True))
    assert "creativity" in plain
    assert "creativity" not in ties
    assert "[Query]\nWhat {is} this?\n\n[Response]\nyes" in plain
