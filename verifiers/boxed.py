"""Finding the last `\\boxed{...}` of a text in linear time, whatever its braces look like."""

import re
from typing import NamedTuple

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(\{|[^\s{])")
"""`\\boxed{` or `\\fbox 7`; the group is the brace, or the first character of the content."""

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
"""A brace, or a backslash and what it escapes."""


class Box(NamedTuple):
    """A box and its place in the text; `content` is None where the box never closes."""

    start: int
    end: int
    content: str | None


def find_closing_brace(text: str, opening: int) -> int | None:
    """Index of the brace that closes the one at `opening`; escaped braces such as `\\{` do not count."""
    depth = 0
    for match in _BRACE.finditer(text, opening):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if not depth:
                return match.start()
    return None


def last_box(text: str) -> Box | None:
    """The `\\boxed` or `\\fbox` that opens last, which may stand inside another; None where there is none."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    match = _BOX.match(text, start)
    if match is None:
        return Box(start, len(text), None)
    if match[1] != "{":
        # `\boxed 17$`: TeX would box the 1 alone, but people mean all up to the end of the formula.
        ends = (text.find("$", start), text.find("\n", start))
        end = min((position for position in ends if position >= 0), default=len(text))
        return Box(start, end, text[match.start(1) : end].strip())
    brace = find_closing_brace(text, match.start(1))
    if brace is None:
        return Box(start, len(text), None)
    return Box(start, brace + 1, text[match.end(1) : brace])
