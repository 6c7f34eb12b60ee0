"""Conversations in the spelling that a template reads, on the same day always."""

from importlib.resources import files
from typing import Any

import pytest

from tests.data.template_rows import ROWS, tokenizer_of
from tulu.data.chat import encode_batch, encode_prompts
from tulu.data.render import Refused, Renderer
from tulu.types import Message


def renderer_of(template: str) -> Renderer:
    return Renderer(tokenizer_of(template))


def with_call(arguments: Any) -> list[Message]:
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": arguments}}
    return [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "It is 2."},
    ]


CALLING = [row for row in ROWS if row.takes_calls]


@pytest.mark.parametrize("row", CALLING, ids=[row.name for row in CALLING])
def test_arguments_as_text_and_as_an_object_are_both_rendered(row: Any) -> None:
    """Templates that want text refuse an object, and the reverse; some leave a call out whose content is not None."""
    renderer = Renderer(row.tokenizer())
    for arguments in ({"x": 17}, '{"x": 17}'):
        rendering = renderer.whole(with_call(arguments))
        assert rendering.left_out == ()
        assert "17" in rendering.text


def test_the_spelling_in_which_least_is_left_out() -> None:
    renderer = renderer_of(
        "{% for m in messages %}{% if m.content is none %}{% for c in m.tool_calls %}[{{ c.function.name }}"
        "{{ c.function.arguments + '' }}]{% endfor %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    assert renderer.whole(with_call({"x": 1})).text == '1+1[add{"x": 1}]2It is 2.'
    with pytest.raises(Refused, match="no attribute"):
        renderer_of("{{ messages[0].content.nothing.more }}").whole(with_call({}))


def test_contents_as_parts() -> None:
    parts = "{% for m in messages %}{% for part in m.content %}{{ part.text }};{% endfor %}{% endfor %}"
    chat: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert renderer_of(parts).whole(chat).text == "a;b;"
    # A template that takes text is never given a list, whatever it leaves out.
    assert renderer_of("{% for m in messages if m.role != 'user' %}{{ m.content }}{% endfor %}").whole(chat).text == "b"


def test_today_is_the_same_day_always() -> None:
    chat: list[Message] = [{"role": "user", "content": "a"}]
    assert renderer_of("{{ strftime_now('%Y-%m-%d') }}").text(chat) == "2024-07-26"
    llama = files("trl").joinpath("chat_templates", "llama3_1.jinja").read_text(encoding="utf-8")
    assert "Today Date: 26 Jul 2024" in renderer_of(llama).text(chat)


def test_a_template_of_its_own_for_tools() -> None:
    tokenizer: Any = tokenizer_of("")
    tokenizer.chat_template = {"default": "plain", "tool_use": "tools"}
    chat: list[Message] = [{"role": "user", "content": "a"}]
    renderer = Renderer(tokenizer)
    assert [renderer.text(chat), renderer.text(chat, [{"name": "f"}]), renderer.text(chat)] == ["plain", "tools", "plain"]


@pytest.mark.parametrize(
    "extra",
    [
        {"tool_calls": [{"function": {"name": "f", "arguments": {"q": "half \ud83d"}}}]},
        {"tool_calls": [{"function": {"name": "f", "arguments": {"\udc00": 1}}}]},
        {"reasoning_content": "\ud800"},
    ],
)
def test_half_a_surrogate_pair_in_any_field_is_a_reason(extra: dict[str, Any]) -> None:
    tokenizer = tokenizer_of("{% for m in messages %}{{ m | tojson }}{% endfor %}{{ tools | tojson }}")
    good: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    bad: list[Any] = [good[0], {**good[1], **extra}]
    for encoded in (encode_batch(tokenizer, [good, bad, good], "all"), encode_prompts(tokenizer, [good, bad, good])):
        assert "half a surrogate pair (\\ud" in encoded[1].problem
        assert not encoded[1].tokens
        assert encoded[0].tokens == encoded[2].tokens != []
    tools = [{"name": "f", "description": "\udfff"}]
    assert "half a surrogate pair" in encode_batch(tokenizer, [good], "all", [tools])[0].problem
