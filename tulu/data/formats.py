"""What a row means, for every command: plain text, a conversation, or a problem; `data/preferences.py` reads preferences.

Columns that are None count as absent, because tables give every row the columns of all rows.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tulu.config.stages import RowKind
from tulu.data.messages import Unusable, read_messages, read_prompt, valid_text
from tulu.data.sources import Row
from tulu.errors import DataError
from tulu.types import Message
from tulu.verifiers.reward_model import NAME as REWARD_MODEL

_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
"""GSM8K's calculator annotations, as in `48/2 = <<48/2=24>>24`: they serve a model with a calculator only."""
_GSM8K_ANSWER = re.compile(r"####\s*(\S[^\n]*?)\s*$")
"""The last line of a GSM8K solution, as in `#### 1,234`."""
_END_OF_TEXT = "<|endoftext|>"
_SINGLE_TURNS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("instruction", "output"),
    ("instruction", "response"),
)
"""Columns of a conversation of one turn: (prompt, completion)."""
_PROBLEM_PROMPTS = ("messages", "prompt", "question", "problem")
"""Columns that hold the prompt of a problem, the first that is there."""

ACCEPTED: dict[RowKind, str] = {
    "text": "text",
    "sft": "messages; conversations (from, value); prompt + completion; question + answer; instruction (+ input) + output; "
    "instruction + instances; message trees (prompt with replies)",
    "pairs": "chosen + rejected, each an answer (text or messages) beside a prompt, question, input or instruction, or a whole "
    "conversation (messages, or a transcript of Human: and Assistant: turns), or a list of several of these; "
    "input + output_1 + output_2 + label; message trees with ranked replies",
    "rlvr": "messages + ground_truth (+ dataset); prompt or question or problem + ground_truth or answer; "
    "prompt + instruction_id_list + kwargs",
}


@dataclass(frozen=True, slots=True)
class ProblemText:
    """A problem before its prompt is tokenised: the messages, and a ground truth for each verifier (one alone stands bare)."""

    messages: list[Message]
    ground_truth: Any
    verifiers: tuple[str, ...]


def misfit(row: Row, kind: RowKind) -> DataError:
    """The error for a row whose columns fit no form of this kind."""
    columns = present(row)
    one_side = kind == "pairs" and ("chosen" in columns or "rejected" in columns)
    problem = "no chosen or no rejected answer" if one_side else f"no columns for {kind}"
    return DataError(f"{row.id}: {problem} among {', '.join(columns) or 'none'}; accepted are {ACCEPTED[kind]}")


def present(row: Row) -> dict[str, Any]:
    """The columns that hold something."""
    return {name: value for name, value in row.columns.items() if value is not None}


def parse_text(row: Row) -> str:
    """Plain text to train on."""
    value = row.columns.get("text")
    if value is None:
        raise misfit(row, "text")
    if not isinstance(value, str):
        raise DataError(f"{row.id}: text holds a {type(value).__name__}; write a string")
    if not value:
        raise Unusable("empty text")
    return valid_text(value)


def parse_conversation(row: Row) -> list[Message]:
    """The conversation to train on; Unusable without an assistant's turn."""
    columns = present(row)
    messages = _conversation(row, columns)
    replies = [message for message in messages if message["role"] == "assistant"]
    if not replies:
        raise Unusable("no assistant turn")
    if any(is_empty(message) for message in replies):
        raise Unusable("an assistant turn is empty")
    return messages


def is_empty(message: Message) -> bool:
    """Whether an assistant's message neither says anything nor calls a tool."""
    return not message["content"].strip() and "tool_calls" not in message


def _conversation(row: Row, columns: Mapping[str, Any]) -> list[Message]:
    for name in ("messages", "conversations"):
        if name in columns:
            return read_messages(columns[name], f"{row.id}: {name}")
    for prompt_column, completion_column in _SINGLE_TURNS:
        if prompt_column in columns and completion_column in columns:
            return _single_turn(row, columns, prompt_column, completion_column)
    raise misfit(row, "sft")


def _single_turn(row: Row, columns: Mapping[str, Any], prompt_column: str, completion_column: str) -> list[Message]:
    prompt, completion = columns[prompt_column], columns[completion_column]
    if isinstance(prompt, list) and isinstance(completion, list):
        return [
            *read_messages(prompt, f"{row.id}: {prompt_column}"),
            *read_messages(completion, f"{row.id}: {completion_column}"),
        ]
    user = instruction_of(row, columns) if prompt_column == "instruction" else _string(row, columns, prompt_column)
    reply = _string(row, columns, completion_column)
    if (prompt_column, completion_column) == ("question", "answer") and _GSM8K_ANSWER.search(reply):
        reply = _CALCULATOR.sub("", reply)
    # Self-instruct's files write the end of the text out; the template adds the real token.
    reply = reply.rstrip().removesuffix(_END_OF_TEXT) if reply.rstrip().endswith(_END_OF_TEXT) else reply
    return [*system_turn(row, columns), {"role": "user", "content": user}, {"role": "assistant", "content": reply}]


def system_turn(row: Row, columns: Mapping[str, Any]) -> list[Message]:
    """The system message of a `system` column; nothing where that is absent or empty."""
    return [{"role": "system", "content": _string(row, columns, "system")}] if columns.get("system") else []


def instruction_of(row: Row, columns: Mapping[str, Any]) -> str:
    """An instruction, and behind an empty line the input that it is about, where there is one."""
    instruction = _string(row, columns, "instruction")
    return f"{instruction}\n\n{_string(row, columns, 'input')}" if columns.get("input") else instruction


def _string(row: Row, columns: Mapping[str, Any], name: str) -> str:
    value = columns[name]
    if not isinstance(value, str):
        raise DataError(f"{row.id}: {name} holds a {type(value).__name__}, not text; write a string")
    return valid_text(value)


def parse_problem(row: Row, verifier: str | None) -> ProblemText:
    """Prompt, ground truths and verifiers of a problem; `verifier` overrides the row's own (its `dataset`)."""
    columns = present(row)
    name = next((name for name in _PROBLEM_PROMPTS if name in columns), None)
    if name is None:
        raise misfit(row, "rlvr")
    read = read_messages if name == "messages" else read_prompt
    messages = read(columns[name], f"{row.id}: {name}")
    # A demonstration's answer is not part of the prompt (open-instruct rlvr_tokenize_v3 @ e6c3044a).
    if messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    if not any(message["role"] == "user" and message["content"].strip() for message in messages):
        raise Unusable("no user turn to answer")
    truth, names = _ground_truth(row, columns, verifier)
    return ProblemText(messages, truth, names)


def _ground_truth(row: Row, columns: Mapping[str, Any], verifier: str | None) -> tuple[Any, tuple[str, ...]]:
    truth, dataset = columns.get("ground_truth"), columns.get("dataset")
    if truth is None and "instruction_id_list" in columns:
        truth = {"instruction_id": columns["instruction_id_list"], "kwargs": columns.get("kwargs")}
        dataset = dataset or "ifeval"
    elif truth is None and isinstance(answer := columns.get("answer"), str | int | float):
        marked = _GSM8K_ANSWER.search(str(answer))
        truth, dataset = (marked[1].replace(",", ""), dataset or "gsm8k") if marked else (str(answer), dataset)
    if REWARD_MODEL in (str(verifier).lower(), str(dataset).lower() if verifier is None else ""):
        # A reward model scores by the prompt, so a prompt is all it needs.
        return truth, (REWARD_MODEL,)
    if truth is None:
        raise misfit(row, "rlvr")
    names = tuple(dataset) if isinstance(dataset, list | tuple) else (dataset,) if isinstance(dataset, str) else ()
    one_each = isinstance(dataset, list | tuple) and isinstance(truth, list | tuple) and len(truth) == len(names)
    if len(names) > 1 and not one_each:
        raise Unusable("as many ground truths as verifiers are needed")
    if verifier is not None:
        if len(names) > 1 and verifier not in names:
            raise Unusable(f"several ground truths, none of them for {verifier}")
        return (truth[names.index(verifier) if verifier in names else 0] if one_each else truth), (verifier,)
    if not names:
        raise DataError(f"{row.id}: no verifier: the row has no dataset column; add one, or name a verifier (--verifier gsm8k)")
    # Upstream's data spell them as they like: MATH, gsm8k (ground_truth_utils.py @ e6c3044a lower-cases too).
    lowered = tuple(name if "/" in name or ":" in name else name.lower() for name in names)
    return (truth[0] if one_each and len(names) == 1 else truth), lowered


def parse_evaluation_prompt(row: Row) -> list[Message]:
    """The prompt of an evaluation row, whatever else the row holds."""
    columns = present(row)
    for name in (*_PROBLEM_PROMPTS, "conversations", "instruction", "input"):
        if name in columns:
            return read_prompt(columns[name], f"{row.id}: {name}")
    raise misfit(row, "rlvr")
