"""Messages as rows spell them: lists of {role, content}, JSON text of such a list, transcripts of Human: and Assistant: turns."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tulu.errors import DataError
from tulu.types import Message

_TURN = re.compile(r"\n\n(Human|Assistant):")
"""What opens a turn of a transcript, as in "\\n\\nHuman: Hi\\n\\nAssistant: Hello"."""
_TRANSCRIPT = re.compile(r"\s*\n\n(?:Human|Assistant):")
_ROLES = {"human": "user", "user": "user", "prompter": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
"""Roles of the usual data sets, such as ShareGPT's human and gpt, in the words of chat templates; others stay as they are."""
_ROLE_AND_CONTENT = ("role", "content", "from", "value")
"""The keys under which a message holds its role and its text; {from, value} is ShareGPT's spelling."""


class Unusable(Exception):
    """A row has a known form and still cannot be used; its text is the reason under which such rows are counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail or reason
        """What is wrong with this very row, and the cure, where the reason does not say it."""


def valid_text(text: str) -> str:
    """The text itself; Unusable where it holds half a surrogate pair, which JSON can spell and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unusable("its text is not valid Unicode") from None
    return text


def read_messages(value: Any, place: str) -> list[Message]:
    """A list of messages as chat templates take them; text is read as JSON, because CSV cells hold nothing else.

    `place` names row and column in errors. Keys beside role and content, such as tool_calls, are kept. DataError where the
    value is no list of messages.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise DataError(f"{place}: holds text, not a list of messages; write [{{role, content}}, ...]") from None
    if not isinstance(value, Sequence):
        raise DataError(f"{place}: holds a {type(value).__name__}, not a list of messages; write [{{role, content}}, ...]")
    return [_read_message(entry, f"{place}: message {number}") for number, entry in enumerate(value, 1)]


def _read_message(entry: Any, place: str) -> Message:
    if not isinstance(entry, Mapping):
        raise DataError(f"{place} holds a {type(entry).__name__}; write {{role, content}}")
    role, content = entry.get("role", entry.get("from")), entry.get("content", entry.get("value"))
    # Content in parts, as in [{"type": "text", "text": "Hi"}].
    if isinstance(content, list) and all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
        content = "".join(part["text"] for part in content)
    extra = {name: value for name, value in entry.items() if value is not None and name not in _ROLE_AND_CONTENT}
    # A call of a tool needs no content; a message that holds nothing but its role is a slip.
    has_content = "content" in entry or "value" in entry or extra
    if not isinstance(role, str) or not isinstance(content, str | None) or not has_content:
        raise DataError(f"{place} has {', '.join(map(str, entry))}; write {{role, content}}, both as text")
    message: dict[str, Any] = {**extra, "role": _ROLES.get(role.lower(), role), "content": valid_text(content or "")}
    return message  # type: ignore[return-value]  # templates read further keys, such as functions


def read_prompt(value: Any, place: str) -> list[Message]:
    """The messages of a prompt: text is one user message, or a transcript whose open last turn is left to the completion."""
    if not isinstance(value, str):
        return read_messages(value, place)
    text = valid_text(value)
    if not is_transcript(text):
        return [{"role": "user", "content": text}]
    turns = read_transcript(text)
    return turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns


def is_transcript(text: str) -> bool:
    """Whether a text begins with a turn of Human: or Assistant: behind an empty line."""
    return _TRANSCRIPT.match(text) is not None


def read_transcript(text: str) -> list[Message]:
    """The turns of an Anthropic HH transcript (anthropics/hh-rlhf @ 354e5c3), outer spaces removed."""
    parts = _TURN.split(text)[1:]
    return [
        {"role": "user" if speaker == "Human" else "assistant", "content": content.strip()}
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]
