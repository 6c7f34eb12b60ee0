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


def unfenced(text: str) -> str:
    """The content of the last fenced block (```json … ```) of a text, else the text itself; stripped."""
    end = text.rfind(_FENCE)
    start = text.rfind(_FENCE, 0, max(end, 0))
    if end < 0 or start < 0:
        return text.strip()
    block = text[start + len(_FENCE) : end]
    first, newline, rest = block.partition("\n")
    return (rest if newline and first.strip().isalnum() else block).strip()


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
