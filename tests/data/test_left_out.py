"""A row of which the template leaves a part out is dropped under a reason, or noted where it leaves out thoughts alone."""

from typing import Any

import pytest

from tulu.data.chat import apply_template, make_byte_tokenizer
from tulu.data.row_report import RowReport
from tulu.data.sources import Row
from tulu.data.tokenise import TokeniseOptions, encode_part


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


CHAT = {"messages": [said("user", "q"), said("assistant", "x")]}


def report_of(tokenizer: Any, *rows: dict[str, Any]) -> RowReport:
    placed = [Row(f"rows:{number}", columns) for number, columns in enumerate(rows)]
    return encode_part("rows", placed, tokenizer, TokeniseOptions("sft", 1000)).report


WITH_CALLS = (
    "{{ tools | tojson if tools }}{% for m in messages %}{{ m['role'] + ':' + m['content'] }}{% for c in m.tool_calls or [] %}"
    "{{ c.function | tojson }}{% endfor %}{{ eos_token }}{% endfor %}{{ 'assistant:' if add_generation_prompt }}"
)
CALLING = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": '{"x": "7"}'}]}


@pytest.mark.parametrize(
    ("template", "row", "reason"),
    [
        (WITH_CALLS, {"messages": [said("user", "q"), CALLING, said("assistant", "x")], "tools": [{"name": "f"}]}, None),
        (
            "tulu",
            {"messages": [said("user", "q"), CALLING, said("assistant", "x")]},
            "the template leaves out a message of the assistant",
        ),
        ("tulu", CHAT | {"tools": [{"name": "f"}]}, "the template leaves out the tools of the row"),
        (
            "tulu",
            {"messages": [said("user", "q") | {"functions": "[f(x)]"}, said("assistant", "x")]},
            "leaves out functions of a message",
        ),
        (
            "{% for m in messages if m['role'] != 'system' %}{{ m['role'] + ':' + m['content'] + eos_token }}{% endfor %}"
            "{{ 'assistant:' if add_generation_prompt }}",
            CHAT | {"system": "s!"},
            "the template leaves out a message of the system",
        ),
    ],
)
def test_rows_of_which_the_template_leaves_a_part_out(template: str, row: dict[str, Any], reason: str | None) -> None:
    made = make_byte_tokenizer()
    if template == "tulu":
        apply_template(made, "tulu")
    else:
        made.chat_template = template
    report = report_of(made, CHAT, row)
    assert (report.used, len(report.dropped)) == ((2, 0) if reason is None else (1, 1))
    assert all(reason in each for each in report.dropped if reason is not None)


def test_thoughts_that_the_template_cuts_are_noted() -> None:
    made = make_byte_tokenizer()
    made.chat_template = (
        "{% for m in messages %}{{ m['role'] + ':' + m['content'].split('</think>')[-1] + eos_token }}{% endfor %}"
        "{{ 'assistant:' if add_generation_prompt }}"
    )
    report = report_of(made, {"messages": [said("user", "q"), said("assistant", "<think>hm</think>x")]}, CHAT)
    assert report.lines() == ["2 of 2 rows used", "the template leaves out thoughts of the assistant: 1 (rows:0)"]


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ':' + m['content'] + eos_token }}{% endfor %}"
    "{{ '<|im_start|>assistant:' if add_generation_prompt }}"
)


def chatml() -> Any:
    made = make_byte_tokenizer()
    made.chat_template = CHATML
    return made


def test_a_role_that_the_template_writes_as_it_is_spelled_is_noted_with_the_cure() -> None:
    odd = {"messages": [said("user", "q"), said("moderator", "calm"), said("assistant", "x")]}
    report = report_of(chatml(), CHAT, odd, odd)
    assert report.lines() == [
        "3 of 3 rows used",
        "a message has a role that the template does not name, and stands in the text all the same: 2 (rows:1, :2); "
        "the first: role 'moderator'; rename it to one of user, assistant, system, tool",
    ]
    pair = {"chosen": odd["messages"], "rejected": [said("user", "q"), said("assistant", "y")]}
    paired = encode_part("rows", [Row("rows:0", pair)], chatml(), TokeniseOptions("pairs", 1000)).report
    assert [tally.example for tally in paired.noted.values() if tally.example] == [
        "role 'moderator'; rename it to one of user, assistant, system, tool"
    ]


@pytest.mark.parametrize("role", ["bot", "gpt", "Human", "prompter", "developer", "observation", "user", "tool"])
def test_roles_of_the_usual_data_sets_are_mapped_and_not_noted(role: str) -> None:
    report = report_of(chatml(), {"messages": [said("user", "q"), said(role, "z"), said("assistant", "x")]})
    assert report.lines() == ["1 of 1 rows used"]


def test_a_role_that_the_template_names_is_its_own() -> None:
    made = chatml()
    made.chat_template = "{# ipython is what a tool prints #}" + CHATML
    assert report_of(made, {"messages": [said("user", "q"), said("ipython", "1"), said("assistant", "x")]}).noted == {}


@pytest.mark.parametrize("template", ["tulu", "olmo", "zephyr"])
def test_a_role_that_a_named_template_refuses_is_counted_with_the_cure(template: str) -> None:
    made = make_byte_tokenizer()
    apply_template(made, template)
    odd = {"messages": [said("user", "q"), said("moderator", "calm"), said("assistant", "x")]}
    (reason,) = report_of(made, CHAT, odd).dropped
    assert reason == (
        "the template refuses it: a turn of the role moderator has no place in it "
        "(rename the role to one of user, assistant, system, tool, or set another template)"
    )


def test_a_conversation_whose_answers_have_an_odd_role_says_so() -> None:
    report = report_of(chatml(), CHAT, {"messages": [said("user", "q"), said("helper", "x")]})
    assert report.lines()[1] == (
        "dropped, no assistant turn: 1 (rows:1); the first: role helper; the turns to train are those of assistant"
    )
