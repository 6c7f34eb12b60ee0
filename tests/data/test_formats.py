"""Row formats: every spelling of a conversation or a problem gives the same one, and a row that fits none says what would."""

from typing import Any

import pytest

from tulu.data.faults import Unusable
from tulu.data.formats import parse_conversation, parse_evaluation_prompt, parse_problem, parse_text
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
        ({"question": "Q", "response": "A", "system_prompt": "S"}, [S, U, A]),
        ({"query": "Q", "response": "A"}, [U, A]),
        ({"prompt": [U], "completion": "A"}, [U, A]),
        ({"prompt": "Q", "completion": A, "label": True}, [U, A]),
        # a system's turn beside a conversation
        ({"messages": [U, A], "system": "S"}, [S, U, A]),
        ({"conversations": [{"from": "human", "value": "Q"}, {"from": "bard", "value": "A"}], "system": "S"}, [S, U, A]),
        ({"messages": [S, U, A], "system": "another"}, [S, U, A]),
        ({"messages": [U, A], "system": ""}, [U, A]),
        ({"messages": [{"role": "developer", "content": "S"}, U, A]}, [S, U, A]),
        ({"question": "Q", "response": "A", "system_message": "S"}, [S, U, A]),
        # Dolly's passage
        ({"instruction": "I", "context": "in", "response": "A"}, [{"role": "user", "content": "I\n\nin"}, A]),
        ({"instruction": "Q", "context": "", "response": "A"}, [U, A]),
        ({"conversation": [U, A]}, [U, A]),
        ({"prompt": U, "completion": A}, [U, A]),
        # a conversation whose answer stands beside it
        ({"messages": [U], "completion": "A"}, [U, A]),
        ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "B"}, U], "output": A}, [U, B, U, A]),
        ({"messages": [U, A], "response": "B"}, [U, A]),
        ({"messages": [U, {"role": " Assistant ", "content": "A"}]}, [U, A]),
        # Alpaca's earlier turns
        ({"instruction": "Q", "output": "A", "history": [["Q", "B"]], "system": "S"}, [S, U, B, U, A]),
        ({"instruction": "Q", "output": "A", "history": '[["Q", "B"]]'}, [U, B, U, A]),
        ({"instruction": "Q", "output": "A", "history": []}, [U, A]),
        ({"question": "Q", "answer": "cout <<x>> y"}, [U, {"role": "assistant", "content": "cout <<x>> y"}]),
    ],
)
def test_conversations(columns: dict[str, Any], expected: list[dict[str, str]]) -> None:
    assert parse_conversation(row(**columns)).messages == expected


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"messages": [U]}, "no assistant turn"),
        ({"messages": []}, "no assistant turn"),
        ({"prompt": "Q", "completion": " <|endoftext|>"}, "an assistant turn is empty"),
        ({"messages": [U, {"role": "assistant", "content": None}]}, "an assistant turn is empty"),
        ({"prompt": "Q", "completion": "half a pair: \ud83d"}, "its text is not valid Unicode"),
        ({"prompt": "Q", "completion": "A", "label": False}, "its label is false"),
        ({"messages": [U, A | {"weight": 0}]}, "every assistant turn says that it is not trained"),
        ({"messages": [U, A], "images": ["x.png"]}, "images, sound or video"),
        ({"messages": [U | {"content": [{"type": "image", "text": None}, {"type": "text", "text": "Q"}]}, A]}, "images, sound"),
        ({"messages": [U | {"content": [{"type": "input_audio", "input_audio": {}}]}, A]}, "images, sound or video"),
        ({"messages": [U, A | {"train_detail": [{"begin_offset": 0}]}]}, "trained in part"),
    ],
)
def test_unusable_conversations(columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        parse_conversation(row(**columns))


CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "2"}
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    "columns",
    [
        {"messages": [U, CALLS, RESULT, A], "tools": [TOOL]},
        {"messages": [U, CALLS, RESULT, A], "tools": '[{"name": "f"}]'},
        {"messages": [U, {**CALLS, "tool_calls": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}}, RESULT, A]}
        | {"functions": [{"name": "f", "parameters": None}]},
        {
            "tools": '[{"name": "f"}]',
            "conversations": [
                {"from": "human", "value": "Q"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "2"},
                {"from": "gpt", "value": "A"},
            ],
        },
    ],
)
def test_tools_their_calls_and_their_results(columns: dict[str, Any]) -> None:
    chat = parse_conversation(row(**columns))
    assert (chat.messages, chat.tools) == ([U, CALLS, RESULT, A], [TOOL])


@pytest.mark.parametrize(
    ("flags", "trained"),
    [
        ({"weight": 0}, False),
        ({"weight": 0.0}, False),
        ({"train": False}, False),
        ({"trainable": False, "weight": 1}, False),
        ({"training": False}, False),
        ({"loss": False}, False),
        ({"weight": 1, "train": True, "trainable": None}, True),
        # a logged loss, which is no flag
        ({"loss": 0.0}, True),
    ],
)
def test_a_message_can_say_that_it_is_not_trained(flags: dict[str, Any], trained: bool) -> None:
    messages = parse_conversation(row(messages=[U | flags, B | flags, U, A])).messages
    assert messages == [U, B if trained else B | {"train": False}, U, A]


def test_an_untrained_turn_may_be_empty() -> None:
    assert parse_conversation(row(messages=[U, A | {"content": "", "weight": 0}, U, A])).messages[1]["content"] == ""


def test_a_turn_that_only_calls_tools_is_kept() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}
    assert parse_conversation(row(messages=[U, call])).messages[1]["content"] == ""


@pytest.mark.parametrize(
    ("read", "columns", "message"),
    [
        (parse_conversation, {"a": 1, "b": 2}, r"rows.jsonl:3: no columns for sft among a, b; accepted are messages"),
        (parse_conversation, {"messages": "hello"}, "messages: holds text, not a list"),
        (parse_conversation, {"messages": [{"speaker": "x", "text": "y"}]}, "message 1 has speaker, text; write"),
        (parse_conversation, {"messages": [U, "hi"]}, "message 2 holds a str"),
        (parse_conversation, {"messages": [U, {"role": "assistant"}]}, "message 2 has role; write {role, content}"),
        (parse_conversation, {"messages": [{"role": "user", "text": "Q"}, A]}, "message 1 has role, text; write {role, content}"),
        (
            parse_conversation,
            {"messages": [{"role": "user", "content": None, "message": "Q"}, A]},
            "message 1 has role, content, mes",
        ),
        (parse_conversation, {"messages": [U, {"role": "assistant", "name": "x"}]}, "message 2 has role, name; write"),
        (parse_conversation, {"messages": 3}, "holds a int"),
        (parse_conversation, {"prompt": 3, "completion": "A"}, "prompt holds a int, not text"),
        (parse_conversation, {"messages": [U, A], "system": 3}, "system holds a int, not text"),
        (
            parse_conversation,
            {"instruction": "Q", "output": "A", "history": ["Q", "A"]},
            r"history: write \[\[question, answer\]",
        ),
        (parse_conversation, {"messages": [U, A | {"weight": 0.5}]}, "message 2: weight is 0.5; write 0 or 1"),
        (parse_conversation, {"messages": [U, A | {"weight": float("nan")}]}, "weight is nan; write 0 or 1"),
        (parse_conversation, {"messages": [U, A | {"value": "B"}]}, "message 2 has content and value, which differ; keep one"),
        (parse_conversation, {"messages": [U, A | {"content": [{"type": "thinking"}]}]}, "message 2 has a part without text"),
        (parse_conversation, {"messages": [U, {"from": "function_call", "value": "f(1)"}]}, "call 1 holds no name|holds a str"),
        (parse_pair, {"prompt": "Q", "completion": "A", "label": True}, "one answer with a label .KTO. is no pair; join"),
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
        ({"prompt": "Q", "ground_truth": "7", "dataset": "math", "history": [], "images": []}, None, "7", ("math",)),
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
        ({"messages": [U], "ground_truth": float("nan"), "dataset": "math"}, Unusable, "not a finite number"),
        ({"question": "Q", "answer": float("inf"), "dataset": "math"}, Unusable, "not a finite number"),
        ({"messages": [U], "ground_truth": ["7", "8"], "dataset": ["a", 3]}, Unusable, "dataset: write the name of a verifier"),
        ({"prompt": "Q", "image": "x.png", "ground_truth": "7", "dataset": "math"}, Unusable, "images, sound or video"),
    ],
)
def test_unusable_problems(columns: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_problem(row(**columns), "math" if message.endswith("for math") else None)


def test_a_problem_has_the_system_the_history_and_the_tools_of_its_row() -> None:
    problem = parse_problem(row(prompt="Q", system="S", history=[["Q", "B"]], tools='[{"name": "f"}]', answer="7"), "math")
    assert (problem.messages, problem.tools) == ([S, U, B, U], [TOOL])


@pytest.mark.parametrize(
    "columns", [{"messages": [U, A]}, {"prompt": "Q"}, {"input": "Q", "output_1": "x"}, {"instruction": "Q"}]
)
def test_the_prompt_of_any_evaluation_row(columns: dict[str, Any]) -> None:
    assert parse_evaluation_prompt(row(**columns))[0] == U
