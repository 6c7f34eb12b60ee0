"""Equality of ordinary algebra in linear time: both answers are computed to sixty digits at two fixed points.

Two expressions that agree to forty digits at unrelated points are equal for all that answers look like; two that differ in
the tenth digit are not. Whatever else an answer holds is left to math-verify.
"""

import re
from functools import lru_cache

from tulu.verifiers.math.expression import FAULTS, FUNCTIONS, Unreadable, Value, evaluate, tokenize

_EQUAL, _UNEQUAL = 1e-40, 1e-9
"""Two values are equal where they differ by at most the first share of the larger one, unequal from the second on."""
_ZERO = 1e-25
"""Where functions are involved, a value below this may be a zero and its rounding error, and one above its inverse a pole."""
_LONGEST_LIST = 12
"""Elements of a list or a set that are compared each with each."""
_GROUPED = re.compile(r"\d\s*,\s*\d{3}(?!\d)")  # A comma that may group digits instead of parting elements: `1,000`
_SYMBOL = re.compile(r"[A-Za-z](?:\([a-z]\))?")  # A name that an equation defines: `y` or `f(x)`
_BRACKETS = {"(": ")", "[": "]"}


@lru_cache(maxsize=8192)
def _values(text: str) -> tuple[list[Value | None], set[str]]:
    """The value of an expression at each point, None where it has none; and the tokens that the expression consists of."""
    try:
        tokens = tokenize(text)
    except Unreadable:
        return [None, None], set()
    return evaluate(tokens), set(tokens)


def _compare(answer: str, gold: str) -> bool | None:
    (answer_values, answer_tokens), (gold_values, gold_tokens) = _values(answer), _values(gold)
    tokens, same = answer_tokens | gold_tokens, True
    for a, b in zip(answer_values, gold_values, strict=True):
        if a is None or b is None:
            return None
        difference, size = abs(a - b), max(abs(a), abs(b))
        if tokens & FUNCTIONS and not _ZERO < size < 1 / _ZERO:
            return None
        if difference > _UNEQUAL * size:
            # What holds for any i holds for the imaginary unit, but not the other way round.
            return None if "i" in tokens else False
        same = same and difference <= _EQUAL * size
    return True if same else None


def _compare_ends(answer: str, gold: str) -> bool | None:
    """As _compare, for two ends of intervals, which may be infinite."""
    a, b = (text.replace(" ", "").removeprefix("+") for text in (answer, gold))
    if "\\infty" not in a + b:
        return _compare(answer, gold)
    infinities = ("\\infty", "-\\infty")
    if (a in infinities and b in infinities) or "\\infty" not in a or "\\infty" not in b:
        return a == b
    return None


def _elements(text: str) -> tuple[str, list[str]] | None:
    """Brackets and elements of a tuple, an interval, a set or a bare list; None where a text is one expression.

    `(1, 2]` gives `(]` and `1`, `2`; `\\{1, 2\\}` gives `{}`; a bare `1, 2` gives no brackets.
    """
    brackets, inner = "", text
    if text.startswith("\\{") and text.endswith("\\}"):
        brackets, inner = "{}", text[2:-2]
    elif text[:1] in _BRACKETS and text[-1:] in _BRACKETS.values():
        brackets, inner = text[0] + text[-1], text[1:-1]
    parts = _split_at_commas(inner)
    if parts is None and brackets not in ("", "{}"):
        # (1,2),(3,4) begins and ends as a pair does.
        brackets, parts = "", _split_at_commas(text)
    return (brackets, parts) if parts is not None and len(parts) > 1 and all(parts) else None


def _split_at_commas(inner: str) -> list[str] | None:
    """The texts between the commas that no bracket encloses; None where a bracket closes before it opens."""
    parts, depth, start = list[str](), 0, 0
    for position, character in enumerate(inner):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return None
        if character == "," and not depth:
            parts.append(inner[start:position].strip())
            start = position + 1
    parts.append(inner[start:].strip())
    return parts


def _compare_lists(answer: list[str], gold: list[str]) -> bool | None:
    """Whether two lists without order, or two sets, hold the same; None where a pair cannot be compared, or one repeats."""
    if max(len(answer), len(gold)) > _LONGEST_LIST or any(map(_GROUPED.search, (",".join(answer), ",".join(gold)))):
        return None
    table = [[equal(a, b) for b in gold] for a in answer]
    if any(None in row for row in table):
        return None
    matches = [sum(map(bool, line)) for line in (*table, *zip(*table, strict=True))]
    if 0 in matches:
        return False
    return True if len(answer) == len(gold) and max(matches) == 1 else None


def _compare_equations(answer: str, gold: str) -> bool | None:
    """Whether two equations have the same sides, or define the same symbol by equal values; None where neither can be seen."""
    (left, right), (name, value) = answer.split("="), gold.split("=")
    if right.strip() == name.strip():
        left, right = right, left
    same = _compare(right, value)
    if left.strip() == name.strip() and _SYMBOL.fullmatch(name.strip()) and name.strip()[0] not in right + value:
        return same
    return True if same and _compare(left, name) else None


def equal(answer: str, gold: str) -> bool | None:
    """Whether two tidied answers are equal; None where this cannot be seen from values."""
    try:
        answer_elements, gold_elements = _elements(answer), _elements(gold)
        if answer_elements is None and gold_elements is None:
            return (_compare_equations if answer.count("=") == gold.count("=") == 1 else _compare)(answer, gold)
        if answer_elements is None or gold_elements is None:
            return None
        (answer_brackets, answer_parts), (gold_brackets, gold_parts) = answer_elements, gold_elements
        brackets = {answer_brackets, gold_brackets}
        # Only what stands in ( or [ has an order; where one side has an order and the other none, math-verify decides.
        if brackets <= {"", "{}"}:
            return _compare_lists(answer_parts, gold_parts)
        if brackets & {"", "{}"}:
            return None
        if answer_brackets != gold_brackets or len(answer_parts) != len(gold_parts):
            return False
        same = [_compare_ends(a, b) for a, b in zip(answer_parts, gold_parts, strict=True)]
        return False if False in same else None if None in same else True
    except FAULTS:
        return None
