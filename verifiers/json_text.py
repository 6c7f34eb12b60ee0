"""Reading JSON that a model wrote: strictly, or the last object in a longer text; always within bounds."""

import json
from typing import Any

LIMIT = 200_000
"""Characters of a completion that are read."""
_DEPTH = 100
_STARTS = 2_000
_FENCE = "```"


class BadJson(ValueError):
    """Text that is no JSON, and why."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadJson("an object repeats a key")
    return found


def _constant(name: str) -> Any:
    raise BadJson(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant)


def strict_json(text: str) -> Any:
    """The value of a text that is JSON and nothing else; BadJson for repeated keys, NaN, and what is too long or deep."""
    if len(text) > LIMIT:
        raise BadJson(f"{len(text)} characters")
    if _too_deep(text):
        raise BadJson(f"nested deeper than {_DEPTH}")
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as fault:
        raise BadJson(str(fault)[:200]) from fault


def _too_deep(text: str) -> bool:
    depth = 0
    inside = escaped = False
    for character in text:
        if inside:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                inside = False
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            if depth > _DEPTH:
                return True
        elif character in "]}":
            depth -= 1
    return False


def unfenced(text: str) -> str:
    """The last fenced block of a text, else the text itself; stripped."""
    end = text.rfind(_FENCE)
    start = text.rfind(_FENCE, 0, max(end, 0))
    if end < 0 or start < 0:
        return text.strip()
    block = text[start + len(_FENCE) : end]
    first, newline, rest = block.partition("\n")
    return (rest if newline and first.strip().isalnum() else block).strip()


def values_in(text: str) -> list[Any]:
    """Every complete object or array that a text holds, outermost ones in order; what does not parse is skipped."""
    text = text[-LIMIT:]
    found: list[Any] = []
    position = tries = 0
    while tries < _STARTS:
        starts = [at for at in (text.find("{", position), text.find("[", position)) if at >= 0]
        if not starts:
            break
        tries += 1
        try:
            value, position = _DECODER.raw_decode(text, min(starts))
            found.append(value)
        except (ValueError, RecursionError):
            position = min(starts) + 1
    return found
