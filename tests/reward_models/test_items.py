"""Items: what a row of preferences becomes for a benchmark (tests/data/test_preferences.py holds every shape of a row)."""

from typing import Any

import pytest

from tulu.data.sources import Row
from tulu.errors import DataError
from tulu.reward_models.benchmarks import read_item
from tulu.reward_models.items import Item

USER = {"role": "user", "content": "Q"}


def item_of(columns: dict[str, Any]) -> Item:
    return read_item(Row("f:1", columns), "all")


def test_id_and_subset_of_the_row_win() -> None:
    item = item_of({"id": 7, "subset": "shp", "prompt": "Q", "chosen": "a", "rejected": "b"})
    assert (item.id, item.subset, item.where) == ("7", "shp", "f:1")


def test_lists_are_n_way_in_order() -> None:
    item = item_of({"prompt": "Q", "chosen": ["a", "b"], "rejected": ["c", "d", "e"]})
    assert [answer[0]["content"] for answer in item.answers] == ["a", "b", "c", "d", "e"]
    assert item.scored([1, 2, 3, 4, 5]).rejected == (3, 4, 5)


def test_conversations_that_part_early_keep_their_own_turns() -> None:
    item = item_of(
        {
            "chosen": "\n\nHuman: Q\n\nAssistant: x\n\nHuman: why?\n\nAssistant: good",
            "rejected": "\n\nHuman: Q\n\nAssistant: y\n\nHuman: why?\n\nAssistant: bad",
        }
    )
    assert item.prompt == (USER,)
    assert [len(answer) for answer in item.answers] == [3, 3]


def test_answers_that_are_equal_or_empty_are_items_all_the_same() -> None:
    for chosen, rejected in (("a", "a"), ("", "b")):
        assert item_of({"prompt": "Q", "chosen": chosen, "rejected": rejected, "margin": "much"}).prompt == (USER,)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"prompt": "Q", "chosen": [], "rejected": "a"},
            "f:1: chosen is empty; a row needs at least one chosen and one rejected",
        ),
        ({"chosen": [USER], "rejected": [USER]}, "f:1: chosen: the last message is from 'user'; it must be the assistant's"),
        ({"input": "Q", "output_1": "a", "output_2": "b", "label": 0}, "f:1: label: 0; it is 1 or 2"),
        ({"prompt": "Q", "chosen": "half a pair: \ud83d", "rejected": "a"}, "f:1: its text is not valid Unicode"),
    ],
)
def test_what_training_would_drop_and_count_is_an_error_here(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        item_of(columns)
