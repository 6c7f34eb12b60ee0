"""Messages: transcripts fall into turns, prompts stop where the completion begins, and every spelling of a message is one."""

from typing import Any

import pytest

from tulu.data.messages import is_transcript, read_messages, read_prompt, read_transcript

U, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}


def test_transcripts_keep_their_line_breaks() -> None:
    turns = read_transcript("\n\nHuman: a\n\nb\n\nAssistant: Human beings: yes\n\nHuman:\n\nAssistant: end ")
    assert [(turn["role"], turn["content"]) for turn in turns] == [
        ("user", "a\n\nb"),
        ("assistant", "Human beings: yes"),
        ("user", ""),
        ("assistant", "end"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n\nHuman: Q", True),
        ("\n\n\nHuman: Q", True),
        ("\n\nAssistant: A", True),
        ("Human: Q", False),
        ("\nHuman: Q", False),
        ("Q\n\nHuman: R", False),
    ],
)
def test_a_transcript_begins_with_an_empty_line_and_a_turn(text: str, expected: bool) -> None:
    assert is_transcript(text) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Q", [U]),
        ([U], [U]),
        ("\n\nHuman: Q", [U]),
        # The open turn is the completion's.
        ("\n\nHuman: Q\n\nAssistant:", [U]),
        ("\n\nHuman: Q\n\nAssistant: A\n\nHuman: Q\n\nAssistant: ", [U, A, U]),
        ("\n\nHuman: Q\n\nAssistant: A", [U, A]),
    ],
)
def test_prompts(value: Any, expected: list[dict[str, str]]) -> None:
    assert read_prompt(value, "rows.jsonl:1: prompt") == expected


@pytest.mark.parametrize(
    "entry",
    [
        {"from": "human", "value": "Q"},
        {"role": "User", "content": "Q", "name": None},
        {"role": "prompter", "content": [{"type": "text", "text": "Q"}]},
    ],
)
def test_spellings_of_a_message(entry: dict[str, Any]) -> None:
    assert read_messages([entry], "rows.jsonl:1: messages") == [U]
