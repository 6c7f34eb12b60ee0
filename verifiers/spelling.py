"""One short answer in its many spellings: `$B$`, `**B.**`, `\\boxed{\\text{B}}` and a fenced B are all B.

What dresses an answer is taken off one layer at a time, and each layer is a spelling of its own, so that an answer whose signs
mean something (`__init__`, `U.S.`) still equals a ground truth that is written in the same way.
"""

import re

from tulu.verifiers.boxed import find_closing_brace
from tulu.verifiers.text import visible_text

_LAYERS = 12
"""Layers that are taken off."""
_LONGEST = 20_000
"""Characters of a text beyond which nothing is taken off."""
_FENCED = re.compile(r"```[\w+-]*\n(.*)\n\s*```", re.DOTALL)  # ```text … ```
_COMMAND = re.compile(r"\\(?:boxed|fbox|text(?:bf|it|rm|tt|sf|normal)?|math(?:bf|it|rm|sf|tt)|emph|mbox|bf|rm)\s*\{")  # \textbf{
_STYLE = re.compile(r"\\(?:displaystyle|textstyle)\b|\\[,;! ]|~")  # \displaystyle; the spaces \, and ~
_PAIRS = (
    ("$$", "$$"),
    ("$", "$"),
    ("\\[", "\\]"),
    ("\\(", "\\)"),
    ("***", "***"),
    ("**", "**"),
    ("__", "__"),
    ("*", "*"),
    ("_", "_"),
    ("```", "```"),
    ("``", "``"),
    ("`", "`"),
)
"""Signs around a text that only show it differently."""


def spellings(text: str) -> list[str]:
    """A text as it stands, and with one layer of dress after the other taken off; stripped, and none of them empty."""
    layers = []
    text = visible_text(text).strip()
    for _ in range(_LAYERS):
        if not text:
            break
        layers.append(text)
        inner = _inside(text) if len(text) <= _LONGEST else None
        if inner is None:
            break
        text = inner.strip()
    return layers


def undressed(text: str) -> str:
    """A short answer without all that dresses it: dollars, boxes, emphasis, a fence, a full stop; empty where nothing is left."""
    layers = spellings(text)
    return layers[-1] if layers else ""


def _inside(text: str) -> str | None:
    """What the outermost layer of dress holds; None where there is none."""
    if match := _FENCED.fullmatch(text):
        return match[1] if "```" not in match[1] else None
    for opening, closing in _PAIRS:
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : -len(closing)]
            if opening not in inner and closing not in inner:
                return inner
    match = _COMMAND.match(text)
    if match and text.endswith("}") and find_closing_brace(text, match.end() - 1) == len(text) - 1:
        return text[match.end() : -1]
    if match := _STYLE.match(text):
        return text[match.end() :]
    # An ellipsis is no full stop.
    if text.endswith((".", "。")) and not text.endswith(".."):
        return text[:-1]
    return None
