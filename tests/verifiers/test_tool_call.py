# ruff: noqa: E501 (many short cases)
"""Calls in the spellings of many models: read where they can be, and never taken for no call."""

import time

import pytest

from tulu.verifiers.registry import VERIFIERS

TOOL_CALL = VERIFIERS["tool_call"]
EXPECTED = [{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}]
READ = [
    '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}</tool_call>',
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}\n</tool_call>',
    '<tool_call>[{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}]</tool_call>',
    '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}',
    '{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}',
    '[{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}]',
    '```json\n{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}\n```',
    'Sure!\n```json\n{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}\n```',
    "[get_weather(city='Rome', days=2)]",
    "get_weather(city='Rome', days=2)",
    "```python\nget_weather(city='Rome', days=2)\n```",
    "I'll look.\nget_weather(city='Rome', days=2)",
    '<function_calls>\n[{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}]\n</function_calls>',
    "<function_calls>get_weather(city='Rome', days=2)</function_calls>",
    '<function_calls>\n<invoke name="get_weather">\n<parameter name="city">Rome</parameter>\n<parameter name="days">2</parameter>\n</invoke>\n</function_calls>',
    '<invoke name="get_weather"><parameter name="city">Rome</parameter><parameter name="days">2</parameter></invoke>',
    '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}]',
    '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}]</s>',
    '[TOOL_CALLS]get_weather[ARGS]{"city": "Rome", "days": 2}',
    '[TOOL_CALLS]get_weather{"city": "Rome", "days": 2}',
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>",
    "<function=get_weather>\n<parameter=city>Rome</parameter><parameter=days>2</parameter></function>",
    '<function=get_weather>{"city": "Rome", "days": 2}</function>',
    '<|python_tag|>{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}',
    '<|python_tag|>{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}<|eom_id|>',
    '<|python_tag|>get_weather.call(city="Rome", days=2)',
    '<|python_tag|>{"type":"function","name":"get_weather","parameters":{"city": "Rome", "days": 2}}',
    '{"tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\", \\"days\\": 2}"}}]}',
    '{"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\", \\"days\\": 2}"}}]}',
    '{"function_call": {"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\", \\"days\\": 2}"}}',
    '[{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}}]',
    '{"type": "function", "function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\", \\"days\\": 2}"}}',
    '{"name": "get_weather", "parameters": {"city": "Rome", "days": 2}}',
    '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}]',
    '<think>hm</think>\n<tool_call>{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}</tool_call>',
    'I will check the weather.\n<tool_call>{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}</tool_call>\n',
    "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "Rome", "days": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    '<tools>{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}</tools>',
    '`get_weather(city="Rome", days=2)`',
    "{'name': 'get_weather', 'arguments': {'city': 'Rome', 'days': 2}}",
    "```tool_code\nget_weather(city='Rome', days=2)\n```",
    '<TOOL_CALL>{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}</TOOL_CALL>',
    '<toolcall>{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}</toolcall>',
    '<tool_use>{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}</tool_use>',
    'tool_calls: [{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}]',
]
"""The expected call in spellings that are read."""
UNREAD = [
    "<tool_code>get_weather(city='Rome', days=2)</tool_code>",
    'Action: get_weather\nAction Input: {"city": "Rome", "days": 2}',
    "<start_function_call>call:get_weather{city:Rome}",
    '<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Rome", "days": 2}<|tool_call_end|><|tool_calls_section_end|>',
    '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome", "days": 2}<|call|>',
    "print(get_weather(city='Rome', days=2))",
    "x = get_weather(city='Rome', days=2)",
    'Call get_weather(city="Rome", days=2) now',
    "get_weather('Rome', 2)",
    "<tool_call></tool_call>",
    "<tool_call>{}</tool_call>",
    "<function_calls></function_calls>",
    "[TOOL_CALLS]",
    "[TOOL_CALLS] []",
    "<|python_tag|>",
    "<tool_call>[]</tool_call>",
]
"""What looks like a call and cannot be read, or is not the expected one."""
NO_CALL = [
    "Hello!", "No tool helps here.", "Use len(x) to get the length.", '{"name": "Ann", "age": 3}', "The set {1,2} and [3]", "I can call (555) 1234.",
    "f(x) = x + 1", "In Python, `print(x)` shows x.", "[1, 2]", "Tool use is fun", '{"answer": 3}', "```python\nprint('x')\n```", "That is it (see above)",
]  # fmt: skip
NOTHING = [
    "",
    " ",
    "\n",
    "\u200b",
    "\ufeff",
    "\u2800",
    "\u3164",
    "\u0301",
    "<think>x",
    "<think>x</think>",
    "<thinking>x</thinking>\u200b",
    "<think>x</think>\n",
]


@pytest.mark.parametrize("completion", READ)
def test_every_spelling_is_read(completion: str) -> None:
    assert TOOL_CALL(completion, EXPECTED).score == 1
    assert TOOL_CALL(completion.replace("Rome", "Oslo"), EXPECTED).score == 0
    assert TOOL_CALL(completion, []).score == 0
    assert TOOL_CALL(completion, EXPECTED * 2).score == 0


@pytest.mark.parametrize("completion", UNREAD)
def test_what_looks_like_a_call_is_not_none(completion: str) -> None:
    assert [TOOL_CALL(completion, gold).score for gold in (EXPECTED, [])] == [0, 0]


@pytest.mark.parametrize("completion", NO_CALL)
def test_an_answer_without_a_call(completion: str) -> None:
    assert [TOOL_CALL(completion, gold).score for gold in (EXPECTED, [])] == [0, 1]


@pytest.mark.parametrize("completion", NOTHING)
def test_nothing_is_no_answer(completion: str) -> None:
    assert [TOOL_CALL(completion, gold).score for gold in (EXPECTED, [])] == [0, 0]


def test_values_of_xml_are_compared_with_the_type_of_the_gold() -> None:
    call = "<function=f>\n<parameter=a>\n{}\n</parameter>\n</function>".format
    pairs = [
        ("2", 2),
        ("2", "2"),
        ("true", True),
        ("True", True),
        ("[1, 2]", [1, 2]),
        ("null", None),
        ("a b", "a b"),
        ('{"x": 1}', {"x": 1}),
    ]
    for text, value in pairs:
        assert TOOL_CALL(call(text), [{"name": "f", "arguments": {"a": value}}]).score == 1
    for text, value in [("2", 3), ("1", True), ("x", "y"), ("", "x"), ("2", [2])]:
        assert TOOL_CALL(call(text), [{"name": "f", "arguments": {"a": value}}]).score == 0


def test_calls_in_two_places_count_together() -> None:
    one = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    assert TOOL_CALL(one + '\n{"name": "g", "arguments": {}}', [{"name": "f", "arguments": {}}]).score == 0
    assert TOOL_CALL(one + "\n<function=g></function>", [{"name": "g"}, {"name": "f"}]).score == 1


def test_hostile_texts_answer_at_once() -> None:
    marks = [
        "<tool_call>",
        "[TOOL_CALLS]",
        "<function=",
        "<invoke ",
        "{",
        "[",
        "f(a=",
        "f(a=1)\n",
        "<parameter=",
        "<function=f>",
        '<invoke name="f">',
        "<arg_key>",
        "<tool_call>f<arg_key>",
        "<function=f><parameter=a>",
    ]
    for mark in marks:
        began = time.process_time()
        assert TOOL_CALL((mark * 190_000)[:190_000], EXPECTED).score == 0
        assert time.process_time() - began < 2, mark
