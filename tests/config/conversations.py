"""Conversations that named templates are held to, in the spellings of open-instruct's data sets and of OpenAI's tools."""

from itertools import product
from typing import Any

CONTENTS = ("Hi.", "", " <b> & 'q' \"\n", "<think>\nHm.\n</think>\n\nYes.", "a</think>b", "<think>", "é 中 {{ x }}")
TOOLS = [
    {
        "type": "function",
        "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}},
    }
]
Asked = dict[str, Any]
"""What a template is given: messages, tools, and whether a generation prompt is asked for."""


def turns(roles: str, contents: tuple[str, ...]) -> list[dict[str, Any]]:
    """The messages of roles given by their letters: system, user, assistant, environment, tool."""
    names = {"s": "system", "u": "user", "a": "assistant", "e": "environment", "t": "tool"}
    return [{"role": names[role], "content": contents[index % len(contents)]} for index, role in enumerate(roles)]


def plain(system: bool) -> list[Asked]:
    """Conversations of one turn and of several, with every pair of contents, with and without a system's turn."""
    shapes = ("u", "ua", "uau", "uaua") + (("su", "sua", "suaua") if system else ())
    pairs = product(CONTENTS, CONTENTS)
    return [
        {"messages": turns(shape, pair), "tools": None, "add_generation_prompt": asked}
        for pair in pairs
        for shape in shapes
        for asked in (False, True)
    ]


def with_functions() -> list[Asked]:
    """Functions, their calls and results as open-instruct's data sets hold them: as texts beside the content."""
    chat = turns("suaeaua", ("Be kind.", "Look.", "", "42", "<think>\nHm.\n</think>\n\nDone."))
    chat[0]["functions"], chat[1]["functions"], chat[2]["function_calls"] = (
        '[{"name": "look"}]',
        '[{"name": "see"}]',
        "look(far=1)",
    )
    unsaid = [{key: value for key, value in message.items() if key != "content" or value} for message in chat]
    return [
        {"messages": each, "tools": None, "add_generation_prompt": asked} for each in (chat, unsaid) for asked in (False, True)
    ]


def with_tools() -> list[Asked]:
    """Tools as transformers hands them over, two calls in a turn, and their results."""
    calls = [{"type": "function", "function": {"name": "look", "arguments": given}} for given in ({"far": 1, "at": "é\n"}, {})]
    chats = [turns(shape, ("Be kind.", "Look.", "So:", "42", "Done.")) for shape in ("suatta", "uata", "ua")]
    for chat in chats[:2]:
        next(message for message in chat if message["role"] == "assistant")["tool_calls"] = calls
    return [
        {"messages": chat, "tools": tools, "add_generation_prompt": asked}
        for chat in chats
        for tools in (None, TOOLS)
        for asked in (False, True)
    ]


def asked_of(text: str, system: bool) -> list[Asked]:
    """The conversations that the templates of one text of config/jinja/ can write."""
    more = {"olmo": with_functions(), "olmo3": [*with_functions(), *with_tools()]}
    return [*plain(system), *more.get(text, [])]
