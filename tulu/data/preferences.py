"""What a row of preferences means, for every command: better and worse answers to one prompt, one of each or several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from tulu.data.formats import ACCEPTED, instruction_of, is_empty, misfit, present, system_turn
from tulu.data.messages import Unusable, is_transcript, read_messages, read_prompt, read_transcript, valid_text
from tulu.data.sources import Row
from tulu.errors import DataError
from tulu.types import Message

_PREFERENCE_PROMPTS = ("prompt", "question", "input", "instruction")
"""Columns that hold the prompt of a preference, the first that is there."""


@dataclass(frozen=True, slots=True)
class Preference:
    """Whole conversations that answer one prompt: the better ones, and the worse ones; at least one of each."""

    chosen: tuple[list[Message], ...]
    rejected: tuple[list[Message], ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two whole conversations that answer the same prompt, the better one first."""

    chosen: list[Message]
    rejected: list[Message]
    margin: float = 0.0
    """How much better the first is, where the row says so."""


def list_answers(value: Any) -> Sequence[Any]:
    """The answers of one side of a preference: a list of texts or of message lists holds several, all else is one."""
    if isinstance(value, list | tuple) and (not value or isinstance(value[0], str | list | tuple)):
        return value
    return [value]


def parse_preference(row: Row) -> Preference:
    """All chosen and all rejected conversations of a row; Unusable where a label says nothing or a side has no answer."""
    columns = present(row)
    if "chosen" in columns and "rejected" in columns:
        names = ("chosen", "rejected")
    elif {"output_1", "output_2", "label"} <= columns.keys():
        names = _labelled(columns["label"])
    else:
        raise misfit(row, "pairs")
    answers = {name: list_answers(columns[name]) for name in names}
    prompt = _preference_prompt(row, columns, needed=any(_needs_prompt(answer) for side in answers.values() for answer in side))
    sides = [tuple(_answered(row, name, answer, prompt) for answer in answers[name]) for name in names]
    for side, name, conversations in zip(("chosen", "rejected"), names, sides, strict=True):
        reason = f"{side} does not end in an assistant turn"
        if not conversations or not all(conversations):
            raise Unusable(reason, f"{name} is empty; a row needs at least one chosen and one rejected answer")
        for role in (messages[-1]["role"] for messages in conversations):
            if role != "assistant":
                raise Unusable(reason, f"{name}: the last message is from {role!r}; it must be the assistant's answer")
    return Preference(*sides)


def _labelled(label: Any) -> tuple[str, str]:
    """The columns of the better and of the worse output: a label is 1 or 2 (princeton-nlp/LLMBar @ 900616b)."""
    better = str(label).strip()
    if better not in ("1", "2"):
        raise Unusable("label is neither 1 nor 2", f"label: {label!r}; it is 1 or 2, the better output")
    return f"output_{better}", f"output_{'2' if better == '1' else '1'}"


def _needs_prompt(answer: Any) -> bool:
    """Whether an answer is text alone, which a prompt must precede."""
    return isinstance(answer, str) and not is_transcript(answer)


def _preference_prompt(row: Row, columns: Mapping[str, Any], needed: bool) -> list[Message] | None:
    """The prompt of a preference; None where the answers bring it along."""
    name = next((name for name in _PREFERENCE_PROMPTS if name in columns), None)
    if name is None:
        return None
    value = columns[name]
    if name == "input" and isinstance(value, str) and isinstance(columns.get("instruction"), str):
        value = instruction_of(row, columns)
    try:
        prompt = read_prompt(value, f"{row.id}: {name}")
    except DataError:
        if needed:
            raise
        # The column means something else, since the answers are whole conversations.
        return None
    has_system = isinstance(value, str) and isinstance(columns.get("system"), str)
    return [*system_turn(row, columns), *prompt] if has_system else prompt


def _answered(row: Row, column: str, answer: Any, prompt: list[Message] | None) -> list[Message]:
    """The prompt and one answer to it as a whole conversation."""
    if _needs_prompt(answer):
        if prompt is None:
            raise DataError(
                f"{row.id}: {column}: a string needs a prompt column beside it, or must be a transcript that begins with "
                f"\\n\\nHuman: ; accepted are {ACCEPTED['pairs']}"
            )
        return [*prompt, {"role": "assistant", "content": valid_text(answer)}]
    is_text = isinstance(answer, str)
    messages = read_transcript(valid_text(answer)) if is_text else read_messages(answer, f"{row.id}: {column}")
    return messages if prompt is None else _join(prompt, messages)


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
    (chosen,), (rejected,) = preference.chosen, preference.rejected
    try:
        margin = float(present(row).get("margin", 0.0))
    except (TypeError, ValueError):
        raise Unusable("margin is not a number") from None
    if is_empty(chosen[-1]):
        raise Unusable("the chosen answer is empty")
    if chosen == rejected:
        raise Unusable("chosen equals rejected")
    return Pair(chosen, rejected, margin)
