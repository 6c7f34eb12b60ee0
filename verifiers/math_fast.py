"""Equality of ordinary algebra in linear time: both sides are computed to fifty digits at fixed points.

Two expressions that agree to forty digits at unrelated points are equal for all that answers look like; two that differ in
the tenth are not. With trigonometry, logarithms and the like, ordinary floats can only tell that two differ. Whatever else
an answer holds is left to math-verify.
"""

import math
import re
from collections.abc import Callable, Sequence
from decimal import Context, Decimal, DecimalException, localcontext
from typing import Any

_TOKEN = re.compile(
    r"\s*(\d+(?:\.\d+)?|\.\d+|\\frac|\\sqrt|\\pi(?![a-z])|\\cdot|\\times|\\(?:sin|cos|tan|ln|exp|arctan)(?![a-z])|[a-zA-Z]|[-+*/^(){}\[\]])"
)
_DIGITS = 50
_EQUAL, _UNEQUAL = Decimal("1e-40"), Decimal("1e-9")
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
_E = Decimal("2.71828182845904523536028747135266249775724709369995957496697")
_POWER = 400
_LONGEST = 512
_POINTS = ((Decimal("0.7310585786"), 1), (Decimal("1.2689414213"), -1))
"""Scale and sign of the letters' values; roots of negative numbers at the second leave the question open."""
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "\\sin": math.sin,
    "\\cos": math.cos,
    "\\tan": math.tan,
    "\\ln": math.log,
    "\\exp": math.exp,
    "\\arctan": math.atan,
}
_ROUGHLY = 1e-6
_BRACKETS = {"(": ")", "[": "]"}


class _Unread(Exception):
    """Not the kind of expression that is read here."""


class _Reader:
    """Recursive descent over tokens, computing as it goes: in Decimals, or in floats where there are functions."""

    def __init__(self, tokens: Sequence[str], point: tuple[Decimal, int]) -> None:
        self._tokens, self._at, self._point = tokens, 0, point
        self._number: Any = float if any(token in _FUNCTIONS for token in tokens) else Decimal

    def value(self) -> Any:
        """The value of all tokens."""
        result = self._sum()
        if self._next() is not None:
            raise _Unread
        return result

    def _next(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, wanted: str | None = None) -> str:
        token = self._next()
        if token is None or (wanted is not None and token != wanted):
            raise _Unread
        self._at += 1
        return token

    def _sum(self) -> Any:
        sign = -1 if self._next() == "-" else 1
        if self._next() in ("-", "+"):
            self._take()
        result = sign * self._product()
        while self._next() in ("+", "-"):
            sign = 1 if self._take() == "+" else -1
            result += sign * self._product()
        return result

    def _product(self) -> Any:
        result, divided = self._power(), False
        while True:
            token = self._next()
            if token in ("*", "\\cdot", "\\times"):
                self._take()
                sign = -1 if self._next() == "-" else 1
                if sign < 0:
                    self._take()
                result *= sign * self._power()
            elif token == "/":
                self._take()
                result /= self._power()
                divided = True
            elif token is None or token in ("+", "-", ")", "}", "]"):
                return result
            else:
                # 1/2x is read both ways, and 2 1/2 or 2\frac12 may be a mixed number.
                after_number = self._tokens[self._at - 1][-1:].isdigit() and (token == "\\frac" or token[0].isdigit())
                if divided or after_number or token[0] in ".0123456789":
                    raise _Unread
                result *= self._power()

    def _power(self) -> Any:
        base = self._atom()
        if self._next() != "^":
            return base
        self._take()
        exponent = self._exponent()
        if self._next() == "^" or abs(exponent) > _POWER:
            raise _Unread
        if exponent != int(exponent) and base <= 0:
            raise _Unread
        return base**exponent

    def _exponent(self) -> Any:
        token = self._next()
        if token == "{":
            return self._group("{", "}")
        # TeX reads x^10 as x^1 0, people do not.
        if token is None or len(token) != 1 or not token.isalnum():
            raise _Unread
        return self._atom()

    def _group(self, opening: str, closing: str) -> Any:
        self._take(opening)
        result = self._sum()
        self._take(closing)
        return result

    def _atom(self) -> Any:
        token = self._next()
        if token in ("(", "{", "["):
            return self._group(token, {"(": ")", "{": "}", "[": "]"}[token])
        token = self._take()
        if token[0].isdigit() or token[0] == ".":
            return self._number(token)
        if token == "\\pi":
            return self._number(_PI)
        if token == "\\frac":
            above = self._group("{", "}")
            return above / self._group("{", "}")
        if token == "\\sqrt":
            if self._next() != "{":
                raise _Unread
            inner = self._group("{", "}")
            if inner < 0:
                raise _Unread
            return inner ** self._number("0.5")
        if token in _FUNCTIONS:
            return self._function(_FUNCTIONS[token])
        return self._letter(token)

    def _function(self, function: Callable[[float], float]) -> Any:
        power = 1
        if self._next() == "^":
            self._take()
            power = self._exponent()
            if power <= 0:
                raise _Unread
        if self._next() in ("(", "{"):
            inner = self._atom()
            if self._next() == "^":
                raise _Unread
        else:
            # \\sin 2x is the sine of the whole product.
            inner = self._power()
            while (token := self._next()) is not None and (token.isalnum() or token in ("\\pi", "\\frac")):
                inner *= self._power()
        return function(inner) ** power

    def _letter(self, token: str) -> Any:
        if token == "e":
            return self._number(_E)
        # i may be the imaginary unit.
        if len(token) != 1 or not token.isalpha() or token == "i":
            raise _Unread
        scale, sign = self._point
        return self._number(sign * scale * (Decimal(ord(token) * 7919 % 1013) / 211 + 1))


def _tokens(text: str) -> list[str]:
    if len(text) > _LONGEST:
        raise _Unread
    found, at = list[str](), 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _Unread
        found.append(match[1])
        at = match.end()
    return found


def _compare(answer: str, gold: str) -> bool | None:
    said, wanted, same = _tokens(answer), _tokens(gold), True
    for point in _POINTS:
        a, b = _Reader(said, point).value(), _Reader(wanted, point).value()
        if isinstance(a, float) or isinstance(b, float):
            if not math.isclose(a, b, rel_tol=_ROUGHLY, abs_tol=_ROUGHLY):
                return False
            same = False
            continue
        apart, size = abs(a - b), max(abs(a), abs(b))
        if apart > _UNEQUAL * size:
            return False
        same = same and apart <= _EQUAL * size
    return True if same else None


def _end(answer: str, gold: str) -> bool | None:
    """As _compare, for an end of an interval, which may be infinite."""
    a, b = (text.replace(" ", "").removeprefix("+") for text in (answer, gold))
    if "\\infty" not in a + b:
        return _compare(answer, gold)
    ends = ("\\infty", "-\\infty")
    if (a in ends and b in ends) or "\\infty" not in a or "\\infty" not in b:
        return a == b
    return None


def _elements(text: str) -> tuple[str, list[str]] | None:
    """Brackets and elements of a tuple, an interval, a set or a bare list; None where a text is one expression."""
    kind, inner = "", text
    if text.startswith("\\{") and text.endswith("\\}"):
        kind, inner = "{}", text[2:-2]
    elif text[:1] in _BRACKETS and text[-1:] in _BRACKETS.values():
        kind, inner = text[0] + text[-1], text[1:-1]
    parts, depth, start = list[str](), 0, 0
    for at, character in enumerate(inner):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return None
        if character == "," and not depth:
            parts.append(inner[start:at].strip())
            start = at + 1
    parts.append(inner[start:].strip())
    return (kind, parts) if len(parts) > 1 and all(parts) else None


def equal(answer: str, gold: str) -> bool | None:
    """Whether two tidied answers are equal; None where this cannot tell."""
    try:
        with localcontext(Context(prec=_DIGITS)):
            said, wanted = _elements(answer), _elements(gold)
            if said is None and wanted is None:
                return _compare(answer, gold)
            # Only pairs in brackets have an order; lists and sets are left to math-verify.
            if said is None or wanted is None or {said[0], wanted[0]} & {"", "{}"}:
                return None
            if said[0] != wanted[0] or len(said[1]) != len(wanted[1]):
                return False
            parts = [_end(a, b) for a, b in zip(said[1], wanted[1], strict=True)]
            return False if False in parts else None if None in parts else True
    except (_Unread, DecimalException, RecursionError, ArithmeticError, ValueError, TypeError):
        return None
