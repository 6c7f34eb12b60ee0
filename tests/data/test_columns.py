"""Columns remember what was read of them, so that a reader that forgets one is told of."""

from typing import Any

import pytest

from tulu.config.stages import RowKind
from tulu.data.columns import Columns
from tulu.data.formats import parse_conversation, parse_problem
from tulu.data.preferences import parse_pair
from tulu.data.sources import Row

U, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
B = {"role": "assistant", "content": "B"}


def test_only_what_is_taken_counts_as_read() -> None:
    columns = Columns({"prompt": "p", "system": "s", "answer": "a", "tools": None, "history": [], "label": 0, "mine": 1})
    assert "tools" not in columns
    assert "prompt" in columns
    assert columns.get("tools") is None
    assert columns.unread("sft", []) == ["prompt", "system", "answer", "label"]
    assert columns["prompt"] == columns.get("prompt") == "p"
    assert columns.unread("sft", []) == ["system", "answer", "label"]
    # What the conversation says in another column's words is not left out.
    assert columns.unread("sft", ["the a", "s"]) == ["label"]
    # A problem keeps its row, and its verifiers read the answer there.
    assert columns.unread("rlvr", []) == ["system"]
    columns.forget("prompt", "history")
    assert "prompt" in columns.unread("sft", [])


@pytest.mark.parametrize(
    ("kind", "columns", "unread"),
    [
        ("sft", {"messages": [U, A], "source": "web", "id": 7, "score": 0.5}, []),
        ("sft", {"messages": [U, A], "prompt": "Q", "prompt_id": "x"}, []),
        ("sft", {"messages": [U, A], "conversations": [{"from": "human", "value": "Q"}]}, []),
        ("sft", {"messages": [U, A], "system": "S", "tools": "[]"}, []),
        ("sft", {"messages": [{"role": "system", "content": "T"}, U, A], "system": "S"}, ["system"]),
        ("sft", {"messages": [U, A], "prompt": "R"}, ["prompt"]),
        ("sft", {"messages": [U, A], "history": [["Q", "X"]], "input": "in"}, ["input", "history"]),
        ("sft", {"prompt": "Q", "completion": "A", "input": "in"}, ["input"]),
        ("sft", {"prompt": "Q", "completion": "A", "label": 3}, ["label"]),
        ("sft", {"question": "Q", "answer": "A", "context": "in", "thinking": "hm"}, ["context", "thinking"]),
        ("sft", {"instruction": "I", "input": "in", "context": "on", "output": "A"}, ["context"]),
        (
            "sft",
            {"messages": [U, A], "reasoning": "hm", "reasoning_content": "A", "available_tools": [{"name": "f"}]},
            ["available_tools", "reasoning"],
        ),
        ("sft", {"messages": [U, A], "conversation": [U, B], "documents": [{"title": "T"}]}, ["conversation", "documents"]),
        ("sft", {"messages": [U, A], "tools": [{"name": "f"}], "functions": [{"name": "g"}]}, ["functions"]),
        ("pairs", {"chosen": [U, A], "rejected": [U, B], "prompt": "Q", "messages": [U, A]}, []),
        ("pairs", {"chosen": [U, A], "rejected": [U, B], "prompt": "R"}, ["prompt"]),
        ("pairs", {"chosen": [U, A], "rejected": [U, B], "prompt": 3}, ["prompt"]),
        ("pairs", {"chosen": [U, A], "rejected": [U, B], "completion": "C"}, ["completion"]),
        ("rlvr", {"prompt": "Q", "answer": "7", "solution": "x", "kwargs": [{}]}, []),
        ("rlvr", {"prompt": "Q", "answer": "7", "input": "in"}, ["input"]),
    ],
)
def test_known_columns_that_are_not_read_are_named(kind: RowKind, columns: dict[str, Any], unread: list[str]) -> None:
    recorded = Columns(columns)
    row = Row("a.jsonl:1", recorded)
    if kind == "pairs":
        pair = parse_pair(row)
        messages = [*pair.chosen, *pair.rejected]
    else:
        messages = parse_conversation(row).messages if kind == "sft" else parse_problem(row, "math").messages
    assert recorded.unread(kind, [message["content"] for message in messages]) == unread
