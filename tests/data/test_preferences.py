"""Rows of preferences: every spelling means the same pair to training and to RewardBench, and broken rows are named."""

from typing import Any

import pytest

from tulu.data.faults import Unusable
from tulu.data.preferences import pair_rows, parse_pair, parse_preference
from tulu.data.sources import Row
from tulu.errors import DataError
from tulu.reward_models.benchmarks import read_item

U, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
B = {"role": "assistant", "content": "B"}
S = {"role": "system", "content": "S"}
HH = "\n\nHuman: Q\n\nAssistant:"


def row(**columns: Any) -> Row:
    return Row("rows.jsonl:3", columns)


def turn(speaker: str, value: Any) -> dict[str, Any]:
    return {"from": speaker, "value": value}


SHAPES: list[dict[str, Any]] = [
    {"chosen": [U, A], "rejected": [U, B]},
    {"chosen": [[U, A]], "rejected": [[U, B]]},
    {"chosen": [A], "rejected": [B], "prompt": [U]},
    {"chosen": [U, A], "rejected": [U, B], "prompt": "Q"},
    {"chosen": [U, A], "rejected": [U, B], "prompt": [U]},
    # Whole conversations need no prompt, so that a column of this name may hold anything.
    {"chosen": [U, A], "rejected": [U, B], "prompt": 3},
    {"chosen": [U, A], "rejected": [U, B], "input": ["a", "b"]},
    {"chosen": "A", "rejected": "B", "prompt": "Q"},
    {"chosen": "A", "rejected": "B", "question": "Q"},
    {"chosen": "A", "rejected": "B", "instruction": "Q"},
    {"chosen": "A", "rejected": "B", "instruction": "Q", "input": ""},
    {"chosen": ["A"], "rejected": ["B"], "input": "Q"},
    {"chosen": "A", "rejected": "B", "prompt": [U]},
    {"chosen": "A", "rejected": "B", "prompt": "\n\nHuman: Q"},
    # The prompts of some copies of HH end where the answer begins.
    {"chosen": "A", "rejected": "B", "prompt": HH},
    {"chosen": f"{HH} A", "rejected": f"{HH} B\n"},
    {"chosen": f"\n{HH} A", "rejected": f"{HH} B"},
    {"chosen": f"{HH} A", "rejected": f"{HH} B", "prompt": "Q"},
    {"chosen": "\n\nAssistant: A", "rejected": "\n\nAssistant: B", "prompt": "\n\nHuman: Q"},
    {"chosen": [turn("human", "Q"), turn("gpt", "A")], "rejected": [turn("human", "Q"), turn("gpt", "B")]},
    {"chosen": [U, A | {"content": [{"type": "text", "text": "A"}]}], "rejected": [U, B | {"name": None}]},
    {"messages": [U], "chosen": [A], "rejected": [B]},
    {"messages": [U], "chosen": A, "rejected": B},
    {"messages": [U], "chosen": "A", "rejected": "B"},
    # UltraFeedback's messages are the demonstration.
    {"messages": [U, A], "chosen": [A], "rejected": [B]},
    {"messages": [U, A], "chosen": "A", "rejected": "B"},
    {"messages": [U, A], "chosen": [U, A], "rejected": [U, B]},
    {"conversations": [turn("human", "Q")], "chosen": turn("gpt", "A"), "rejected": turn("gpt", "B")},
    {"instruction": "Q", "chosen": [A], "rejected": [B], "history": None, "system": ""},
    {"query": "Q", "chosen": "A", "rejected": "B"},
    {"input": "Q", "output_1": "A", "output_2": "B", "label": 1},
    {"input": "Q", "output_1": "B", "output_2": "A", "label": 2},
    {"input": "Q", "output_1": "A", "output_2": "B", "label": "1"},
    {"input": "Q", "output_1": "B", "output_2": "A", "label": "2", "chosen": None},
]


@pytest.mark.parametrize("columns", SHAPES)
def test_every_shape_is_one_pair_to_training_and_to_rewardbench(columns: dict[str, Any]) -> None:
    [plain] = pair_rows(row(**columns))
    pair = parse_pair(plain)
    assert (plain.id, pair.chosen, pair.rejected, pair.margin) == ("rows.jsonl:3", [U, A], [U, B], 0.0)
    item = read_item(row(**columns), "all")
    assert (item.id, item.subset, item.prompt, item.chosen, item.rejected) == ("rows.jsonl:3", "all", (U,), ((A,),), ((B,),))


@pytest.mark.parametrize(
    ("columns", "prompt"),
    [
        ({"prompt": "Q", "system": "S"}, [S, U]),
        ({"prompt": [S, U]}, [S, U]),
        ({"prompt": [U], "system": "S"}, [S, U]),
        ({"prompt": [S, U], "system": "another"}, [S, U]),
        ({"messages": [U], "system_prompt": "S"}, [S, U]),
        ({"instruction": "Q", "history": [["Q", "B"]], "system": "S"}, [S, U, B, U]),
        ({"prompt": "Q", "history": '[["Q", "B"]]'}, [U, B, U]),
        ({"instruction": "I", "input": "in"}, [{"role": "user", "content": "I\n\nin"}]),
        ({"prompt": [U, B, U]}, [U, B, U]),
    ],
)
def test_prompts_of_texts_and_of_answers_alone(columns: dict[str, Any], prompt: list[dict[str, str]]) -> None:
    for chosen, rejected in (("A", "B"), ([A], [B])):
        pair = parse_pair(row(chosen=chosen, rejected=rejected, **columns))
        assert (pair.chosen, pair.rejected) == ([*prompt, A], [*prompt, B])


def test_whole_conversations_get_the_system_and_the_tools_of_their_row() -> None:
    pair = parse_pair(row(chosen=[U, A], rejected=[U, B], system="S", tools='[{"name": "f"}]'))
    assert (pair.chosen, pair.rejected) == ([S, U, A], [S, U, B])
    assert pair.tools == [{"type": "function", "function": {"name": "f"}}]


def test_messages_follow_a_prompt_that_they_do_not_repeat() -> None:
    for prompt, answer, expected in (
        ([S], [U, A], [S, U, A]),
        ([U, B], [U | {"content": "R"}, A], [U, B, U | {"content": "R"}, A]),
        ([U, B], [U, A], [U, A]),
        ([S, U], [S, U, A], [S, U, A]),
        # The end of the prompt is repeated.
        ([S, U], [U, A], [S, U, A]),
        ([U, A, U], [A], [U, A, U, A]),
        ([U, A], [A], [U, A, A]),
        ([B, U], [B, U, A], [B, U, A]),
        ([U], [S, U, A], [S, U, A]),
    ):
        assert parse_preference(row(prompt=prompt, chosen=answer, rejected=answer)).chosen == (expected,)


def test_further_keys_of_messages_are_kept_for_templates() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}
    pair = parse_pair(row(chosen=[U, call], rejected=[U, B]))
    called = {"type": "function", "function": {"name": "f", "arguments": {}}}
    assert pair.chosen[1] == {"role": "assistant", "content": "", "tool_calls": [called]}


def test_margin_is_read_where_it_is_given() -> None:
    assert parse_pair(row(prompt="Q", chosen="A", rejected="B", margin="1.5")).margin == 1.5


def test_several_answers_are_every_pair_of_them_with_ids_of_their_own() -> None:
    C = {"role": "assistant", "content": "C"}
    for columns in (
        {"prompt": "Q", "chosen": ["A", "B"], "rejected": ["C", "A"], "margin": 2},
        {"chosen": [[U, A], [U, B]], "rejected": [[U, C], [U, A]], "margin": 2},
        {"prompt": "Q", "chosen": [[A], "B"], "rejected": ["C", [U, A]], "margin": 2},
    ):
        plain = pair_rows(row(**columns))
        assert [each.id for each in plain] == [f"rows.jsonl:3/{number}" for number in (1, 2, 3, 4)]
        with pytest.raises(Unusable, match="chosen equals rejected"):
            parse_pair(plain.pop(1))
        pairs = [parse_pair(each) for each in plain]
        assert [(pair.chosen, pair.rejected) for pair in pairs] == [([U, A], [U, C]), ([U, B], [U, C]), ([U, B], [U, A])]
        assert {pair.margin for pair in pairs} == {2.0}
        assert parse_preference(row(**columns)).chosen == ([U, A], [U, B])
    # One against several.
    assert len(pair_rows(row(prompt="Q", chosen="A", rejected=["B", "C", "D"]))) == 3


@pytest.mark.parametrize(
    ("columns", "reason", "detail"),
    [
        ({"chosen": [U, A], "rejected": [U, A]}, "chosen equals rejected", ""),
        (
            {"chosen": [U], "rejected": [U, B]},
            "chosen does not end in an assistant turn",
            "chosen: the last message is from 'user'",
        ),
        (
            {"chosen": [U, A], "rejected": []},
            "rejected does not end in an assistant turn",
            "at least one chosen and one rejected",
        ),
        ({"prompt": "Q", "chosen": [], "rejected": "B"}, "chosen does not end", "at least one chosen and one rejected"),
        ({"chosen": f"{HH} ", "rejected": f"{HH} B"}, "the chosen answer is empty", ""),
        ({"input": "Q", "output_1": "A", "output_2": "B", "label": 3}, "label is neither 1 nor 2", "label: 3; it is 1 or 2"),
        ({"input": "Q", "output_1": "A", "output_2": "B", "label": "tie"}, "label is neither 1 nor 2", "label: 'tie'"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B", "margin": "much"}, "margin is not a number", ""),
        ({"prompt": "Q", "chosen": "A", "rejected": "B", "margin": [1]}, "margin is not a number", ""),
        ({"prompt": "Q", "chosen": "A", "rejected": "B", "margin": 10**400}, "margin is not a number", ""),
        ({"prompt": "Q", "chosen": "A", "rejected": "B", "margin": float("nan")}, "margin is not a finite number", "margin: nan"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B", "margin": "-inf"}, "margin is not a finite number", "margin: -inf"),
        ({"prompt": [U], "chosen": [A | {"weight": 0}], "rejected": [B]}, "an answer says that it is not trained", ""),
        ({"prompt": "Q", "chosen": "A", "rejected": "B", "images": ["x.png"]}, "images, sound or video", "column images"),
        ({"prompt": "Q", "chosen": "A \ud83d", "rejected": "B"}, "its text is not valid Unicode", ""),
    ],
)
def test_unusable_pairs(columns: dict[str, Any], reason: str, detail: str) -> None:
    [plain] = pair_rows(row(**columns))
    with pytest.raises(Unusable, match=reason) as error:
        parse_pair(plain)
    assert (detail or reason) in error.value.detail


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"messages": [U, A]}, "no columns for pairs among messages"),
        ({"prompt": "Q", "chosen": "a"}, "no chosen or no rejected answer among prompt, chosen; accepted are chosen"),
        ({"prompt": "Q", "chosen": None, "rejected": "a"}, "no chosen or no rejected answer among prompt, rejected"),
        ({"chosen": "A", "rejected": "B"}, "chosen: a string needs a prompt column beside it, or must be a transcript"),
        ({"chosen": f"{HH} a\n\nHuman: b", "rejected": "b"}, "rejected: a string needs a prompt"),
        ({"chosen": [A], "rejected": [B]}, "chosen: an assistant's message needs a prompt column beside it"),
        # A prompt that cannot be read is not one that is not there.
        ({"prompt": 3, "chosen": [A], "rejected": [B]}, "prompt: holds a int"),
        ({"instruction": "Q", "history": [1], "chosen": [A], "rejected": [B]}, "history: write"),
        (
            {"prompt": "Q", "completion": "A", "label": True},
            "is no pair; join the answers to one prompt into chosen and rejected",
        ),
        ({"chosen": [{"role": "assistant"}], "rejected": [U]}, "chosen: message 1 has role; write {role, content}"),
        ({"prompt": "Q", "chosen": 3, "rejected": "a"}, "chosen: holds a int"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt: holds a int"),
        ({"input": 3, "output_1": "a", "output_2": "b", "label": 1}, "input: holds a int"),
        ({"output_1": "a", "output_2": "b", "label": 2}, "output_2: a string needs a prompt column"),
    ],
)
def test_rows_that_fit_no_format_say_row_column_and_cure(columns: dict[str, Any], message: str) -> None:
    for read in (parse_pair, lambda broken: read_item(broken, "all")):
        with pytest.raises(DataError, match=message) as error:
            read(row(**columns))
        assert str(error.value).startswith("rows.jsonl:3: ")
