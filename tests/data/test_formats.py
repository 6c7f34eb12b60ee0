"""Row formats: every spelling of a conversation or a problem gives the same one, and a row that fits none says what would."""

from typing import Any

import pytest

from tulu.data.formats import parse_conversation, parse_evaluation_prompt, parse_problem, parse_text
from tulu.data.messages import Unusable
from tulu.data.preferences import parse_pair
from tulu.data.sources import Row
from tulu.errors import DataError

U, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
B = {"role": "assistant", "content": "B"}
S = {"role": "system", "content": "S"}


def row(**columns: Any) -> Row:
    return Row("rows.jsonl:3", columns)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"messages": [U, A]}, [U, A]),
        ({"messages": [S, U, A], "prompt": None, "chosen": None}, [S, U, A]),
        ({"messages": '[{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]'}, [U, A]),
        ({"messages": [U | {"name": None}, A | {"content": [{"type": "text", "text": "A"}]}]}, [U, A]),
        ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}, [U, A]),
        ({"prompt": "Q", "completion": "A"}, [U, A]),
        ({"prompt": [U], "completion": [A]}, [U, A]),
        ({"prompt": "Q", "response": "A", "system": "S"}, [S, U, A]),
        ({"question": "Q", "answer": "A"}, [U, A]),
        ({"instruction": "Q", "output": "A", "input": ""}, [U, A]),
        ({"instruction": "I", "output": "A", "input": "in"}, [{"role": "user", "content": "I\n\nin"}, A]),
        # self-instruct writes the end of the text out
        ({"template": "t", "prompt": "Q", "completion": "A<|endoftext|>"}, [U, A]),
        # GSM8K's calculator marks
        (
            {"question": "Q", "answer": "48/2 = <<48/2=24>>24.\n#### 24"},
            [U, {"role": "assistant", "content": "48/2 = 24.\n#### 24"}],
        ),
        ({"question": "Q", "answer": "cout <<x>> y"}, [U, {"role": "assistant", "content": "cout <<x>> y"}]),
    ],
)
def test_conversations(columns: dict[str, Any], expected: list[dict[str, str]]) -> None:
    assert parse_conversation(row(**columns)) == expected


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"messages": [U]}, "no assistant turn"),
        ({"messages": []}, "no assistant turn"),
        ({"prompt": "Q", "completion": " <|endoftext|>"}, "an assistant turn is empty"),
        ({"messages": [U, {"role": "assistant", "content": None}]}, "an assistant turn is empty"),
        ({"prompt": "Q", "completion": "half a pair: \ud83d"}, "its text is not valid Unicode"),
    ],
)
def test_unusable_conversations(columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        parse_conversation(row(**columns))


def test_a_turn_that_only_calls_tools_is_kept() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}
    assert parse_conversation(row(messages=[U, call]))[1]["content"] == ""


@pytest.mark.parametrize(
    ("read", "columns", "message"),
    [
        (parse_conversation, {"a": 1, "b": 2}, r"rows.jsonl:3: no columns for sft among a, b; accepted are messages"),
        (parse_conversation, {"messages": "hello"}, "messages: holds text, not a list"),
        (parse_conversation, {"messages": [{"speaker": "x", "text": "y"}]}, "message 1 has speaker, text; write"),
        (parse_conversation, {"messages": [U, "hi"]}, "message 2 holds a str"),
        (parse_conversation, {"messages": [U, {"role": "assistant"}]}, "message 2 has role; write {role, content}"),
        (parse_conversation, {"messages": 3}, "holds a int"),
        (parse_conversation, {"prompt": 3, "completion": "A"}, "prompt holds a int, not text"),
        (parse_conversation, {"chosen": [U, A], "rejected": [U, B]}, "no columns for sft among chosen, rejected"),
        (parse_pair, {"messages": [U, A]}, "no columns for pairs among messages"),
        (parse_text, {"messages": [U, A]}, "no columns for text"),
        (parse_text, {"text": 3}, "text holds a int"),
        (parse_evaluation_prompt, {"a": 1}, "no columns for rlvr"),
    ],
)
def test_rows_that_fit_no_format_say_what_would(read: Any, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(row(**columns))


@pytest.mark.parametrize(
    ("columns", "verifier", "truth", "names"),
    [
        ({"messages": [U], "ground_truth": "7", "dataset": "gsm8k"}, None, "7", ("gsm8k",)),
        ({"messages": [U, A], "ground_truth": "7", "dataset": "MATH"}, None, "7", ("math",)),
        ({"messages": [U], "ground_truth": ["7"], "dataset": ["gsm8k"]}, None, "7", ("gsm8k",)),
        ({"messages": [U], "ground_truth": ["7", "x"], "dataset": ["gsm8k", "exact"]}, None, ["7", "x"], ("gsm8k", "exact")),
        ({"messages": [U], "ground_truth": ["7", "x"], "dataset": ["gsm8k", "exact"]}, "exact", "x", ("exact",)),
        ({"messages": [U], "ground_truth": ["a", "b"], "dataset": "exact"}, None, ["a", "b"], ("exact",)),
        ({"messages": [U], "ground_truth": "7", "dataset": "gsm8k"}, "math", "7", ("math",)),
        ({"prompt": "Q", "ground_truth": "7"}, "math", "7", ("math",)),
        ({"question": "Q", "answer": "so\n#### 1,234"}, None, "1234", ("gsm8k",)),
        ({"question": "Q", "answer": "so\n#### 1,234"}, "math", "1234", ("math",)),
        ({"problem": "Q", "answer": r"\frac12"}, "math", r"\frac12", ("math",)),
        (
            {"key": 1, "prompt": "Q", "instruction_id_list": ["a:b"], "kwargs": [{}]},
            None,
            {"instruction_id": ["a:b"], "kwargs": [{}]},
            ("ifeval",),
        ),
        ({"messages": [U], "ground_truth": "7", "dataset": "own/Mine.py:score"}, None, "7", ("own/Mine.py:score",)),
    ],
)
def test_problems(columns: dict[str, Any], verifier: str | None, truth: Any, names: tuple[str, ...]) -> None:
    problem = parse_problem(row(**columns), verifier)
    assert (problem.messages, problem.ground_truth, problem.verifiers) == ([U], truth, names)


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"messages": [U], "ground_truth": "7"}, DataError, "no verifier: the row has no dataset column"),
        ({"messages": [U], "dataset": "math"}, DataError, "no columns for rlvr"),
        ({"messages": [A], "ground_truth": "7", "dataset": "math"}, Unusable, "no user turn"),
        ({"messages": [U], "ground_truth": "7", "dataset": ["a", "b"]}, Unusable, "as many ground truths"),
        ({"messages": [U], "ground_truth": ["7", "8"], "dataset": ["a", "b"]}, Unusable, "none of them for math"),
    ],
)
def test_unusable_problems(columns: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_problem(row(**columns), "math" if message.endswith("for math") else None)


@pytest.mark.parametrize(
    "columns", [{"messages": [U, A]}, {"prompt": "Q"}, {"input": "Q", "output_1": "x"}, {"instruction": "Q"}]
)
def test_the_prompt_of_any_evaluation_row(columns: dict[str, Any]) -> None:
    assert parse_evaluation_prompt(row(**columns))[0] == U
