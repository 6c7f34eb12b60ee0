"""What a row means, for every command: plain text, a conversation, or a problem; `data/preferences.py` reads preferences."""

import math
import re
from dataclasses import dataclass
from typing import Any

from tulu.config.stages import RowKind
from tulu.data.columns import Columns
from tulu.data.faults import Misfit, NoForm, Unusable, valid_text
from tulu.data.messages import MEDIA, ROLES, read_messages, read_prompt
from tulu.data.sources import Row
from tulu.data.tools import json_of, read_tools
from tulu.errors import first_few
from tulu.types import Message, Tools
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
    ("question", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("query", "response"),
)
"""Columns of a conversation of one turn: (prompt, completion)."""
_CONVERSATIONS = ("messages", "conversations", "conversation")
"""Columns that hold a list of messages, the first that is there."""
_COMPLETIONS = ("completion", "response", "output")
"""Columns that answer a conversation which ends in a turn of the user."""
_PROBLEM_PROMPTS = ("messages", "prompt", "question", "problem")
"""Columns that hold the prompt of a problem, the first that is there."""
_MEDIA_COLUMNS = ("image", "images", "audio", "audios", "video", "videos")

ACCEPTED: dict[RowKind, str] = {
    "text": "text",
    "sft": "messages; conversations (from, value); prompt + completion; question + answer; "
    "instruction (+ input or context) + output; instruction + instances; "
    "message trees (prompt with replies); each with system, history and tools beside it",
    "pairs": "chosen + rejected, each an answer (text or messages) beside a prompt, question, input, instruction or messages, or "
    "a whole conversation (messages, or a transcript of Human: and Assistant: turns), or a list of several of these; "
    "input + output_1 + output_2 + label; message trees with ranked replies",
    "rlvr": "messages + ground_truth (+ dataset); prompt or question or problem + ground_truth or answer; "
    "prompt + instruction_id_list + kwargs",
}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, and the tools that they may call."""

    messages: list[Message]
    tools: Tools = ()


@dataclass(frozen=True, slots=True)
class ProblemText:
    """A problem before its prompt is tokenised: the messages, and a ground truth for each verifier (one alone stands bare)."""

    messages: list[Message]
    ground_truth: Any
    verifiers: tuple[str, ...]
    tools: Tools = ()


def misfit(row: Row, kind: RowKind) -> NoForm:
    """The error for a row whose columns fit no form of this kind."""
    columns = present(row)
    one_side = kind == "pairs" and ("chosen" in columns or "rejected" in columns)
    problem = "no chosen or no rejected answer" if one_side else f"no columns for {kind}"
    return NoForm(problem, f"{row.id}: {problem} among {', '.join(columns) or 'none'}; accepted are {ACCEPTED[kind]}")


def present(row: Row) -> Columns:
    """The columns that hold something. Misfit where the row is a part that could not be read of a nested one."""
    if row.problem:
        raise Misfit("it is not nested as the first row is", f"{row.id}: {row.problem}")
    return row.columns if isinstance(row.columns, Columns) else Columns(row.columns)


def refuse_media(columns: Columns) -> None:
    """Unusable where a column holds what is no text, since the rest of the row speaks of it."""
    if name := next((name for name in _MEDIA_COLUMNS if columns.holds(name)), None):
        raise Unusable(MEDIA, f"column {name} is not empty; leave such rows out")


def parse_text(row: Row) -> str:
    """Plain text to train on."""
    columns = present(row)
    if "text" not in columns:
        raise misfit(row, "text")
    value = columns["text"]
    if not isinstance(value, str):
        raise Misfit("text holds no text", f"{row.id}: text holds a {type(value).__name__}; write a string")
    if not value:
        raise Unusable("empty text")
    return valid_text(value)


def parse_conversation(row: Row) -> Conversation:
    """The conversation to train on; Unusable where no turn of the assistant can be trained."""
    columns = present(row)
    refuse_media(columns)
    messages = with_system(row, columns, _conversation(row, columns))
    replies = [message for message in messages if message["role"] == "assistant"]
    if not replies:
        odd = list(dict.fromkeys(message["role"] for message in messages if message["role"] not in ROLES))
        raise Unusable("no assistant turn", f"role {first_few(odd)}; the turns to train are those of assistant" if odd else "")
    trained = [message for message in replies if is_trained(message)]
    if not trained:
        raise Unusable("every assistant turn says that it is not trained")
    if any(is_empty(message) for message in trained):
        raise Unusable("an assistant turn is empty")
    return Conversation(messages, tools_of(row, columns))


def is_empty(message: Message) -> bool:
    """Whether an assistant's message neither says anything nor calls a tool."""
    return not message["content"].strip() and "tool_calls" not in message


def is_trained(message: Message) -> bool:
    """Whether nothing says that an assistant's message is not trained."""
    return message.get("train", True)


def _conversation(row: Row, columns: Columns) -> list[Message]:
    if name := columns.first_of(_CONVERSATIONS):
        messages = read_messages(columns[name], f"{row.id}: {name}")
        answer = columns.first_of(_COMPLETIONS) if messages and messages[-1]["role"] == "user" else None
        return messages if answer is None else [*messages, *_answer(row, columns, name, answer)]
    for prompt_column, completion_column in _SINGLE_TURNS:
        if prompt_column in columns and completion_column in columns:
            return _single_turn(row, columns, prompt_column, completion_column)
    raise misfit(row, "sft")


def _single_turn(row: Row, columns: Columns, prompt_column: str, completion_column: str) -> list[Message]:
    if (label := columns.get("label")) is False:
        raise Unusable("its label is false", "label: false; the answer is one that nobody wanted")
    if label is not True:
        columns.forget("label")
    return [*_asked(row, columns, prompt_column), *_answer(row, columns, prompt_column, completion_column)]


def _asked(row: Row, columns: Columns, name: str) -> list[Message]:
    """The turns of a prompt column: its messages, or one turn of the user behind those of a `history`."""
    if isinstance(columns[name], list | tuple | dict):
        return read_messages(columns[name], f"{row.id}: {name}")
    user = instruction_of(row, columns) if name == "instruction" else text_of(row, columns, name)
    return [*history_of(row, columns), {"role": "user", "content": user}]


def _answer(row: Row, columns: Columns, prompt_column: str, name: str) -> list[Message]:
    """The turns of a completion column: its messages, or one turn of the assistant."""
    if isinstance(columns[name], list | tuple | dict):
        return read_messages(columns[name], f"{row.id}: {name}")
    reply = text_of(row, columns, name)
    if (prompt_column, name) == ("question", "answer") and _GSM8K_ANSWER.search(reply):
        reply = _CALCULATOR.sub("", reply)
    # Self-instruct's files write the end of the text out; the template adds the real token.
    reply = reply.rstrip().removesuffix(_END_OF_TEXT) if reply.rstrip().endswith(_END_OF_TEXT) else reply
    return [{"role": "assistant", "content": reply}]


def with_system(row: Row, columns: Columns, messages: list[Message]) -> list[Message]:
    """The messages behind the system's turn of a column, unless they have one of their own."""
    name = next((name for name in ("system", "system_prompt", "system_message") if columns.get(name)), None)
    if name is None:
        return messages
    if any(message["role"] == "system" for message in messages):
        columns.forget(name)
        return messages
    return [{"role": "system", "content": text_of(row, columns, name)}, *messages]


def history_of(row: Row, columns: Columns) -> list[Message]:
    """The earlier turns of a `history` column, which holds [[question, answer], ...] (Alpaca as LLaMA-Factory spells it)."""
    turns = json_of(columns.get("history")) or []
    if not isinstance(turns, list | tuple) or not all(
        isinstance(turn, list | tuple) and len(turn) == 2 and all(isinstance(text, str) for text in turn) for turn in turns
    ):
        raise Misfit("history holds no turns", f"{row.id}: history: write [[question, answer], ...], each as text")
    roles = ("user", "assistant")
    return [{"role": role, "content": valid_text(text)} for turn in turns for role, text in zip(roles, turn, strict=True)]


def tools_of(row: Row, columns: Columns) -> Tools:
    """The tools that the conversation may call, of a `tools` or a `functions` column."""
    name = next((name for name in ("tools", "functions") if columns.holds(name)), None)
    return () if name is None else read_tools(columns[name], f"{row.id}: {name}")


def instruction_of(row: Row, columns: Columns) -> str:
    """An instruction, and behind an empty line the input that it is about, where there is one; Dolly calls it context."""
    instruction = text_of(row, columns, "instruction")
    about = next((name for name in ("input", "context") if columns.get(name)), None)
    return instruction if about is None else f"{instruction}\n\n{text_of(row, columns, about)}"


def text_of(row: Row, columns: Columns, name: str) -> str:
    """The text of a column."""
    value = columns[name]
    if not isinstance(value, str):
        raise Misfit(f"{name} holds no text", f"{row.id}: {name} holds a {type(value).__name__}, not text; write a string")
    return valid_text(value)


def parse_problem(row: Row, verifier: str | None) -> ProblemText:
    """Prompt, ground truths and verifiers of a problem; `verifier` overrides the row's own (its `dataset`)."""
    columns = present(row)
    refuse_media(columns)
    name = columns.first_of(_PROBLEM_PROMPTS)
    if name is None:
        raise misfit(row, "rlvr")
    messages = with_system(row, columns, prompt_of(row, columns, name))
    # A demonstration's answer is not part of the prompt (open-instruct rlvr_tokenize_v3 @ e6c3044a).
    if messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    if not any(message["role"] == "user" and message["content"].strip() for message in messages):
        raise Unusable("no user turn to answer")
    truth, names = _ground_truth(row, columns, verifier)
    return ProblemText(messages, truth, names, tools_of(row, columns))


def prompt_of(row: Row, columns: Columns, name: str) -> list[Message]:
    """The messages of a prompt column; text stands behind the turns of a `history`."""
    if name in _CONVERSATIONS:
        return read_messages(columns[name], f"{row.id}: {name}")
    messages = read_prompt(columns[name], f"{row.id}: {name}")
    return [*history_of(row, columns), *messages] if isinstance(columns[name], str) else messages


def _ground_truth(row: Row, columns: Columns, verifier: str | None) -> tuple[Any, tuple[str, ...]]:
    truth, dataset = columns.get("ground_truth"), columns.get("dataset")
    if truth is None and "instruction_id_list" in columns:
        truth = {"instruction_id": columns["instruction_id_list"], "kwargs": columns.get("kwargs")}
        dataset = dataset or "ifeval"
    elif truth is None and isinstance(answer := columns.get("answer"), str | int | float):
        _refuse_infinite(answer)
        marked = _GSM8K_ANSWER.search(str(answer))
        truth, dataset = (marked[1].replace(",", ""), dataset or "gsm8k") if marked else (str(answer), dataset)
    if REWARD_MODEL in (str(verifier).lower(), str(dataset).lower() if verifier is None else ""):
        # A reward model scores by the prompt, so a prompt is all it needs.
        return truth, (REWARD_MODEL,)
    if truth is None:
        raise misfit(row, "rlvr")
    _refuse_infinite(truth)
    if isinstance(dataset, list | tuple) and not all(isinstance(name, str) for name in dataset):
        raise Misfit("dataset holds no names", f"{row.id}: dataset: write the name of a verifier, or a list of names")
    names = tuple(dataset) if isinstance(dataset, list | tuple) else (dataset,) if isinstance(dataset, str) else ()
    one_each = isinstance(dataset, list | tuple) and isinstance(truth, list | tuple) and len(truth) == len(names)
    if len(names) > 1 and not one_each:
        raise Unusable("as many ground truths as verifiers are needed")
    if verifier is not None:
        if len(names) > 1 and verifier not in names:
            raise Unusable(f"several ground truths, none of them for {verifier}")
        return (truth[names.index(verifier) if verifier in names else 0] if one_each else truth), (verifier,)
    if not names:
        cure = "add one, or name a verifier (--verifier gsm8k)"
        raise NoForm("no verifier", f"{row.id}: no verifier: the row has no dataset column; {cure}")
    # Upstream's data spell them as they like: MATH, gsm8k (ground_truth_utils.py @ e6c3044a lower-cases too).
    lowered = tuple(name if "/" in name or ":" in name else name.lower() for name in names)
    return (truth[0] if one_each and len(names) == 1 else truth), lowered


def _refuse_infinite(truth: Any) -> None:
    """Unusable where a ground truth is a number, or a list with one, to which no answer can be equal."""
    if any(isinstance(number, float) and not math.isfinite(number) for number in (truth if isinstance(truth, list) else [truth])):
        raise Unusable("the ground truth is not a finite number")


def parse_evaluation_prompt(row: Row) -> list[Message]:
    """The prompt of an evaluation row, whatever else the row holds."""
    columns = present(row)
    name = columns.first_of((*_PROBLEM_PROMPTS, "conversations", "instruction", "input", "query"))
    if name is None:
        raise misfit(row, "rlvr")
    return prompt_of(row, columns, name)
