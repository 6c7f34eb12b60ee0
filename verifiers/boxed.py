"""Finding `\\boxed{...}` in linear time, however the braces fall."""

import re
from typing import NamedTuple

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(\{|[^\s{])")


class Box(NamedTuple):
    """A box that a text opens; `content` is None where it never closes."""

    start: int
    end: int
    content: str | None


def closing(text: str, opened: int) -> int | None:
    """Index of the brace that closes the one at `opened`; escaped braces do not count."""
    depth, position = 0, opened
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 2
            continue
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if not depth:
                return position
        position += 1
    return None


def last_box(text: str) -> Box | None:
    """The last `\\boxed` or `\\fbox` of a text, inner ones of nested boxes included; None where there is none."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    match = _BOX.match(text, start)
    if match is None:
        return Box(start, len(text), None)
    if match[1] != "{":
        # `\boxed 7$`: TeX takes one token, people mean all up to the end of the formula.
        end = min((at for at in (text.find("$", start), text.find("\n", start)) if at >= 0), default=len(text))
        return Box(start, end, text[match.start(1) : end].strip())
    brace = closing(text, match.start(1))
    if brace is None:
        return Box(start, len(text), None)
    return Box(start, brace + 1, text[match.end(1) : brace])
