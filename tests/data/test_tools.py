"""Tools and their calls: every spelling is one, and what a table or a tired writer leaves in them is cleaned or refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tulu.config.schema import Source
from tulu.data.faults import Misfit, Unusable
from tulu.data.formats import parse_conversation
from tulu.data.sources import load_rows
from tulu.data.tools import read_calls, read_tools, without_nulls

ARGUMENTS = {"place": "Bonn", "days": [1, 2]}
CALL = {"type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
SCHEMA: dict[str, Any] = {
    "name": "weather",
    "description": "Tells it.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
}
TOOL = {"type": "function", "function": SCHEMA}


@pytest.mark.parametrize(
    "value",
    [
        [CALL],
        CALL,
        json.dumps([CALL]),
        [json.dumps(CALL)],
        [{"name": "weather", "arguments": ARGUMENTS}],
        {"name": "weather", "parameters": ARGUMENTS},
        [{"name": "weather", "arguments": json.dumps(ARGUMENTS)}],
        [{"function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)}, "type": "function", "index": None}],
        # A table gives every call the arguments of all calls.
        [{"name": "weather", "arguments": {**ARGUMENTS, "unit": None, "at": {"hour": None, "zone": {"name": None}}}}, None],
    ],
)
def test_every_spelling_is_one_call(value: Any) -> None:
    assert read_calls(value, "a.jsonl:1: tool_calls") == [CALL]


def test_rows_of_a_table_have_the_tools_and_arguments_that_they_were_written_with(tmp_path: Path) -> None:
    def chat(name: str, arguments: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
        call = {"type": "function", "function": {"name": name, "arguments": arguments}}
        asked = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        parameters = {"type": "object", "properties": properties}
        return {"messages": asked, "tools": [{"type": "function", "function": {"name": name, "parameters": parameters}}]}

    rows = [
        chat("weather", {"place": {"city": "Bonn"}}, {"place": {"type": "object"}}),
        chat("sum", {"numbers": [1, 2]}, {"numbers": {"type": "array", "items": {"type": "integer"}}}),
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    read = load_rows(Source(name=str(tmp_path / "rows.parquet"), fraction=1.0))
    # The table gave every call a place and numbers, and the answer a call.
    assert read[0].columns["messages"][1]["tool_calls"][0]["function"]["arguments"]["numbers"] is None
    chats = [parse_conversation(row) for row in read]
    assert [{"messages": chat.messages, "tools": chat.tools} for chat in chats[:2]] == rows[:2]
    assert (chats[2].messages, chats[2].tools) == (rows[2]["messages"], ())


def test_ids_of_calls_are_kept_and_calls_may_have_no_arguments() -> None:
    bare = {"type": "function", "function": {"name": "now", "arguments": {}}}
    assert read_calls([{"id": "7", **CALL}], "") == [{"id": "7", **CALL}]
    for arguments in (None, "", " ", {}, "{}", {"x": None}):
        assert read_calls([{"name": "now", "arguments": arguments}], "") == [bare]
    empty: list[Any] = [None, [], "", {}]
    for nothing in empty:
        assert read_calls(nothing, "") == []


def test_a_null_that_text_spells_is_meant() -> None:
    [call] = read_calls([{"name": "f", "arguments": '{"x": null}'}], "")
    assert call["function"]["arguments"] == {"x": None}


@pytest.mark.parametrize(
    "value",
    [
        [SCHEMA],
        SCHEMA,
        json.dumps([SCHEMA]),
        [TOOL],
        [json.dumps(TOOL)],
        json.dumps([TOOL]),
        [SCHEMA | {"parameters": json.dumps(SCHEMA["parameters"])}],
        [{**SCHEMA, "strict": None, "parameters": SCHEMA["parameters"] | {"required": None}}],
        [
            {
                **SCHEMA,
                "parameters": {
                    "type": "object",
                    "properties": {"place": {"type": "string", "enum": None}, "day": {"type": None}},
                },
            }
        ],
    ],
)
def test_every_spelling_is_one_tool(value: Any) -> None:
    assert read_tools(value, "a.jsonl:1: tools") == [TOOL]


@pytest.mark.parametrize(
    ("read", "value", "reason", "text"),
    [
        (
            read_tools,
            "weather, time",
            "tools are no list of schemas",
            "p: holds a str; write a list of objects, or JSON text of one",
        ),
        (read_tools, 3, "tools are no list of schemas", "holds a int"),
        (read_tools, [3], "tools are no list of schemas", "p: tool 1 holds a int"),
        (read_tools, [SCHEMA, {"parameters": {}}], "a tool has no name", "p: tool 2 has parameters; write {name, parameters}"),
        (read_calls, [{"name": 3}], "a tool call has no name", "p: call 1 holds no name"),
        (read_calls, ["weather()"], "a tool call has no name", "p: call 1 holds no name"),
        (read_calls, [{"function": "weather"}], "a tool call has no name", "p: call 1 holds no name"),
        (
            read_calls,
            [{"name": "f", "arguments": "x = 1"}],
            "a tool call's arguments are no JSON object",
            "p: call 1: arguments hold a str",
        ),
        (read_calls, [{"name": "f", "arguments": "[1]"}], "a tool call's arguments are no JSON object", "write an object"),
        (read_calls, [{"name": "f", "arguments": [1]}], "a tool call's arguments are no JSON object", "arguments hold a list"),
    ],
)
def test_misfits_say_where_and_what_to_write(read: Any, value: Any, reason: str, text: str) -> None:
    with pytest.raises(Misfit) as error:
        read(value, "p")
    assert error.value.reason == reason
    assert text in str(error.value)


def deep(levels: int) -> Any:
    return {"x": deep(levels - 1)} if levels else "end"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (deep(60), "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ({"x": float("nan")}, "not finite"),
        ({"x": ["\ud83d"]}, "not valid Unicode"),
        ({"\ud83d": 1}, "not valid Unicode"),
        ('{"x": "\\ud83d"}', "not valid Unicode"),
    ],
)
def test_what_no_template_can_write_is_refused(arguments: Any, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        read_calls([{"name": "f", "arguments": arguments}], "p")


def test_nulls_in_lists_stay_because_no_table_puts_them_there() -> None:
    assert without_nulls({"a": [None, {"b": None, "c": 0}], "d": {}, "e": ""}) == {"a": [None, {"c": 0}], "d": {}, "e": ""}
