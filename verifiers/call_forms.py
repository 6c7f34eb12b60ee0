"""Reading calls of tools in the spellings of the common models: tags, XML, JSON and Python."""

import ast
import re
from collections.abc import Callable
from typing import Any

from tulu.verifiers.json_text import BadJson, fenced_blocks, strict_json, unfenced, values_in

Call = tuple[str, dict[str, Any]]
"""Name and arguments of a call."""
_LONGEST_PYTHON = 20_000
"""Characters of calls in Python's syntax that are read."""
_NAMES = ("name", "tool", "tool_name", "function_name", "action")
_ARGUMENTS = ("arguments", "parameters", "args", "kwargs", "input", "tool_input", "action_input")
_FUNCTION = re.compile(r"<function=([\w.\-]+)>(.*?)(?:</function>|\Z)", re.DOTALL)  # <function=f>{"a": 1}</function>
_PARAMETER = re.compile(r"<parameter=([\w.\-]+)>\n?(.*?)\n?</parameter>", re.DOTALL)  # <parameter=a>1</parameter>
_INVOKE = re.compile(r"<invoke\s+name=\"([\w.\-]+)\"\s*>(.*?)</invoke>", re.DOTALL)  # <invoke name="f">…</invoke>
_INVOKE_PARAMETER = re.compile(r"<parameter\s+name=\"([\w.\-]+)\"[^<>]*>\n?(.*?)\n?</parameter>", re.DOTALL)
_KEYED = re.compile(r"\s*([\w.\-]+)\s*(?:<arg_key>|\Z)")  # GLM: f<arg_key>a</arg_key><arg_value>1</arg_value>
_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_MISTRAL = re.compile(r"\s*([\w.\-]+)\s*(?:\[CALL_ID\][\w-]*)?\[ARGS\]\s*", re.DOTALL)  # f[ARGS]{"a": 1}
_LOOKS_LIKE_A_CALL = re.compile(
    # <tool_call>, </tool_calls>, <|tool_call|>, <｜tool▁calls▁begin｜>, <function_calls>
    r"<[|｜/]*\s*(?:tool|function)[_▁\s-]?(?:calls?|use|code)|<[|｜]tool|<function[=\s>]|</function>|<invoke\b|<parameter[=\s]|"
    r"\[TOOL_CALLS?\]|<\|python_tag\|>|<\|channel\|>commentary to=|<\|action_start\|>|<start_function_call>|"
    # {"tool_calls": …}, {"function_call": …}; a fence ```tool_code
    r"[\"']?\b(?:tool_calls?|function_calls?)[\"']?\s*:|```tool_\w+|"
    # ReAct's "Action: f" with "Action Input:"
    r"^\s*Action Input\s*:",
    re.IGNORECASE | re.MULTILINE,
)


class Untyped(str):
    """An argument that stands in XML, where nothing tells the text 2 from the number 2."""

    __slots__ = ()

    def value(self) -> Any:
        """The value that the text is JSON or a Python literal of, else the text."""
        try:
            return strict_json(self.strip())
        except BadJson:
            try:
                return ast.literal_eval(self.strip()) if len(self) < _LONGEST_PYTHON else str(self)
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                return str(self)


def parse_call(entry: Any) -> Call:
    """The name and the arguments of a call that is an object; ValueError where it is no call."""
    if isinstance(entry, dict):
        for key in ("function", "function_call", "tool_call"):
            if isinstance(entry.get(key), dict):
                entry = entry[key]
    if not isinstance(entry, dict):
        raise ValueError("a call is an object")
    keys = (*_NAMES, "function") if isinstance(entry.get("function"), str) else _NAMES
    name = next((entry[key] for key in keys if isinstance(entry.get(key), str)), None)
    if name is None:
        raise ValueError("a call has a name")
    values = next((entry[key] for key in _ARGUMENTS if key in entry), {})
    values = strict_json(values) if isinstance(values, str) and values.strip() else values or {}
    if not isinstance(values, dict):
        raise ValueError("arguments must be an object")
    return name, values


def _looks_like_call(value: Any) -> bool:
    """Whether an object is a call or wraps calls, and is no other data that happens to have a name."""
    if not isinstance(value, dict):
        return False
    if any(key in value for key in ("tool_calls", "function_call", "tool_call")):
        return True
    if isinstance(value.get("function"), dict):
        return _looks_like_call(value["function"])
    named = any(isinstance(value.get(key), str) for key in (*_NAMES, "function"))
    return named and any(key in value for key in _ARGUMENTS)


def _json_calls(value: Any) -> list[Call]:
    """The calls of a JSON value: one, a list of them, or OpenAI's message {"tool_calls": [...]}."""
    if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        return [parse_call(entry) for entry in value["tool_calls"]]
    return [parse_call(entry) for entry in (value if isinstance(value, list) else [value])]


def _python_calls(text: str) -> list[Call]:
    """Calls in Python's syntax with literal keyword arguments, f(a=1), one a line or a list of them; ValueError otherwise."""
    if len(text) > _LONGEST_PYTHON:
        raise ValueError("too long")
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, RecursionError, MemoryError, ValueError) as fault:
        raise ValueError(str(fault)) from fault
    calls: list[Call] = []
    for statement in body:
        tree = statement.value if isinstance(statement, ast.Expr) else None
        for node in tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]:
            if not isinstance(node, ast.Call) or node.args or any(keyword.arg is None for keyword in node.keywords):
                raise ValueError("a call takes keyword arguments")
            if not _is_dotted_name(node.func):
                raise ValueError("a call has a name")
            arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
            calls.append((ast.unparse(node.func), arguments))
    if not calls:
        raise ValueError("no call")
    return calls


def _is_dotted_name(node: ast.expr) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


def _xml_calls(text: str) -> list[Call]:
    """Calls in XML: Qwen3-Coder's and Llama's `<function=f>`, or `<invoke name="f">`; none where there are none."""
    calls: list[Call] = []
    for name, body in _FUNCTION.findall(text):
        pairs = _PARAMETER.findall(body)
        if not pairs and body.strip():
            calls.append(parse_call({"name": name, "arguments": strict_json(body.strip())}))
        else:
            calls.append((name, {key: Untyped(value) for key, value in pairs}))
    for name, body in _INVOKE.findall(text):
        calls.append((name, {key: Untyped(value) for key, value in _INVOKE_PARAMETER.findall(body)}))
    return calls


def _any_calls(text: str) -> list[Call]:
    """The calls of a text that is nothing but calls, as XML, JSON or Python; ValueError where it is something else."""
    if calls := _xml_calls(text):
        return calls
    inner = unfenced(text)
    try:
        value = strict_json(inner)
    except BadJson:
        return _python_calls(inner)
    return _json_calls(value)


def _tool_call_block(body: str) -> list[Call]:
    keyed = _KEYED.match(body)
    if keyed:
        return [(keyed[1], {key.strip(): Untyped(value) for key, value in _PAIR.findall(body)})]
    return _any_calls(body)


def _mistral_calls(body: str) -> list[Call]:
    named = _MISTRAL.match(body)
    if named:
        return [parse_call({"name": named[1], "arguments": strict_json(body[named.end() :].strip())})]
    return _any_calls(body)


def _python_tag_calls(body: str) -> list[Call]:
    body = re.sub(r"<\|(?:eom|eot)_id\|>\s*\Z", "", body).strip()
    try:
        # Llama separates several calls by semicolons.
        return [call for part in re.split(r";\s*(?=\{)", body) for call in _json_calls(strict_json(part.strip()))]
    except BadJson:
        # `brave_search.call(query="x")` calls brave_search.
        return [(name.removesuffix(".call"), arguments) for name, arguments in _python_calls(body)]


def _deepseek_call(body: str) -> list[Call]:
    name, _, arguments = body.partition("<｜tool▁sep｜>")[2].partition("\n")
    return [parse_call({"name": name.strip(), "arguments": strict_json(unfenced(arguments))})]


_TAGGED: tuple[tuple[re.Pattern[str], Callable[[str], list[Call]]], ...] = (
    (re.compile(r"<tool_calls?>(.*?)(?:</tool_calls?>|\Z)", re.DOTALL), _tool_call_block),
    (re.compile(r"<function_calls>(.*?)(?:</function_calls>|\Z)", re.DOTALL), _any_calls),
    (re.compile(r"\[TOOL_CALLS\](.*?)(?=\[TOOL_CALLS\]|\Z)", re.DOTALL), _mistral_calls),
    (re.compile(r"<\|python_tag\|>(.*?)(?=<\|python_tag\|>|\Z)", re.DOTALL), _python_tag_calls),
    (re.compile(r"<\|tool_call\|>(.*?)(?:<\|/?tool_call\|>|\Z)", re.DOTALL), _any_calls),
    (re.compile(r"<｜tool▁call▁begin｜>(.*?)<｜tool▁call▁end｜>", re.DOTALL), _deepseek_call),
    (re.compile(r"(<function=.*?(?:</function>|\Z))", re.DOTALL), _xml_calls),
    (re.compile(r"(<invoke\b.*?</invoke>)", re.DOTALL), _xml_calls),
)
"""The marks around calls, and how what stands between them is read."""
_WRAPPERS = re.compile(r"</?s>|<｜tool▁calls▁(?:begin|end)｜>|</?tool_calls>|<\|(?:eom|eot|im_end)(?:_id)?\|>")
"""Marks that hold nothing but calls, and the ends of turns."""


def calls_in(text: str) -> list[Call]:
    """Every call of a text; none where nothing looks like one. ValueError where something does, but cannot be read."""
    calls: list[Call] = []
    for pattern, read in _TAGGED:
        for match in pattern.finditer(text):
            made = read(match[1].strip())
            if not made:
                raise ValueError("a mark of calls without a call")
            calls += made
        text = pattern.sub(" ", text) if pattern.groups else text
    text = _WRAPPERS.sub(" ", text).strip()
    return calls + (_bare_calls(text) if text else [])


def _bare_calls(text: str) -> list[Call]:
    """The calls of a text that stand in it without any mark, as JSON or Python."""
    try:
        value = strict_json(unfenced(text))
    except BadJson:
        pass
    else:
        wraps = _looks_like_call(value) or (isinstance(value, list) and any(isinstance(entry, dict) for entry in value))
        return _json_calls(value) if wraps or (isinstance(value, dict) and "name" in value) else []
    calls = []
    for value in values_in(text):
        entries = value if isinstance(value, list) else [value]
        if any(map(_looks_like_call, entries)):
            calls += _json_calls(value)
    if not calls:
        calls = _python_lines(text)
    if not calls and _LOOKS_LIKE_A_CALL.search(text):
        raise ValueError("something looks like a call")
    return calls


def _python_lines(text: str) -> list[Call]:
    """The calls of a text or a fenced block that is nothing but calls in Python, or of its lines that are."""
    for part in (text, *(block for _, block in fenced_blocks(text))):
        try:
            return _python_calls(part)
        except ValueError:
            continue
    calls: list[Call] = []
    for line in text[-_LONGEST_PYTHON:].splitlines():
        line = line.strip().strip("`")
        if not line.endswith((")", ")]")) or "(" not in line:
            continue
        try:
            calls += _python_calls(line)
        except ValueError:
            continue
    return calls
