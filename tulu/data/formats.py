"""What a row means: a conversation, a pair of answers, or a problem with its ground truth.

Columns that are None count as absent: tables give every row the columns of all.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tulu.data.sources import Row
from tulu.errors import DataError
from tulu.types import Message
from tulu.verifiers.reward_model import NAME as REWARD_MODEL

Kind = Literal["text", "sft", "pairs", "rlvr"]

# GSM8K's calculator annotations, `48/2 = <<48/2=24>>24`: for a model with a calculator, noise for one without.
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
_GSM8K_ANSWER = re.compile(r"####\s*(\S[^\n]*?)\s*$")
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
_END_OF_TEXT = "<|endoftext|>"
_ROLES = {"human": "user", "user": "user", "prompter": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_MESSAGE_COLUMNS = ("role", "content", "from", "value")
_SINGLE_TURNS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("instruction", "output"),
    ("instruction", "response"),
)
_QUESTIONS = ("messages", "prompt", "question", "problem")

ACCEPTED: dict[Kind, str] = {
    "text": "text",
    "sft": "messages; conversations (from, value); prompt + completion; question + answer; instruction (+ input) + output; "
    "instruction + instances; message trees (prompt with replies)",
    "pairs": "chosen + rejected as messages; prompt + chosen + rejected as texts; chosen + rejected as transcripts of Human: and "
    "Assistant: turns; input + output_1 + output_2 + label; message trees with ranked replies",
    "rlvr": "messages + ground_truth (+ dataset); prompt or question or problem + ground_truth or answer; "
    "prompt + instruction_id_list + kwargs",
}


class Unusable(Exception):
    """A row of a known form that cannot be trained on; its text is the reason under which it is counted."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two whole conversations that answer the same prompt, the better one first."""

    chosen: list[Message]
    rejected: list[Message]
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, and for each verifier that scores its answers a ground truth (one alone stands by itself)."""

    messages: list[Message]
    ground_truth: Any
    verifiers: tuple[str, ...]


def misfit(row: Row, kind: Kind) -> DataError:
    """The error for a row whose columns no form has."""
    columns = ", ".join(row.columns) or "none"
    return DataError(f"{row.id}: no columns for {kind} among {columns}; accepted are {ACCEPTED[kind]}")


def present(row: Row) -> dict[str, Any]:
    """The columns that hold something."""
    return {name: value for name, value in row.columns.items() if value is not None}


def conversation(row: Row) -> list[Message]:
    """The conversation to train on; Unusable without an assistant's turn."""
    columns = present(row)
    messages = _conversation(row, columns)
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise Unusable("no assistant turn")
    if any(not message["content"].strip() and "tool_calls" not in message for message in answers):
        raise Unusable("an assistant turn is empty")
    return messages


def _conversation(row: Row, columns: Mapping[str, Any]) -> list[Message]:
    if "messages" in columns:
        return _messages(columns["messages"], f"{row.id}: messages")
    if "conversations" in columns:
        return _messages(columns["conversations"], f"{row.id}: conversations")
    for prompt_name, completion_name in _SINGLE_TURNS:
        if prompt_name in columns and completion_name in columns:
            return _single_turn(row, columns, prompt_name, completion_name)
    raise misfit(row, "sft")


def _single_turn(row: Row, columns: Mapping[str, Any], prompt_name: str, completion_name: str) -> list[Message]:
    prompt, completion = columns[prompt_name], columns[completion_name]
    if isinstance(prompt, list) and isinstance(completion, list):
        return [*_messages(prompt, f"{row.id}: {prompt_name}"), *_messages(completion, f"{row.id}: {completion_name}")]
    asked, answer = _string(prompt, row, prompt_name), _string(completion, row, completion_name)
    if columns.get("input") and prompt_name == "instruction":
        asked = f"{asked}\n\n{_string(columns['input'], row, 'input')}"
    if (prompt_name, completion_name) == ("question", "answer") and _GSM8K_ANSWER.search(answer):
        answer = _CALCULATOR.sub("", answer)
    # Self-instruct's files write the end of the text out; the template adds the real token.
    answer = answer.rstrip().removesuffix(_END_OF_TEXT) if answer.rstrip().endswith(_END_OF_TEXT) else answer
    opening: list[Message] = []
    if columns.get("system"):
        opening = [{"role": "system", "content": _string(columns["system"], row, "system")}]
    return [*opening, {"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def _string(value: Any, row: Row, column: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{row.id}: {column} holds a {type(value).__name__}, not text; accepted are {ACCEPTED['sft']}")
    return _unicode(value)


def _unicode(text: str) -> str:
    """JSON can spell half a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unusable("its text is not valid Unicode") from None
    return text


def _messages(value: Any, place: str) -> list[Message]:
    """Messages as templates take them; text alone is read as JSON, since CSV cells hold nothing else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise DataError(f"{place}: holds text, not a list of messages; write [{{role, content}}, ...]") from None
    if not isinstance(value, Sequence):
        raise DataError(f"{place}: holds a {type(value).__name__}, not a list of messages; write [{{role, content}}, ...]")
    return [_message(entry, f"{place}: message {number}") for number, entry in enumerate(value, 1)]


def _message(entry: Any, place: str) -> Message:
    if not isinstance(entry, Mapping):
        raise DataError(f"{place} holds a {type(entry).__name__}; write {{role, content}}")
    role, content = entry.get("role", entry.get("from")), entry.get("content", entry.get("value"))
    if isinstance(content, list) and all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(role, str) or not isinstance(content, str | None):
        raise DataError(f"{place} has {', '.join(map(str, entry))}; write {{role, content}}, both as text")
    extra = {name: value for name, value in entry.items() if value is not None and name not in _MESSAGE_COLUMNS}
    message: dict[str, Any] = {**extra, "role": _ROLES.get(role.lower(), role), "content": _unicode(content or "")}
    return message  # type: ignore[return-value]  # templates read further keys, such as functions


def pair(row: Row) -> Pair:
    """Chosen and rejected conversation; Unusable where the label says nothing or the sides are equal."""
    columns = present(row)
    if "chosen" in columns and "rejected" in columns:
        chosen, rejected = (_side(row, columns, name) for name in ("chosen", "rejected"))
    elif {"input", "output_1", "output_2", "label"} <= columns.keys():
        label = str(columns["label"]).strip()
        if label not in ("1", "2"):
            raise Unusable("label is neither 1 nor 2")
        chosen, rejected = (_answered(row, columns["input"], columns[f"output_{side}"]) for side in (label, "21"[int(label) - 1]))
    else:
        raise misfit(row, "pairs")
    margin = columns.get("margin", 0.0)
    try:
        weight = float(margin)
    except (TypeError, ValueError):
        raise Unusable("margin is not a number") from None
    for side, messages in (("chosen", chosen), ("rejected", rejected)):
        if not messages or messages[-1]["role"] != "assistant":
            raise Unusable(f"{side} does not end in an assistant turn")
    if not chosen[-1]["content"].strip() and "tool_calls" not in chosen[-1]:
        raise Unusable("the chosen answer is empty")
    if chosen == rejected:
        raise Unusable("chosen equals rejected")
    return Pair(chosen, rejected, weight)


def _answered(row: Row, prompt: Any, answer: Any) -> list[Message]:
    return [
        {"role": "user", "content": _string(prompt, row, "input")},
        {"role": "assistant", "content": _string(answer, row, "output")},
    ]


def _side(row: Row, columns: Mapping[str, Any], name: str) -> list[Message]:
    """One side of a pair: an answer, or the whole conversation."""
    value, prompt = columns[name], columns.get("prompt")
    if isinstance(value, str):
        text = _unicode(value)
        if _HH_TURN.match(text):
            return transcript(text)
        if prompt is None:
            raise DataError(
                f"{row.id}: {name} is text, neither beside a prompt column nor a transcript that begins with \\n\\nHuman: ; "
                f"accepted are {ACCEPTED['pairs']}"
            )
        opening = _prompt(prompt, row, "prompt")
        return [*opening, {"role": "assistant", "content": text}]
    messages = _messages(value, f"{row.id}: {name}")
    whole = bool(messages) and messages[0]["role"] != "assistant"
    return messages if whole or prompt is None else [*_prompt(prompt, row, "prompt"), *messages]


def _prompt(value: Any, row: Row, column: str) -> list[Message]:
    if isinstance(value, str):
        return transcript(value) if _HH_TURN.match(value) else [{"role": "user", "content": _unicode(value)}]
    return _messages(value, f"{row.id}: {column}")


def transcript(text: str) -> list[Message]:
    """The turns of an Anthropic HH transcript (anthropics/hh-rlhf @ 354e5c3), outer spaces removed."""
    parts = _HH_TURN.split(text)[1:]
    return [
        {"role": "user" if speaker == "Human" else "assistant", "content": said.strip()}
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def question(row: Row, verifier: str | None) -> Question:
    """Prompt, ground truths and verifiers of a problem; `verifier` overrides the row's own (its `dataset`)."""
    columns = present(row)
    name = next((name for name in _QUESTIONS if name in columns), None)
    if name is None:
        raise misfit(row, "rlvr")
    messages = _prompt(columns[name], row, name) if name != "messages" else _messages(columns[name], f"{row.id}: messages")
    # A demonstration's answer is not part of the prompt (open-instruct rlvr_tokenize_v3 @ e6c3044a).
    if messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    if not any(message["role"] == "user" and message["content"].strip() for message in messages):
        raise Unusable("no user turn to answer")
    truth, names = _truth(row, columns, verifier)
    return Question(messages, truth, names)


def _truth(row: Row, columns: Mapping[str, Any], verifier: str | None) -> tuple[Any, tuple[str, ...]]:
    truth, own = columns.get("ground_truth"), columns.get("dataset")
    if truth is None and "instruction_id_list" in columns:
        truth = {"instruction_id": columns["instruction_id_list"], "kwargs": columns.get("kwargs")}
        own = own or "ifeval"
    elif truth is None and isinstance(answer := columns.get("answer"), str | int | float):
        marked = _GSM8K_ANSWER.search(str(answer))
        truth, own = (marked[1].replace(",", ""), own or "gsm8k") if marked else (str(answer), own)
    if REWARD_MODEL in (str(verifier).lower(), str(own).lower() if verifier is None else ""):
        # It judges by the prompt, so a prompt is all it needs.
        return truth, (REWARD_MODEL,)
    if truth is None:
        raise misfit(row, "rlvr")
    names = tuple(own) if isinstance(own, list | tuple) else (own,) if isinstance(own, str) else ()
    several = isinstance(own, list | tuple) and isinstance(truth, list | tuple) and len(truth) == len(names)
    if len(names) > 1 and not several:
        raise Unusable("as many ground truths as verifiers are needed")
    if verifier is not None:
        if len(names) > 1 and verifier not in names:
            raise Unusable(f"several ground truths, none of them for {verifier}")
        return (truth[names.index(verifier) if verifier in names else 0] if several else truth), (verifier,)
    if not names:
        raise DataError(f"{row.id}: no verifier: the row has no dataset column; add one, or name a verifier (--verifier gsm8k)")
    # Upstream's data spell them as they like: MATH, gsm8k (ground_truth_utils.py @ e6c3044a lower-cases too).
    lowered = tuple(name if "/" in name or ":" in name else name.lower() for name in names)
    return (truth[0] if several and len(names) == 1 else truth), lowered


def asked(row: Row) -> list[Message]:
    """The prompt of an evaluation row, whatever else it holds."""
    columns = present(row)
    for name in (*_QUESTIONS, "conversations", "instruction", "input"):
        if name in columns:
            return _prompt(columns[name], row, name)
    raise misfit(row, "rlvr")


def text(row: Row) -> str:
    """Plain text to train on."""
    value = row.columns.get("text")
    if value is None:
        raise misfit(row, "text")
    if not isinstance(value, str):
        raise DataError(f"{row.id}: text holds a {type(value).__name__}; write a string")
    if not value:
        raise Unusable("empty text")
    return _unicode(value)


READ: dict[Kind, Callable[[Row], Any]] = {"text": text, "sft": conversation, "pairs": pair}
