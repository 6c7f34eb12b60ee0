"""Reading and comparing exact numbers, without rounding, however many digits they have.

Decimals and fractions of the standard library do this: reading and comparing them is exact, and Decimal reads any number of
digits in linear time, which int refuses beyond 4,300. Only calculating with a Decimal rounds, unless EXACT is its context.
"""

import re
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from fractions import Fraction

_MANTISSA = r"(?:\d+(?:,\d+)*(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(rf"[-+]?({_MANTISSA})(?:[eE][-+]?\d{{1,9}})?", re.ASCII)  # 12, -1,234.50, .5, 3.2e-5
_RATIO = re.compile(r"([-+]?)(\d{1,1000})/(\d{1,1000})", re.ASCII)  # -3/4
_MIXED = re.compile(r"([-+]?)(\d{1,300})\s+(\d{1,300})/(\d{1,300})", re.ASCII)  # 2 1/2
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?", re.ASCII)  # 1,234,567.8
_LONGEST_DECIMAL = 1000
"""Digits, and exponent, of a decimal that is compared with a fraction."""

Number = Decimal | Fraction
EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
"""A context for operations whose result has few digits; in it they do not round."""


def parse_number(text: str) -> Number | None:
    """The value of an integer, decimal, decimal with exponent, grouped number, ratio or mixed number; None for anything else."""
    text = text.strip()
    if match := _DECIMAL.fullmatch(text):
        if "," in match[1] and not _GROUPED.fullmatch(match[1]):
            return None
        return Decimal(text.replace(",", ""))
    if match := _RATIO.fullmatch(text):
        return _ratio(match[1], 0, int(match[2]), int(match[3]))
    if match := _MIXED.fullmatch(text):
        return _ratio(match[1], int(match[2]), int(match[3]), int(match[4]))
    return None


def _ratio(sign: str, whole: int, numerator: int, denominator: int) -> Number | None:
    if not denominator:
        return None
    value = whole + Fraction(numerator, denominator)
    return -value if sign == "-" else value


def _as_fraction(number: Number) -> Fraction | None:
    if isinstance(number, Fraction):
        return number
    _, digits, exponent = number.as_tuple()
    if len(digits) > _LONGEST_DECIMAL or not isinstance(exponent, int) or abs(exponent) > _LONGEST_DECIMAL:
        return None
    return Fraction(number)


def same_number(a: Number, b: Number) -> bool:
    """Whether two numbers are exactly equal; a decimal of more than 1,000 digits never equals a fraction."""
    if isinstance(a, Decimal) and isinstance(b, Decimal):
        return a == b
    left, right = _as_fraction(a), _as_fraction(b)
    return left is not None and left == right
