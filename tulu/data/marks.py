"""Marks in the contents of messages: characters of no language that show where a template has put each part of them.

A template may trim a content, cut its thoughts, move it to another place or leave it out. So a conversation is rendered a second
time with a mark at each end of every part. Where the text without the marks is the text of the plain rendering, the marks did not
change what the template does, and their places in it say where each part stands.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tulu.types import Message

KINDS = range(5)
BEGIN, ANSWER, END, CALL, THOUGHT = KINDS
"""What a mark stands at: the begin of a content, the begin of the answer behind its thoughts, the end of the content, the end of
a called tool's name, the begin of thoughts that have a field of their own."""
THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""The keys under which templates look for the thoughts of a turn."""
Mark = tuple[int, int]
"""The index of a message, and one of the kinds above."""

_FIRST, _EACH = 0xF0000, 8
_MOST = (0x10FFFF - _FIRST) // _EACH
_MARK = re.compile("[\U000f0000-\U0010ffff]")
"""Private characters of Unicode's last two planes: no text needs them, and templates pass them on."""


def add_marks(chat: Sequence[Message], everywhere: bool) -> tuple[list[Message], set[Mark]]:
    """The chat with marks in it, and which those are: in every message and tool call, or in the assistant's contents alone.

    No mark is added where the conversation holds such characters itself, or is too long for them.
    """
    if len(chat) > _MOST or any(not one["content"].isascii() and _MARK.search(one["content"]) for one in chat):
        return list(chat), set()
    marked: list[Message] = []
    kinds: set[Mark] = set()
    for index, message in enumerate(chat):
        assistant = message["role"] == "assistant"
        if not (everywhere or assistant):
            marked.append(message)
            continue
        parts = _cut_thoughts(message["content"]) if assistant else _edges(message["content"])
        changed: dict[str, Any] = {
            **message,
            "content": "".join(part if isinstance(part, str) else _char(index, part) for part in parts),
        }
        kinds.update((index, part) for part in parts if isinstance(part, int))
        if assistant and everywhere:
            _mark_fields(changed, index, kinds)
        marked.append(changed)  # type: ignore[arg-type]  # the same keys as the message
    return marked, kinds


def read_marks(text: str) -> tuple[str, dict[Mark, int]]:
    """The text without its marks, and where each of them stood in it; the first place of one that stands there twice."""
    places: dict[Mark, int] = {}
    for count, found in enumerate(_MARK.finditer(text)):
        code = ord(found[0]) - _FIRST
        places.setdefault((code // _EACH, code % _EACH), found.start() - count)
    return _MARK.sub("", text), places


def parts_left_out(chat: Sequence[Message], kinds: set[Mark], places: Mapping[Mark, int]) -> tuple[set[int], set[int]]:
    """The messages of which a content or call does not stand in the text, and those of which only thoughts do not."""
    missing = [mark for mark in kinds if mark not in places]
    whole = {index for index, kind in missing if kind in (ANSWER, END, CALL)}
    whole |= {index for index, kind in missing if kind == BEGIN and (index, ANSWER) not in kinds}
    return whole, {index for index, _ in missing} - whole


def _char(index: int, kind: int) -> str:
    return chr(_FIRST + index * _EACH + kind)


def _edges(text: str) -> tuple[str | int, ...]:
    """A text with marks inside the white space around it, which templates may trim."""
    core = text.strip()
    if not core:
        return (text,)
    start = text.index(core)
    return text[:start], BEGIN, core, END, text[start + len(core) :]


def _cut_thoughts(text: str) -> tuple[str | int, ...]:
    """As `_edges`, with marks inside the tags of <think>thoughts</think>, which templates look for at the begin of a content."""
    core = text.strip()
    if "<think>" not in core and "</think>" not in core:
        return _edges(text)
    start = text.index(core)
    thought, tag, answer = core.rpartition("</think>") if "</think>" in core else (core, "", "")
    parts: list[str | int] = [text[:start]]
    opening = "<think>" if thought.startswith("<think>") else ""
    inner = thought[len(opening) :].lstrip()
    parts += [opening, thought[len(opening) : len(thought) - len(inner)]]
    parts += [BEGIN, inner, tag] if inner else [tag]
    said = answer.lstrip()
    parts.append(answer[: len(answer) - len(said)])
    if said:
        parts += [ANSWER, said, END]
    if not tag:
        parts.append(END)
    return (*parts, text[start + len(core) :])


def _mark_fields(message: dict[str, Any], index: int, kinds: set[Mark]) -> None:
    """Mark thoughts that have a field of their own, and the names of called tools."""
    for field in THOUGHT_FIELDS:
        if isinstance(value := message.get(field), str) and value.strip():
            lead = value[: len(value) - len(value.lstrip())]
            message[field] = lead + _char(index, THOUGHT) + value.lstrip()
            kinds.add((index, THOUGHT))
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return
    message["tool_calls"] = [_mark_call(call, index) for call in calls]
    if message["tool_calls"] != calls:
        kinds.add((index, CALL))


def _mark_call(call: Any, index: int) -> Any:
    if not isinstance(call, dict):
        return call
    inner = call.get("function")
    if isinstance(inner, dict):
        return {**call, "function": _mark_call(inner, index)}
    return {**call, "name": call["name"] + _char(index, CALL)} if isinstance(call.get("name"), str) else call
