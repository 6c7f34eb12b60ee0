"""What a row of preferences means, for every command: better and worse answers to one prompt, one of each or several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from tulu.data.columns import Columns
from tulu.data.faults import Misfit, NoForm, Unusable, valid_text
from tulu.data.formats import (
    ACCEPTED,
    history_of,
    instruction_of,
    is_empty,
    is_trained,
    misfit,
    present,
    prompt_of,
    refuse_media,
    tools_of,
    with_system,
)
from tulu.data.messages import is_transcript, read_messages, read_prompt, read_transcript
from tulu.data.sources import Row
from tulu.types import Message, Tools

_PREFERENCE_PROMPTS = ("prompt", "question", "input", "instruction", "query", "messages", "conversations", "conversation")
"""Columns that hold the prompt of a preference, the first that is there."""


@dataclass(frozen=True, slots=True)
class Preference:
    """Whole conversations that answer one prompt: the better ones, and the worse ones; at least one of each."""

    chosen: tuple[list[Message], ...]
    rejected: tuple[list[Message], ...]
    tools: Tools = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """Two whole conversations that answer the same prompt, the better one first."""

    chosen: list[Message]
    rejected: list[Message]
    margin: float = 0.0
    """How much better the first is, where the row says so."""
    tools: Tools = ()


def list_answers(value: Any) -> Sequence[Any]:
    """The answers of one side of a preference: a list of texts or of message lists holds several, all else is one."""
    if isinstance(value, list | tuple) and (not value or isinstance(value[0], str | list | tuple)):
        return value
    return [value]


def parse_preference(row: Row) -> Preference:
    """All chosen and all rejected conversations of a row; Unusable where a label says nothing or a side has no answer."""
    columns = present(row)
    refuse_media(columns)
    if "chosen" in columns and "rejected" in columns:
        names = ("chosen", "rejected")
    elif {"output_1", "output_2", "label"} <= columns.keys():
        names = _labelled(columns["label"])
    else:
        raise _one_answer(row) if isinstance(columns.get("label"), bool) else misfit(row, "pairs")
    answers = {name: list_answers(columns[name]) for name in names}
    prompt = _preference_prompt(row, columns, answers["chosen" if "chosen" in answers else names[0]])
    sides = [
        tuple(with_system(row, columns, _answered(row, columns, name, answer, prompt)) for answer in answers[name])
        for name in names
    ]
    for side, name, conversations in zip(("chosen", "rejected"), names, sides, strict=True):
        reason = f"{side} does not end in an assistant turn"
        if not conversations or not all(conversations):
            raise Unusable(reason, f"{name} is empty; a row needs at least one chosen and one rejected answer")
        for role in (messages[-1]["role"] for messages in conversations):
            if role != "assistant":
                raise Unusable(reason, f"{name}: the last message is from {role!r}; it must be the assistant's answer")
    return Preference(sides[0], sides[1], tools_of(row, columns))


def _one_answer(row: Row) -> NoForm:
    """The error for a row of KTO: one answer, and whether it was wanted."""
    cure = "join the answers to one prompt into chosen and rejected, or train sft on those whose label is true"
    problem = "one answer with a label (KTO) is no pair"
    return NoForm(problem, f"{row.id}: {problem}; {cure}")


def _labelled(label: Any) -> tuple[str, str]:
    """The columns of the better and of the worse output: a label is 1 or 2 (princeton-nlp/LLMBar @ 900616b)."""
    better = str(label).strip()
    if better not in ("1", "2"):
        raise Unusable("label is neither 1 nor 2", f"label: {label!r}; it is 1 or 2, the better output")
    return f"output_{better}", f"output_{'2' if better == '1' else '1'}"


def _needs_prompt(answer: Any) -> bool:
    """Whether an answer is text alone, which a prompt must precede."""
    return isinstance(answer, str) and not is_transcript(answer)


@dataclass(frozen=True, slots=True)
class _Prompt:
    """The column that holds a prompt, and its messages."""

    column: str
    messages: list[Message]


def _preference_prompt(row: Row, columns: Columns, answers: Sequence[Any]) -> _Prompt | None:
    """The prompt of a preference; None where the answers bring it along."""
    name = columns.first_of(_PREFERENCE_PROMPTS)
    if name is None:
        return None
    value = columns[name]
    try:
        if name in ("input", "instruction") and isinstance(value, str) and "instruction" in columns:
            text = instruction_of(row, columns)
            return _Prompt(name, [*history_of(row, columns), *read_prompt(text, f"{row.id}: {name}")])
        prompt = prompt_of(row, columns, name)
    except Misfit:
        if not all(_is_conversation(row, answer) for answer in answers):
            raise
        # The column means something else, since the answers are whole conversations.
        columns.forget(name, "instruction", "input", "context", "history")
        return None
    if name == "messages" and prompt and prompt[-1]["role"] == "assistant" and prompt[-1]["content"] in _last_texts(row, answers):
        # The column holds the demonstration, prompt and better answer.
        prompt = prompt[:-1]
    return _Prompt(name, prompt)


def _is_conversation(row: Row, answer: Any) -> bool:
    """Whether an answer brings its prompt along: a transcript, or messages that are not the assistant's alone."""
    if isinstance(answer, str):
        return is_transcript(answer)
    return any(message["role"] == "user" for message in read_messages(answer, row.id))


def _last_texts(row: Row, answers: Sequence[Any]) -> list[str]:
    """What each answer says at its end."""
    texts = []
    for answer in answers:
        messages = [] if isinstance(answer, str) else read_messages(answer, row.id)
        texts += [answer] if isinstance(answer, str) else [message["content"] for message in messages[-1:]]
    return texts


def _answered(row: Row, columns: Columns, name: str, answer: Any, prompt: _Prompt | None) -> list[Message]:
    """The prompt and one answer to it as a whole conversation."""
    if _needs_prompt(answer):
        if prompt is None:
            raise _without_prompt(row, name, "a string")
        return [*prompt.messages, {"role": "assistant", "content": valid_text(answer)}]
    is_text = isinstance(answer, str)
    messages = read_transcript(valid_text(answer)) if is_text else read_messages(answer, f"{row.id}: {name}")
    if prompt is None:
        if messages and all(message["role"] == "assistant" for message in messages):
            raise _without_prompt(row, name, "an assistant's message")
        return messages
    joined = _join(prompt.messages, messages)
    said = {message["content"].strip() for message in joined}
    if any(message["content"].strip() not in said for message in prompt.messages):
        # Another prompt than that of the whole conversation is not read.
        columns.forget(prompt.column)
    return joined


def _without_prompt(row: Row, name: str, answer: str) -> NoForm:
    cure = "needs a prompt column beside it, or must be a transcript that begins with \\n\\nHuman:"
    return NoForm("an answer without a prompt", f"{row.id}: {name}: {answer} {cure} ; accepted are {ACCEPTED['pairs']}")


def _join(prompt: list[Message], messages: list[Message]) -> list[Message]:
    """The prompt and the messages of an answer, which may repeat the prompt, or the end of it, or be a whole conversation."""
    if not prompt or not messages or messages[: len(prompt)] == prompt:
        return messages
    if messages[0]["role"] == "assistant":
        return [*prompt, *messages]
    for start in range(1, len(prompt)):
        if messages[: len(prompt) - start] == prompt[start:]:
            return [*prompt[:start], *messages]
    # Behind a prompt that ends in another role, such as a lone system message, the user speaks first.
    follows = prompt[-1]["role"] != "user" and messages[0] not in prompt
    return [*prompt, *messages] if follows else messages


def pair_rows(row: Row) -> list[Row]:
    """A row as rows of one chosen and one rejected answer each: every chosen one against every rejected one.

    Where there are several, their ids are FILE:LINE/1, FILE:LINE/2, ...: the first chosen one against each rejected one, then
    the second, and so on. Each keeps the row's other columns, its margin too.
    """
    pairs = list(product(list_answers(row.columns.get("chosen")), list_answers(row.columns.get("rejected"))))
    if len(pairs) < 2:
        return [row]
    return [
        Row(f"{row.id}/{number}", {**row.columns, "chosen": chosen, "rejected": rejected})
        for number, (chosen, rejected) in enumerate(pairs, 1)
    ]


def parse_pair(row: Row) -> Pair:
    """The pair of a row with one answer on each side (`pair_rows` makes such rows); Unusable where it teaches nothing."""
    preference = parse_preference(row)
    if len(preference.chosen) + len(preference.rejected) != 2:
        raise Misfit("answers are lists of lists", f"{row.id}: chosen or rejected: write an answer, or a list of answers")
    (chosen,), (rejected,) = preference.chosen, preference.rejected
    columns = present(row)
    try:
        margin = float(columns.get("margin", 0.0))
    except (TypeError, ValueError, OverflowError):
        raise Unusable("margin is not a number", f"margin is not a number: {columns['margin']!r:.40}") from None
    if not math.isfinite(margin):
        raise Unusable("margin is not a finite number", f"margin: {margin}; write a number, or leave it out")
    if is_empty(chosen[-1]):
        raise Unusable("the chosen answer is empty")
    if not (is_trained(chosen[-1]) and is_trained(rejected[-1])):
        raise Unusable("an answer says that it is not trained")
    if chosen == rejected:
        raise Unusable("chosen equals rejected")
    return Pair(chosen, rejected, margin, preference.tools)
