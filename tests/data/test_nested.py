"""Message trees and tasks with instances become plain rows."""

from typing import Any

import pytest

from tulu.data.faults import Unusable
from tulu.data.formats import parse_conversation
from tulu.data.nested import origin, unroll
from tulu.data.preferences import parse_pair
from tulu.data.sources import Row
from tulu.errors import DataError


def node(text: str, role: str, *replies: dict[str, Any], rank: int | None = None) -> dict[str, Any]:
    return {"text": text, "role": role, "rank": rank, "replies": list(replies)}


TREE = node(
    "q",
    "prompter",
    node("good", "assistant", node("more", "prompter", node("end", "assistant")), rank=0),
    node("bad", "assistant", rank=2),
    node("middling", "assistant", rank=1),
    node("unranked", "assistant"),
    node("also bad", "assistant", rank=2),
)
ROWS = [Row("trees.jsonl:1", {"message_tree_id": "x", "prompt": TREE})]


def test_every_leaf_is_a_conversation() -> None:
    threads = unroll(ROWS, "sft")
    assert [row.id for row in threads] == [f"trees.jsonl:1/{number}" for number in range(1, 6)]
    assert threads[0].columns["messages"] == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "good"},
        {"role": "user", "content": "more"},
        {"role": "assistant", "content": "end"},
    ]
    assert [row.columns["messages"][-1]["content"] for row in threads] == ["end", "bad", "middling", "unranked", "also bad"]


def test_ranked_siblings_are_pairs_and_ties_are_not() -> None:
    pairs = [(row.columns["chosen"][-1]["content"], row.columns["rejected"][-1]["content"]) for row in unroll(ROWS, "pairs")]
    assert pairs == [("good", "middling"), ("good", "bad"), ("good", "also bad"), ("middling", "bad"), ("middling", "also bad")]
    assert all(row.columns["chosen"][:-1] == [{"role": "user", "content": "q"}] for row in unroll(ROWS, "pairs"))


def test_instances_become_rows() -> None:
    rows = [
        Row("seed.jsonl:1", {"instruction": "do", "instances": [{"input": "a", "output": "b"}, {"input": "", "output": "c"}]})
    ]
    assert [dict(row.columns) for row in unroll(rows, "sft")] == [
        {"instruction": "do", "input": "a", "output": "b"},
        {"instruction": "do", "input": "", "output": "c"},
    ]


def test_odd_instances_and_ranks_are_rows_that_no_reader_takes() -> None:
    good = Row("seed.jsonl:1", {"instruction": "do", "instances": [{"input": "a", "output": "b"}]})
    spoiled: list[dict[str, Any]] = [{}, {"instances": "x"}, {"instances": ["x"]}, {"instances": []}, {"instances": None}]
    for broken in spoiled:
        rows = unroll([good, Row("seed.jsonl:2", {"instruction": "do", **broken})], "sft")
        assert [(row.id, bool(row.problem)) for row in rows] == [("seed.jsonl:1/1", False), ("seed.jsonl:2", True)]
    ranked = node("q", "prompter", node("a", "assistant", rank=0), node("b", "assistant") | {"rank": "best"})
    rows = unroll([*ROWS, Row("trees.jsonl:2", {"prompt": ranked})], "pairs")
    assert rows[-1].problem == "a rank in the message tree is no number"


def test_plain_rows_stay_unread() -> None:
    class Unread(list[Row]):
        def __iter__(self) -> Any:
            raise AssertionError("plain rows are read lazily")

    rows = Unread([Row("a.jsonl:1", {"messages": []})])
    assert unroll(rows, "sft") is rows


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": "text"}, "trees.jsonl:2: no message tree"),
        ({}, "no message tree"),
        ({"prompt": {"text": "x", "role": "robot"}}, "role prompter or assistant"),
        ({"prompt": node("x", "prompter") | {"replies": "none"}}, "no list of messages"),
        ({"prompt": node("x", "prompter") | {"replies": ["none"]}}, "no list of messages"),
    ],
)
def test_an_odd_row_among_nested_ones_is_one_that_no_reader_takes(columns: dict[str, Any], message: str) -> None:
    threads = unroll([*ROWS, Row("trees.jsonl:2", columns), *ROWS], "sft")
    assert len(threads) == 11
    for read in (parse_conversation, parse_pair):
        with pytest.raises(Unusable, match=message) as error:
            read(threads[5])
        assert (error.value.reason, threads[5].id) == ("it is not nested as the first row is", "trees.jsonl:2")


@pytest.mark.parametrize(
    ("row_id", "expected"),
    [
        ("a/b.jsonl:3/2", "a/b.jsonl:3"),
        ("a/b.jsonl:3#2", "a/b.jsonl:3"),
        ("a/b.jsonl:3/2#4", "a/b.jsonl:3"),
        ("org/set/train:7", "org/set/train:7"),
    ],
)
def test_origin_is_the_row_of_the_file(row_id: str, expected: str) -> None:
    assert origin(row_id) == expected


def test_a_broken_first_row_is_left_to_its_reader() -> None:
    class Broken(list[Row]):
        def __getitem__(self, index: Any) -> Any:
            raise DataError("a.jsonl:1: broken JSON")

    rows = Broken([Row("a.jsonl:1", {})])
    assert unroll(rows, "pairs") is rows
