"""Exact numbers, of any length in linear time: no float, no rounding, no interpreter limit on digits."""

import re
from fractions import Fraction

_MANTISSA = r"(?:\d+(?:,\d+)*(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(rf"([-+]?)({_MANTISSA})(?:[eE]([-+]?\d{{1,9}}))?", re.ASCII)
_RATIO = re.compile(r"([-+]?)(\d{1,1000})/(\d{1,1000})", re.ASCII)
_MIXED = re.compile(r"([-+]?)(\d{1,300})\s+(\d{1,300})/(\d{1,300})", re.ASCII)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d*)?", re.ASCII)

# A decimal is its sign, its digits without outer zeros and its exponent; zero is ("", "", 0).
Decimal = tuple[str, str, int]
Number = Decimal | Fraction


def parse_number(text: str) -> Number | None:
    """An integer, decimal, decimal with exponent, grouped integer, ratio or mixed number; None for anything else."""
    text = text.strip()
    if match := _DECIMAL.fullmatch(text):
        sign, mantissa, exponent = match.groups()
        if "," in mantissa and not _GROUPED.fullmatch(mantissa):
            return None
        return _canonical(sign, mantissa.replace(",", ""), int(exponent or 0))
    if match := _RATIO.fullmatch(text):
        return _ratio(match[1], 0, int(match[2]), int(match[3]))
    if match := _MIXED.fullmatch(text):
        return _ratio(match[1], int(match[2]), int(match[3]), int(match[4]))
    return None


def _canonical(sign: str, mantissa: str, exponent: int) -> Decimal:
    whole, _, part = mantissa.partition(".")
    digits = (whole + part).lstrip("0")
    exponent -= len(part)
    kept = digits.rstrip("0")
    if not kept:
        return "", "", 0
    return "-" if sign == "-" else "", kept, exponent + len(digits) - len(kept)


def _ratio(sign: str, whole: int, above: int, below: int) -> Number | None:
    if not below:
        return None
    value = whole + Fraction(above, below)
    return -value if sign == "-" else value


def _as_fraction(number: Number) -> Fraction | None:
    if isinstance(number, Fraction):
        return number
    sign, digits, exponent = number
    if len(digits) > 1000 or abs(exponent) > 1000:
        return None
    return Fraction(int(sign + (digits or "0"))) * Fraction(10) ** exponent


def same_number(a: Number, b: Number) -> bool:
    """Exact equality; a decimal of over 1,000 digits never equals a ratio."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return a == b
    left, right = _as_fraction(a), _as_fraction(b)
    return left is not None and left == right
