"""Whether what a program printed is what was expected."""

import re
from decimal import Decimal

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")
"""A finite number in ASCII: "4", "-4.50", ".5", "1e-3"; not "4_1", "nan", "inf" or digits of other scripts."""
_LONGEST_NUMBER = 400


def same_output(printed: str, expected: str, tolerance: Decimal | None) -> bool:
    """Whether two outputs have the same lines, blank space at their ends aside, or the same words on every line.

    Words that are finite numbers are compared as decimals. With a tolerance they may differ by it, relative to numbers above 1.
    """
    lines, expected_lines = (text.strip().replace("\r\n", "\n").split("\n") for text in (printed, expected))
    if [line.strip() for line in lines] == [line.strip() for line in expected_lines]:
        return True
    if len(lines) != len(expected_lines):
        return False
    return all(_same_line(line.split(), other.split(), tolerance) for line, other in zip(lines, expected_lines, strict=True))


def _same_line(words: list[str], expected: list[str], tolerance: Decimal | None) -> bool:
    return len(words) == len(expected) and all(_same_word(a, b, tolerance) for a, b in zip(words, expected, strict=True))


def _same_word(word: str, expected: str, tolerance: Decimal | None) -> bool:
    if word == expected:
        return True
    if max(len(word), len(expected)) > _LONGEST_NUMBER or not (_NUMBER.fullmatch(word) and _NUMBER.fullmatch(expected)):
        return False
    number, other = Decimal(word), Decimal(expected)
    if tolerance is None or number == other:
        return number == other
    return abs(number - other) <= tolerance * max(Decimal(1), abs(other))
