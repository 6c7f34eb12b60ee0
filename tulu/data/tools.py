"""Tools and calls of tools as rows spell them: as objects or JSON text, wrapped as OpenAI does or bare, with a table's nulls."""

import json
import math
from collections.abc import Mapping
from typing import Any

from tulu.data.faults import Misfit, Unusable, valid_text

_DEEPEST = 50
"""Levels of nested objects that are read; templates walk them recursively, and no tool has as many."""


def read_tools(value: Any, place: str) -> list[dict[str, Any]]:
    """Schemas of tools as templates take them, {"type": "function", "function": {name, description, parameters}}."""
    entries = _entries(value, place, "tools are no list of schemas")
    return [_read_tool(entry, f"{place}: tool {number}") for number, entry in enumerate(entries, 1)]


def _read_tool(entry: Any, place: str) -> dict[str, Any]:
    schema = json_of(entry)
    if not isinstance(schema, Mapping):
        raise Misfit("tools are no list of schemas", f"{place} holds a {type(entry).__name__}; write {{name, parameters}}")
    schema = without_nulls(schema)
    wrapped = schema if isinstance(schema.get("function"), dict) else {"type": "function", "function": schema}
    function = wrapped["function"]
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise Misfit("a tool has no name", f"{place} has {', '.join(function) or 'nothing'}; write {{name, parameters}}")
    # Tables hold the schema of the parameters as text, because every tool has another.
    parameters = json_of(function.get("parameters"))
    return {**wrapped, "function": {**function, "parameters": parameters}} if isinstance(parameters, Mapping) else wrapped


def read_calls(value: Any, place: str) -> list[dict[str, Any]]:
    """Calls of tools as templates take them, {"type": "function", "function": {name, arguments}}, the arguments an object."""
    entries = _entries(value, place, "tool calls are no list of calls")
    return [_read_call(entry, f"{place}: call {number}") for number, entry in enumerate(entries, 1)]


def _read_call(entry: Any, place: str) -> dict[str, Any]:
    entry = json_of(entry)
    function = entry.get("function", entry) if isinstance(entry, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise Misfit("a tool call has no name", f"{place} holds no name; write {{name, arguments}}")
    # A table's null stands for arguments that are not there; text may spell a null that is meant.
    given: Any = next((function[key] for key in ("arguments", "parameters") if function.get(key) is not None), {})
    arguments = json_of(given.strip() or "{}") if isinstance(given, str) else given or {}
    if not isinstance(arguments, Mapping):
        problem = f"{place}: arguments hold a {type(given).__name__}; write an object, or JSON text of one"
        raise Misfit("a tool call's arguments are no JSON object", problem)
    cleaned = without_nulls(arguments, keep_nulls=isinstance(given, str))
    call = {"type": "function", "function": {"name": valid_text(function["name"]), "arguments": cleaned}}
    return {"id": entry["id"], **call} if isinstance(entry.get("id"), str) else call


def _entries(value: Any, place: str, reason: str) -> list[Any]:
    """The entries of a list, or of JSON text of one; an object alone is one entry."""
    value = json_of(value) if isinstance(value, str) and value.strip() else value or []
    if isinstance(value, Mapping):
        return [value]
    if not isinstance(value, list | tuple):
        raise Misfit(reason, f"{place}: holds a {type(value).__name__}; write a list of objects, or JSON text of one")
    return [entry for entry in value if entry is not None]


def json_of(value: Any) -> Any:
    """What JSON text stands for; any other text, and any other value, is itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except RecursionError:
        raise Unusable("nested too deeply") from None
    except ValueError:
        return value


def without_nulls(value: Any, keep_nulls: bool = False, depth: int = 0) -> Any:
    """The value without the nulls that tables write where a nested object lacks a key that another row's has.

    An object that held nothing but nulls goes with them. Unusable where the value is what no JSON can spell.
    """
    if depth > _DEEPEST:
        raise Unusable("nested too deeply")
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise Unusable("a tool holds a number that is not finite")
    if isinstance(value, list | tuple):
        return [without_nulls(entry, keep_nulls, depth + 1) for entry in value]
    if not isinstance(value, Mapping):
        return value
    cleaned = {valid_text(str(key)): (entry, without_nulls(entry, keep_nulls, depth + 1)) for key, entry in value.items()}
    return {
        key: after
        for key, (before, after) in cleaned.items()
        if keep_nulls or not (before is None or (after == {} and before != {}))
    }
