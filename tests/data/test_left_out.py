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
