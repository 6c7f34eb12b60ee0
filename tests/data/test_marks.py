"""Marks go into contents and come out again, and say which parts a text has lost."""

import json
from typing import Any

import pytest

from tulu.data import marks
from tulu.data.marks import ANSWER, BEGIN, CALL, END, THOUGHT, add_marks, parts_left_out, read_marks
from tulu.types import Message


def message(role: str, content: str, **more: Any) -> Message:
    return {"role": role, "content": content, **more}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("role", "content", "expected"),
    [
        ("user", "hi", {BEGIN: 0, END: 2}),
        ("user", " hi\n", {BEGIN: 1, END: 3}),
        ("user", " \n", {}),
        ("user", "", {}),
        # The marks stand inside the tags, which a template may look for at the very beginning.
        ("assistant", "<think>\nwhy\n</think>\n\nso", {BEGIN: 8, ANSWER: 22, END: 24}),
        ("assistant", "why</think>so", {BEGIN: 0, ANSWER: 11, END: 13}),
        # Thoughts that are empty stay empty.
        ("assistant", "<think>\n\n</think>\n\nso", {ANSWER: 19, END: 21}),
        ("assistant", "<think>\nwhy\n</think>", {BEGIN: 8}),
        ("assistant", "<think>why", {BEGIN: 7, END: 10}),
        ("user", "<think>why</think>so", {BEGIN: 0, END: 20}),
    ],
)
def test_marks_stand_at_the_ends_of_parts(role: str, content: str, expected: dict[int, int]) -> None:
    marked, kinds = add_marks([message(role, content)], everywhere=True)
    text, places = read_marks(marked[0]["content"])
    assert text == content
    assert places == {(0, kind): place for kind, place in expected.items()}
    assert kinds == set(places)


def test_fields_and_calls_are_marked_without_touching_the_row() -> None:
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    chat = [message("assistant", "", tool_calls=[call, {"name": "g"}, "odd"], reasoning_content=" why")]
    [marked], kinds = add_marks(chat, everywhere=True)
    assert kinds == {(0, CALL), (0, THOUGHT)}
    assert marked["tool_calls"][0]["function"]["name"].startswith("f")
    assert json.loads(read_marks(json.dumps(marked, ensure_ascii=False))[0]) == chat[0]
    assert call == {"function": {"name": "f", "arguments": {"a": 1}}}
    assert add_marks(chat, everywhere=False) == ([chat[0]], set())


def test_what_is_missing_is_a_message_or_its_thoughts() -> None:
    chat = [message("user", "q"), message("assistant", "<think>w</think>a"), message("assistant", "b")]
    _, kinds = add_marks(chat, everywhere=True)
    everything = dict.fromkeys(kinds, 0)
    assert parts_left_out(chat, kinds, everything) == (set(), set())
    without = {mark: 0 for mark in kinds if mark not in {(1, BEGIN), (2, BEGIN), (2, END)}}
    assert parts_left_out(chat, kinds, without) == ({2}, {1})


def test_no_marks_where_the_text_has_such_characters_or_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = [message("user", "\U000f0001")]
    assert add_marks(chat, everywhere=True) == (chat, set())
    monkeypatch.setattr(marks, "_MOST", 2)
    many = [message("user", "a")] * 3
    assert add_marks(many, everywhere=True) == (many, set())
