"""The value of an algebraic expression in TeX, to sixty digits, where its letters stand for fixed numbers.

What it reads: numbers, letters, Greek letters, `+ - * /`, powers, `\\frac`, `\\sqrt[n]`, `\\pi`, `e`, brackets, and the functions
of `_FUNCTIONS`. Everything else raises Unreadable, and so does a value that is not a finite real number.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from mpmath import MPContext

_DIGITS = 60
# A context of our own: the precision of mpmath's global one belongs to sympy, and can change under our feet.
_MP = MPContext()
_MP.dps = _DIGITS

GREEK = "alpha beta gamma delta epsilon theta lambda mu sigma phi omega rho tau".split()
_TOKEN = re.compile(
    # 12, 3.5 or .5
    r"\s*(\d+(?:\.\d+)?|\.\d+|"
    # commands with a meaning, and the functions; \pi but not \pitchfork
    r"\\frac|\\sqrt|\\pi(?![a-z])|\\cdot|\\times|\\(?:sin|cos|tan|ln|exp|arctan)(?![a-z])|"
    # \theta, x, and single marks
    rf"\\(?:{'|'.join(GREEK)})(?![a-z])|[a-zA-Z]|[-+*/^(){{}}\[\]])"
)
_LONGEST = 512
"""Characters of an expression; a longer one is not read."""
_LARGEST_POWER = 400
_LARGEST_MAGNITUDE = 3_321_928
"""Bits before the binary point, about a million decimal digits: the largest value that is computed with."""
_LARGEST_EXPONENT = 2_302_585
"""The largest argument of `exp`, which gives a million decimal digits."""
_LARGEST_ANGLE = 1_000_000
_CLOSING = {"(": ")", "{": "}", "[": "]"}
_POINTS = ((_MP.mpf("0.7310585786"), 1), (_MP.mpf("1.2689414213"), -1))
"""Scale and sign of the letters' values. At the second point letters are negative, where their roots are not read."""

Value = Any
"""A real number of mpmath, which has no types."""


class Unreadable(Exception):
    """An expression that is not of the kind read here, or has no finite real value."""


FAULTS = (Unreadable, RecursionError, ArithmeticError, ValueError, TypeError)
"""What computing a value may raise: division by zero is an ArithmeticError."""


def _of_angle(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    def checked(x: Value) -> Value:
        if abs(x) > _LARGEST_ANGLE:
            # Of sixty digits, too few would be left for what remains after whole turns.
            raise Unreadable
        return function(x)

    return checked


def _logarithm(x: Value) -> Value:
    if x <= 0:
        raise Unreadable
    return _MP.ln(x)


def _exponential(x: Value) -> Value:
    if abs(x) > _LARGEST_EXPONENT:
        raise Unreadable
    return _MP.exp(x)


_FUNCTIONS: dict[str, Callable[[Value], Value]] = {
    "\\sin": _of_angle(_MP.sin),
    "\\cos": _of_angle(_MP.cos),
    "\\tan": _of_angle(_MP.tan),
    "\\ln": _logarithm,
    "\\exp": _exponential,
    "\\arctan": _MP.atan,
}
FUNCTIONS = frozenset(_FUNCTIONS)
"""The tokens that are functions."""


def tokenize(text: str) -> list[str]:
    """The tokens of an expression: `2\\sin x` -> `2`, `\\sin`, `x`; Unreadable where something is no token."""
    if len(text) > _LONGEST:
        raise Unreadable
    tokens, position = list[str](), 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Unreadable
        tokens.append(match[1])
        position = match.end()
    return tokens


def is_letter(token: str) -> bool:
    """Whether a token is a Latin or Greek letter, `e` and `i` included."""
    return token.isalpha() or token[1:] in GREEK


def evaluate(tokens: Sequence[str]) -> list[Value | None]:
    """The value at each of two points; None where there is none."""
    values = list[Value | None]()
    for point in _POINTS:
        try:
            values.append(_Reader(tokens, point).read())
        except FAULTS:
            values.append(None)
        if not any(map(is_letter, tokens)):
            # A number is the same at every point.
            return values * len(_POINTS)
    return values


class _Reader:
    """Recursive descent over tokens, computing as it goes."""

    def __init__(self, tokens: Sequence[str], point: tuple[Value, int]) -> None:
        self._tokens, self._position, self._point = tokens, 0, point

    def read(self) -> Value:
        """The value of all tokens."""
        value = self._sum()
        if self._next() is not None:
            raise Unreadable
        return value

    def _next(self) -> str | None:
        return self._tokens[self._position] if self._position < len(self._tokens) else None

    def _take(self, expected: str | None = None) -> str:
        token = self._next()
        if token is None or (expected is not None and token != expected):
            raise Unreadable
        self._position += 1
        return token

    def _sum(self) -> Value:
        negative = self._next() == "-"
        if self._next() in ("-", "+"):
            self._take()
        value = -self._product() if negative else self._product()
        while self._next() in ("+", "-"):
            value = value + self._product() if self._take() == "+" else value - self._product()
        return value

    def _product(self) -> Value:
        value, divided = self._power(), False
        while True:
            token = self._next()
            if token in ("*", "\\cdot", "\\times"):
                self._take()
                if self._next() == "-":
                    self._take()
                    value = -value
                value *= self._power()
            elif token == "/":
                self._take()
                value /= self._power()
                divided = True
            elif token is None or token in ("+", "-", ")", "}", "]"):
                return value
            else:
                # People read 1/2x in two ways, and 2 1/2 or 2\frac12 may be a mixed number.
                after_number = self._tokens[self._position - 1][-1:].isdigit() and (token == "\\frac" or token[0].isdigit())
                if divided or after_number or token[0] in ".0123456789":
                    raise Unreadable
                value *= self._power()

    def _power(self) -> Value:
        base = self._atom()
        if self._next() != "^":
            return base
        self._take()
        exponent = self._exponent()
        if self._next() == "^" or abs(exponent) > _LARGEST_POWER:
            raise Unreadable
        if base <= 0 and (not _MP.isint(exponent) or base == exponent == 0):
            raise Unreadable
        return _bounded(base**exponent)

    def _exponent(self) -> Value:
        token = self._next()
        if token == "{":
            return self._group("{")
        # TeX reads x^10 as x^1 0, people read it as a power of ten.
        if token is None or len(token) != 1 or not token.isalnum():
            raise Unreadable
        return self._atom()

    def _group(self, opening: str) -> Value:
        self._take(opening)
        value = self._sum()
        self._take(_CLOSING[opening])
        return value

    def _atom(self) -> Value:
        token = self._next()
        if token in _CLOSING:
            return self._group(token)
        token = self._take()
        if token[0].isdigit() or token[0] == ".":
            return _MP.mpf(token)
        if token == "\\pi":
            return +_MP.pi
        if token == "\\frac":
            numerator = self._group("{")
            return numerator / self._group("{")
        if token == "\\sqrt":
            return self._root()
        if token in _FUNCTIONS:
            return self._function(_FUNCTIONS[token])
        return self._letter(token)

    def _root(self) -> Value:
        degree = self._group("[") if self._next() == "[" else None
        radicand = self._group("{")
        if radicand < 0 or (degree is not None and degree * _LARGEST_POWER < 1):
            raise Unreadable
        return _MP.sqrt(radicand) if degree is None else _bounded(radicand ** (1 / degree))

    def _function(self, function: Callable[[Value], Value]) -> Value:
        power = 1
        if self._next() == "^":
            self._take()
            power = self._exponent()
            if not 0 < power <= _LARGEST_POWER:
                raise Unreadable
        if self._next() in ("(", "{"):
            argument = self._atom()
            if self._next() == "^":
                raise Unreadable
        else:
            # \sin 2x is the sine of the whole product.
            argument = self._power()
            while (token := self._next()) is not None and (token in ("\\pi", "\\frac") or token.isalnum() or is_letter(token)):
                argument *= self._power()
        value = function(argument)
        if power == 1:
            return _bounded(value)
        if value < 0 and not _MP.isint(power):
            raise Unreadable
        return _bounded(value**power)

    def _letter(self, token: str) -> Value:
        if token == "e":
            return +_MP.e
        if not is_letter(token):
            raise Unreadable
        return _letter_value(token, self._point)


@lru_cache(maxsize=256)
def _letter_value(token: str, point: tuple[Value, int]) -> Value:
    code = ord(token) if len(token) == 1 else 200 + GREEK.index(token[1:])
    scale, sign = point
    # 7919 and 1013 are primes that scatter the letters; no two have the same value.
    return sign * scale * (_MP.mpf(code * 7919 % 1013) / 211 + 1)


def _bounded(value: Value) -> Value:
    """The value, unless it is not finite or too large or small."""
    if not _MP.isfinite(value) or (value and abs(_MP.mag(value)) > _LARGEST_MAGNITUDE):
        raise Unreadable
    return value
