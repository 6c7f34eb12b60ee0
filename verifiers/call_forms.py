"""Reading calls of tools in the spellings of the common models: tags, XML, JSON and Python."""

import ast
import re
from collections.abc import Callable, Iterator
from typing import Any

from tulu.verifiers.json_text import BadJson, fenced_blocks, strict_json, unfenced, values_in

Call = tuple[str, dict[str, Any]]
"""Name and arguments of a call."""
_LONGEST_PYTHON = 20_000
"""Characters of calls in Python's syntax that are read."""
_NAMES = ("name", "tool", "tool_name", "function_name", "action")
_ARGUMENTS = ("arguments", "parameters", "args", "kwargs", "input", "tool_input", "action_input")
_FUNCTION = re.compile(r"<function=([\w.\-]+)>")  # <function=f>{"a": 1}</function>
_PARAMETER = re.compile(r"<parameter=([\w.\-]+)>")  # <parameter=a>1</parameter>
_INVOKE = re.compile(r"<invoke\s+name=\"([\w.\-]+)\"\s*>")  # <invoke name="f">…</invoke>
_INVOKE_PARAMETER = re.compile(r"<parameter\s+name=\"([\w.\-]+)\"[^<>]*>")  # <parameter name="a">1</parameter>
_KEYED = re.compile(r"\s*([\w.\-]+)\s*(?:<arg_key>|\Z)")  # GLM: f<arg_key>a</arg_key><arg_value>1</arg_value>
_ARGUMENT_KEY = re.compile(r"<arg_key>([^<]*)</arg_key>\s*<arg_value>")
_MISTRAL = re.compile(r"\s*([\w.\-]+)\s*(?:\[CALL_ID\][\w-]*)?(?:\[ARGS\]\s*|(?=\{))")  # f[ARGS]{"a": 1}
_LOOKS_LIKE_A_CALL = re.compile(
    # <tool_call>, </tool_calls>, <|tool_call|>, <｜tool▁calls▁begin｜>, <function_calls>
    r"<[|｜/]*\s*(?:tool|function)[_▁\s-]?(?:calls?|use|code)|<[|｜]tool|<function[=\s>]|</function>|<invoke\b|<parameter[=\s]|"
    r"\[TOOL_CALLS?\]|<\|python_tag\|>|<\|channel\|>commentary to=|<\|action_start\|>|<start_function_call>|"
    # {"tool_calls": …}, {"function_call": …}; a fence ```tool_code
    r"[\"']?\b(?:tool_calls?|function_calls?)[\"']?\s*:|```tool_\w+|"
    # ReAct's "Action: f" with "Action Input:"
    r"^\s*Action Input\s*:|"
    # A call with a keyword in prose or code: f(a=1)
    r"\b[a-z_][\w.]*\(\s*[a-z_]\w*\s*=\s*[\"'\d\[{tfn-]",
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
    values: Any = next((entry[key] for key in _ARGUMENTS if key in entry), {})
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


def _between(text: str, opening: re.Pattern[str], closing: str, may_end: bool = False) -> Iterator[tuple[re.Match[str], str]]:
    """Each opening mark of a text and what stands up to the next closing one (or, where `may_end`, up to the end of the text)."""
    match = opening.search(text)
    while match:
        end = text.find(closing, match.end())
        if end < 0:
            if may_end:
                yield match, text[match.end() :]
            return
        yield match, text[match.end() : end]
        match = opening.search(text, end + len(closing))


def _untyped(text: str, opening: re.Pattern[str], closing: str) -> dict[str, Any]:
    """The arguments that stand between the marks of a text; a line break after and before a mark is no part of them."""
    pairs = _between(text, opening, closing)
    return {match[1].strip(): Untyped(value.removeprefix("\n").removesuffix("\n")) for match, value in pairs}


def _xml_calls(text: str) -> list[Call]:
    """Calls in XML: Qwen3-Coder's and Llama's `<function=f>`, or `<invoke name="f">`; none where there are none."""
    calls: list[Call] = []
    for match, body in _between(text, _FUNCTION, "</function>", may_end=True):
        arguments = _untyped(body, _PARAMETER, "</parameter>")
        if not arguments and body.strip():
            calls.append(parse_call({"name": match[1], "arguments": strict_json(body.strip())}))
        else:
            calls.append((match[1], arguments))
    for match, body in _between(text, _INVOKE, "</invoke>"):
        calls.append((match[1], _untyped(body, _INVOKE_PARAMETER, "</parameter>")))
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
        return [(keyed[1], _untyped(body, _ARGUMENT_KEY, "</arg_value>"))]
    return _any_calls(body)


def _mistral_calls(body: str) -> list[Call]:
    named = _MISTRAL.match(body)
    if named:
        return [parse_call({"name": named[1], "arguments": strict_json(body[named.end() :].strip())})]
    return _any_calls(body)


def _python_tag_calls(body: str) -> list[Call]:
    try:
        # Llama separates several calls by semicolons.
        return [call for part in re.split(r";\s*(?=\{)", body) for call in _json_calls(strict_json(part.strip()))]
    except BadJson:
        # `brave_search.call(query="x")` calls brave_search.
        return [(name.removesuffix(".call"), arguments) for name, arguments in _python_calls(body)]


def _deepseek_call(body: str) -> list[Call]:
    name, _, arguments = body.partition("<｜tool▁sep｜>")[2].partition("\n")
    return [parse_call({"name": name.strip(), "arguments": strict_json(unfenced(arguments))})]


_TAGGED: tuple[tuple[str, str, bool, Callable[[str], list[Call]]], ...] = (
    (r"<tool_call>", "</tool_call>", True, _tool_call_block),
    (r"<function_calls>", "</function_calls>", True, _any_calls),
    (r"\[TOOL_CALLS\]", "[TOOL_CALLS]", True, _mistral_calls),
    (r"<\|python_tag\|>", "<|python_tag|>", True, _python_tag_calls),
    (r"<\|tool_call\|>", "<|tool_call|>", True, _any_calls),
    (r"<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", False, _deepseek_call),
    (r"(?=<function=)", "</function>", True, _xml_calls),
    (r"(?=<invoke\s)", "</invoke>", False, lambda body: _xml_calls(body + "</invoke>")),
)
"""The marks around calls, whether the closing one may be missing, and how what stands between them is read."""
_TAGS = tuple((re.compile(opening), closing, may_end, read) for opening, closing, may_end, read in _TAGGED)
_WRAPPERS = re.compile(r"</?s>|<｜tool▁calls▁(?:begin|end)｜>|</?tool_calls>|<\|(?:eom|eot|im_end)(?:_id)?\|>")
"""Marks that hold nothing but calls, and the ends of turns."""


def calls_in(text: str) -> list[Call]:
    """Every call of a text; none where nothing looks like one. ValueError where something does, but cannot be read."""
    calls: list[Call] = []
    text = _WRAPPERS.sub(" ", text)
    for opening, closing, may_end, read in _TAGS:
        rest, end = [], 0
        for match, body in _between(text, opening, closing, may_end):
            made = read(body.strip())
            if not made:
                raise ValueError("a mark of calls without a call")
            calls += made
            rest.append(text[end : match.start()])
            # Mistral's and Llama's mark opens the next call where it closes one.
            end = match.end() + len(body) + len(closing)
        text = " ".join([*rest, text[end:]])
    text = text.strip()
    return calls + (_bare_calls(text) if text else [])


def _bare_calls(text: str) -> list[Call]:
    """The calls of a text that stand in it without any mark, as JSON or Python."""
    value = _data(unfenced(text))
    if value is not None:
        entries = value if isinstance(value, list) else [value]
        return _json_calls(value) if any(map(_looks_like_call, entries)) or any(map(_is_only_named, entries)) else []
    calls = []
    for value in values_in(text):
        if any(map(_looks_like_call, value if isinstance(value, list) else [value])):
            calls += _json_calls(value)
    calls = calls or _python_lines(text)
    if not calls and (_LOOKS_LIKE_A_CALL.search(text) or _is_python_call(text)):
        raise ValueError("something looks like a call")
    return calls


def before_calls(text: str) -> str:
    """What stands before the first call of a text, in whatever spelling."""
    found = _LOOKS_LIKE_A_CALL.search(text)
    return text[: found.start()] if found else text


def _data(text: str) -> Any:
    """The value of a text that is JSON or a Python literal; None where it is neither, and where it is null."""
    try:
        return strict_json(text)
    except BadJson:
        if len(text) > _LONGEST_PYTHON or not text.startswith(("{", "[")):
            return None
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return None


def _is_only_named(value: Any) -> bool:
    """Whether an object is a call without arguments: it has a name and nothing else that matters."""
    return isinstance(value, dict) and isinstance(value.get("name"), str) and value.keys() <= {"name", "type", "id"}


def _is_python_call(text: str) -> bool:
    """Whether a text is nothing but a call in Python's syntax, whatever its arguments."""
    if len(text) > _LONGEST_PYTHON:
        return False
    try:
        return isinstance(ast.parse(text.strip(), mode="eval").body, ast.Call)
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        return False


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
