"""Reading JSON that a model wrote: a whole text as strict JSON, or every value inside a longer text; always within limits."""

import json
import re
from itertools import accumulate
from typing import Any

LIMIT = 200_000
"""Characters of a text that are read."""
_DEPTH = 100
"""Brackets that may be open at once."""
_STARTS = 2_000
"""Brackets of a text at which reading a value is tried."""
_MOST_TOO_DEEP = 10
"""Values nested too deep for Python, after which a text is given up."""
_FENCE = "```"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""A string of JSON, such as `"a \\"b\\" c"`, or what there is of one that never ends."""


_LABEL = re.compile(r"\s*(?:json|sql|sqlite|python|py)\b", re.IGNORECASE)
"""The label of a block that stands on one line: ```json {"a": 1}```."""


class BadJson(ValueError):
    """A text is not strict JSON; the message says why."""


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise BadJson("an object repeats a key")
    return value


def _refuse_constant(name: str) -> Any:
    raise BadJson(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_refuse_repeated_keys, parse_constant=_refuse_constant)


def strict_json(text: str) -> Any:
    """The value of a text that is JSON and nothing else; BadJson for repeated keys, NaN, and a text too long or too deep."""
    if len(text) > LIMIT:
        raise BadJson(f"{len(text)} characters")
    if _too_deep(text):
        raise BadJson(f"nested deeper than {_DEPTH}")
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as fault:
        raise BadJson(str(fault)[:200]) from fault


def _too_deep(text: str) -> bool:
    """Whether more brackets are open at once than are read; brackets inside strings do not count."""
    steps = ((character in "[{") - (character in "]}") for character in _STRING.sub("", text))
    return max(accumulate(steps), default=0) > _DEPTH


def fenced_blocks(text: str) -> list[tuple[str, str]]:
    """Label and content of every fenced block (```json … ```) of a text; a fence stands at the start of its line."""
    blocks: list[tuple[str, str]] = []
    opened: list[str] | None = None
    label = ""
    for line in text.split("\n"):
        stripped = line.strip()
        if opened is None:
            if stripped.startswith(_FENCE) and _FENCE not in stripped[3:]:
                opened, label = [], stripped[3:].strip().lower()
        elif stripped.startswith(_FENCE):
            blocks.append((label, "\n".join(opened)))
            opened = None
        elif stripped.endswith(_FENCE):
            blocks.append((label, "\n".join([*opened, line.rstrip()[:-3]])))
            opened = None
        else:
            opened.append(line)
    return blocks


def unfenced(text: str) -> str:
    """The content of the last fenced block of a text, or of a text that is one on a single line; else the text; stripped."""
    if blocks := fenced_blocks(text):
        return blocks[-1][1].strip()
    text = text.strip()
    if len(text) > 2 * len(_FENCE) and text.startswith(_FENCE) and text.endswith(_FENCE) and _FENCE not in text[3:-3]:
        return _LABEL.sub("", text[3:-3], count=1).strip()
    return text


def strict_json_in(text: str) -> Any:
    """The value of a text that is strict JSON as a whole, or whose last fenced block is; BadJson where neither is."""
    try:
        return strict_json(text.strip())
    except BadJson as fault:
        inner = unfenced(text)
        if inner == text.strip():
            raise fault
        return strict_json(inner)


def values_in(text: str) -> list[Any]:
    """Every complete JSON object or array in a text, in order; those inside others are not listed by themselves."""
    text = text[-LIMIT:]
    values: list[Any] = []
    position = too_deep = 0
    for _ in range(_STARTS):
        starts = [start for start in (text.find("{", position), text.find("[", position)) if start >= 0]
        if not starts:
            break
        try:
            value, position = _DECODER.raw_decode(text, min(starts))
            values.append(value)
        except ValueError:
            position = min(starts) + 1
        except RecursionError:
            position = min(starts) + 1
            too_deep += 1
            if too_deep > _MOST_TOO_DEEP:
                break
    return values
