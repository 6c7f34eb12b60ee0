"""Rows of preference sets, in the shapes people keep them, as Items.

Shapes: RewardBench (prompt, chosen and rejected strings), RewardBench 2 (lists of strings), prior sets (prompt messages, answer
strings), messages on either side, Anthropic HH transcripts, LLMBar (input, output_1, output_2, label).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tulu.errors import DataError
from tulu.reward_models.items import Answer, Item
from tulu.types import Message

_PROMPTS = ("prompt", "question", "input", "instruction")
_TURN = re.compile(r"\n\n(Human|Assistant):")
_SHAPES = "chosen and rejected, each a string (with a prompt), a list of messages, or a list of these"


def to_item(row: Mapping[str, Any], subset: str, where: str) -> Item:
    """One row as an Item; `subset` is used where the row names none. DataError names the key that is wrong."""
    name = str(row["subset"]) if row.get("subset") is not None else subset
    item_id = where if row.get("id") is None else str(row["id"])
    if "output_1" in row and "label" in row:
        row = _llmbar(row, where)
    if row.get("chosen") is None or row.get("rejected") is None:
        raise DataError(f"{where}: no chosen or no rejected answer; a row has {_SHAPES}; this one has {', '.join(row)}")
    prompt = _prompt(row, where)
    chosen = [_conversation(answer, prompt, where, "chosen") for answer in _answers(row["chosen"])]
    rejected = [_conversation(answer, prompt, where, "rejected") for answer in _answers(row["rejected"])]
    if not chosen or not rejected:
        raise DataError(f"{where}: needs at least one chosen and one rejected answer")
    shared = _shared([*chosen, *rejected])
    tails = [conversation[len(shared) :] for conversation in (*chosen, *rejected)]
    return Item(item_id, name, shared, tuple(tails[: len(chosen)]), tuple(tails[len(chosen) :]), where)


def _llmbar(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """princeton-nlp/LLMBar @ 900616b: label is the better output, 1 or 2."""
    if row["label"] not in (1, 2):
        raise DataError(f"{where}: label: {row['label']!r}; it is 1 or 2, the better output")
    label = row["label"]
    return {"prompt": row.get("input"), "chosen": row.get(f"output_{label}"), "rejected": row.get(f"output_{3 - label}")}


def _prompt(row: Mapping[str, Any], where: str) -> tuple[Message, ...] | None:
    """The prompt as messages; None where the answers bring it along."""
    for key in _PROMPTS:
        value = row.get(key)
        if isinstance(value, str):
            return ({"role": "user", "content": value},)
        if value is not None:
            return _messages(value, where, key)
    return None


def _answers(value: Any) -> list[Any]:
    """One answer, or several: a list of strings or a list of message lists is n-way."""
    if isinstance(value, list) and value and isinstance(value[0], str | list):
        return value
    return [] if value == [] else [value]


def _conversation(answer: Any, prompt: tuple[Message, ...] | None, where: str, key: str) -> Answer:
    """Prompt and answer as one conversation that ends with the assistant."""
    if isinstance(answer, str):
        if prompt is not None:
            return (*prompt, {"role": "assistant", "content": answer})
        return _transcript(answer, where, key)
    messages = _messages(answer, where, key)
    if messages[-1]["role"] != "assistant":
        raise DataError(f"{where}: {key}: the last message is from {messages[-1]['role']!r}; it must be the assistant's answer")
    return messages if prompt is None or messages[: len(prompt)] == prompt else (*prompt, *messages)


def _transcript(text: str, where: str, key: str) -> Answer:
    """An Anthropic HH transcript: turns opened by blank line, Human: or Assistant:."""
    pieces = _TURN.split(text)
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [
        Message(role=roles[speaker], content=content.strip()) for speaker, content in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    if not turns or pieces[0].strip() or turns[-1]["role"] != "assistant":
        raise DataError(
            f"{where}: {key}: a string needs a prompt column beside it, or must be a transcript of Human: and Assistant: turns"
        )
    return tuple(turns)


def _messages(value: Any, where: str, key: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise DataError(
            f"{where}: {key}: {type(value).__name__} where a string or a list of messages belongs; a row has {_SHAPES}"
        )
    for message in value:
        if (
            not isinstance(message, Mapping)
            or not isinstance(message.get("role"), str)
            or not isinstance(message.get("content"), str)
        ):
            raise DataError(f"{where}: {key}: {message!r:.80} is not a message; one has a role and a content, both strings")
    return tuple(Message(role=message["role"], content=message["content"]) for message in value)


def _shared(conversations: Sequence[Answer]) -> tuple[Message, ...]:
    """The messages with which all conversations begin, each keeping its last one."""
    shared: list[Message] = []
    for messages in zip(*(conversation[:-1] for conversation in conversations), strict=False):
        if any(message != messages[0] for message in messages):
            break
        shared.append(messages[0])
    return tuple(shared)
