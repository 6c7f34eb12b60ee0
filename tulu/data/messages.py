"""Messages as rows spell them: lists of {role, content}, JSON text of such a list, transcripts of Human: and Assistant: turns."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tulu.data.faults import Misfit, Unusable, valid_text
from tulu.data.tools import json_of, read_calls
from tulu.types import Message

_TURN = re.compile(r"\n\n(Human|Assistant):")
"""What opens a turn of a transcript, as in "\\n\\nHuman: Hi\\n\\nAssistant: Hello"."""
_TRANSCRIPT = re.compile(r"\s*\n\n(?:Human|Assistant):")
_SPELLED = {
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot"),
    "system": ("system", "developer"),
    "tool": ("tool", "observation", "tool_response", "function_response", "function"),
}
ROLES = tuple(_SPELLED)
"""The roles that chat templates know, whatever they call the turn."""
_ROLES = {spelling: role for role, spellings in _SPELLED.items() for spelling in spellings}
"""Roles of the usual data sets, such as ShareGPT's human and gpt, in the words of chat templates; others stay as they are."""
_CALLING_ROLES = ("function_call", "tool_call")
"""Roles of an assistant's message whose content is the JSON text of a call (ShareGPT, ms-swift)."""
_FLAGS = ("weight", "train", "training", "trainable", "loss")
"""Keys that say whether a message is trained: 0 or false if not (OpenAI, axolotl, ms-swift)."""
_READ = frozenset(("role", "content", "from", "value", "tool_calls", "function_call", *_FLAGS))
"""The keys of a message that are read here; {from, value} is ShareGPT's spelling. Any other key is left to the template."""
_UNFLAGGED = frozenset((*_FLAGS, "train_detail")).isdisjoint
_MEDIA = ("image", "image_url", "input_image", "audio", "audio_url", "input_audio", "video", "video_url", "file")
"""Types of parts that are no text; tables also name them as keys."""
_SPEAKING = frozenset(("functions", "function_calls", "reasoning_content", "reasoning", "thinking"))
"""Keys beside content of which templates make text."""
_MISNAMED = frozenset(("text", "message"))
"""Keys under which some rows have what belongs under content."""
MEDIA = "it holds images, sound or video, and only text is read"
"""The reason of rows with a part that is no text."""
_NO_MESSAGE = "a message is no {role, content}"
_NO_TEXT = "a part of a message is no text"


def read_messages(value: Any, place: str) -> list[Message]:
    """A list of messages as chat templates take them; text is read as JSON, because CSV cells hold nothing else.

    `place` names row and column in errors. Keys beside those that are read, such as name, are kept. Misfit where the value is
    no list of messages.
    """
    if isinstance(value, str):
        value = json_of(text := value)
        if value is text:
            raise _no_list(place, "text")
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise _no_list(place, f"a {type(value).__name__}")
    return [_read_message(entry, f"{place}: message {number}") for number, entry in enumerate(value, 1)]


def _no_list(place: str, held: str) -> Misfit:
    column = place.rpartition(": ")[2]
    text = f"{place}: holds {held}, not a list of messages; write [{{role, content}}, ...]"
    return Misfit(f"{column or 'a prompt'} holds no list of messages", text)


def _read_message(entry: Any, place: str) -> Message:
    if not isinstance(entry, Mapping):
        raise Misfit(_NO_MESSAGE, f"{place} holds a {type(entry).__name__}; write {{role, content}}")
    role, content = _either(entry, "role", "from", place), _either(entry, "content", "value", place)
    extra = {name: value for name, value in entry.items() if value is not None and name not in _READ}
    calls = [
        call for key in ("tool_calls", "function_call") if entry.get(key) for call in read_calls(entry[key], f"{place}: {key}")
    ]
    if isinstance(role, str) and role.strip().lower() in _CALLING_ROLES:
        role, content, calls = "assistant", None, read_calls(content, f"{place}: {role}")
        if not calls:
            raise Misfit("a tool call has no name", f"{place} calls nothing; write {{name, arguments}}")
    text = _join_parts(content, place) if isinstance(content, list | tuple) else content
    # A call of a tool needs no content; a message that holds nothing but its role, or its text under another name, is a slip.
    has_content = "content" in entry or "value" in entry or calls or not _SPEAKING.isdisjoint(extra)
    if content is None and not _MISNAMED.isdisjoint(extra):
        has_content = False
    if not isinstance(role, str) or not isinstance(text, str | None) or not has_content:
        raise Misfit(_NO_MESSAGE, f"{place} has {', '.join(map(str, entry))}; write {{role, content}}, both as text")
    role = _ROLES.get(role.strip().lower(), valid_text(role))
    message: dict[str, Any] = {**extra, "role": role, "content": valid_text(text or "")}
    if calls:
        message["tool_calls"] = calls
    if not _UNFLAGGED(entry) and not _is_trained(entry, place) and role == "assistant":
        message["train"] = False
    return message  # type: ignore[return-value]  # templates read further keys, such as functions


def _either(entry: Mapping[str, Any], name: str, other: str, place: str) -> Any:
    """What a message holds under one of two names; Misfit where it holds something else under each."""
    value, second = entry.get(name), entry.get(other)
    if value is not None and second is not None and value != second:
        raise Misfit(f"a message has both {name} and {other}", f"{place} has {name} and {other}, which differ; keep one")
    return second if value is None else value


def _join_parts(parts: Sequence[Any], place: str) -> str:
    """The text of content in parts, as in [{"type": "text", "text": "Hi"}]; Unusable where a part is no text."""
    texts = []
    for part in parts:
        if isinstance(part, Mapping):
            if part.get("type") in _MEDIA or any(part.get(key) is not None for key in _MEDIA):
                raise Unusable(MEDIA, f"{place} has a part that is no text; leave such rows out")
            part = part.get("text")
            if not isinstance(part, str):
                raise Misfit(
                    "a part of a message is no text", f'{place} has a part without text; write {{"type": "text", "text"}}'
                )
        elif not isinstance(part, str | None):
            raise Misfit(_NO_TEXT, f"{place} has a part that is a {type(part).__name__}; write text")
        texts.append(part or "")
    return "".join(texts)


def _is_trained(entry: Mapping[str, Any], place: str) -> bool:
    """Whether nothing in a message says that it is not trained. A loss that is no flag is a number that someone logged."""
    if entry.get("train_detail"):
        raise Unusable("a message is to be trained in part", f"{place}: train_detail is not read; split the message")
    given = {name: entry[name] for name in _FLAGS if entry.get(name) is not None}
    if not isinstance(given.get("loss", True), bool):
        del given["loss"]
    for name, value in given.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise Misfit("a message's weight is neither 0 nor 1", f"{place}: {name} is {value!r:.40}; write 0 or 1")
    return all(given.values())


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
