"""Every shape of a preference row ends as the same Item, and broken ones are named."""

from typing import Any

import pytest

from tulu.errors import DataError
from tulu.reward_models.items import Item, markup
from tulu.reward_models.preferences import to_item

USER = {"role": "user", "content": "Q"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


PAIR = Item("f:1", "all", (USER,), ((said("good"),),), ((said("bad"),),), "f:1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "good", "rejected": "bad"},
        {"question": "Q", "chosen": "good", "rejected": "bad"},
        {"input": "Q", "chosen": ["good"], "rejected": ["bad"]},
        {"prompt": [USER], "chosen": "good", "rejected": "bad"},
        {"prompt": [USER], "chosen": [said("good")], "rejected": [said("bad")]},
        {"prompt": "Q", "chosen": [USER, said("good")], "rejected": [USER, said("bad")]},
        {"chosen": [USER, said("good")], "rejected": [USER, said("bad")]},
        {"chosen": [[USER, said("good")]], "rejected": [[USER, said("bad")]]},
        {"chosen": "\n\nHuman: Q\n\nAssistant: good", "rejected": "\n\nHuman: Q\n\nAssistant: bad"},
        {"input": "Q", "output_1": "good", "output_2": "bad", "label": 1},
        {"input": "Q", "output_1": "bad", "output_2": "good", "label": 2},
    ],
)
def test_shapes(row: dict[str, Any]) -> None:
    assert to_item(row, "all", "f:1") == PAIR


def test_id_and_subset_of_the_row_win() -> None:
    item = to_item({"id": 7, "subset": "shp", "prompt": "Q", "chosen": "a", "rejected": "b"}, "all", "f:1")
    assert (item.id, item.subset, item.where) == ("7", "shp", "f:1")


def test_lists_are_n_way_in_order() -> None:
    item = to_item({"prompt": "Q", "chosen": ["a", "b"], "rejected": ["c", "d", "e"]}, "all", "f:1")
    assert [answer[0]["content"] for answer in item.answers] == ["a", "b", "c", "d", "e"]
    assert item.scored([1, 2, 3, 4, 5]).rejected == (3, 4, 5)


def test_conversations_that_part_early_keep_their_own_turns() -> None:
    row = {
        "chosen": "\n\nHuman: Q\n\nAssistant: x\n\nHuman: why?\n\nAssistant: good",
        "rejected": "\n\nHuman: Q\n\nAssistant: y\n\nHuman: why?\n\nAssistant: bad",
    }
    item = to_item(row, "all", "f:1")
    assert item.prompt == (USER,)
    assert [len(answer) for answer in item.answers] == [3, 3]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "Q", "chosen": "a"}, "f:1: no chosen or no rejected answer"),
        ({"prompt": "Q", "chosen": None, "rejected": "a"}, "no chosen or no rejected"),
        ({"prompt": "Q", "chosen": [], "rejected": "a"}, "at least one chosen and one rejected"),
        ({"chosen": "a", "rejected": "b"}, "f:1: chosen: a string needs a prompt column beside it"),
        ({"chosen": "\n\nHuman: Q\n\nAssistant: a\n\nHuman: b", "rejected": "b"}, "a string needs a prompt"),
        ({"chosen": [USER], "rejected": [USER]}, "last message is from 'user'"),
        ({"chosen": [{"role": "assistant"}], "rejected": [USER]}, "is not a message"),
        ({"prompt": "Q", "chosen": 3, "rejected": "a"}, "int where a string"),
        ({"input": "Q", "output_1": "a", "output_2": "b", "label": 0}, "label: 0; it is 1 or 2"),
    ],
)
def test_broken_rows_are_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_item(row, "all", "f:1")


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
