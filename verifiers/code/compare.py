"""Whether a program's answer is the value that a test expects, told from the text of both.

Nothing of the answer is built: its numbers could all hash to one place, its lists could fill the memory. Equal values have one
spelling here, as they are equal in Python: 1, 1.0 and True; a set in any order; a tuple of a named kind and a plain one.
"""

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tulu.verifiers.code.sandbox_values import as_json, encode
from tulu.verifiers.contract import shorten

_LARGER = 40
"""How many times as long as that of the expected value the text of an equal one may be: sets, floats and named tuples differ."""
_MARGIN = 1 << 16
_OPENERS = {"l": "[]", "t": "()", "q": "q"}
_EQUAL_KINDS = {**_OPENERS, "s": "{}", "z": "{}", "K": "{}", "I": "{}", "d": "<>", "O": "<>", "C": "<>"}


class NoValue(ValueError):
    """An answer that equals no literal."""


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is no literal")


def encoded(value: Any) -> Any:
    """A literal of a test as messages hold it."""
    return encode(value, _refuse)


def spelling(data: Any) -> str:
    """The one spelling of a value in a message; NoValue where it equals no literal: an object, or not a number."""
    if data is None:
        return "N"
    if isinstance(data, str):
        return json.dumps(data)
    if isinstance(data, int | float):
        return _number(data)
    if not isinstance(data, list) or not data or not isinstance(data[0], str):
        raise NoValue("nonsense")
    tag, *rest = data
    if tag in _EQUAL_KINDS:
        return _container(tag, rest[0])
    if tag in ("i", "f", "c", "S"):
        return _number(_as_number(tag, rest))
    if tag in ("b", "B"):
        return "b" + str(rest[0]).lower()
    if tag == "r" and len(rest) >= 4 and rest[3] is not None:
        # An instance of a class that is derived from a built-in type has a value of that type.
        return spelling(rest[3])
    raise NoValue(f"a {shorten(str(rest[1] if tag == 'r' and len(rest) > 1 else rest[:1]), 40)} is no plain value")


def _container(tag: str, entries: Any) -> str:
    kind = _EQUAL_KINDS[tag]
    if kind == "<>" or tag == "I":
        pairs = [f"{spelling(key)}:{spelling(value)}" for key, value in entries]
        if kind == "<>":
            return "<" + ",".join(sorted(pairs)) + ">"
        return "{" + ",".join(sorted(f"({pair.replace(':', ',', 1)})" for pair in pairs)) + "}"
    parts = [spelling(entry) for entry in entries]
    if kind == "{}":
        return "{" + ",".join(sorted(parts)) + "}"
    return kind[0] + ",".join(parts) + kind[-1]


def _as_number(tag: str, rest: list[Any]) -> Any:
    if tag == "i":
        return int(rest[0], 16)
    if tag == "f":
        return float.fromhex(rest[0])
    if tag == "c":
        return complex(float.fromhex(rest[0]), float.fromhex(rest[1]))
    name, arguments = rest
    if name == "Fraction":
        return Fraction(*(entry if isinstance(entry, int) else int(entry[1], 16) for entry in arguments))
    if name == "Decimal" and len(arguments[0]) < 400:
        number = Decimal(arguments[0])
        return Fraction(number) if number.is_finite() and abs(number.adjusted()) < 400 else float(number)
    raise NoValue(f"a {shorten(str(name), 40)} is no plain value")


def _number(number: Any) -> str:
    """Equal numbers of any type have one spelling: their exact ratio."""
    if isinstance(number, complex):
        if number.imag:
            return f"{_number(number.real)}+{_number(number.imag)}j"
        number = number.real
    if isinstance(number, float):
        if number != number:
            raise NoValue("not a number")
        if abs(number) == float("inf"):
            return str(number)
    top, bottom = number.as_integer_ratio()
    return hex(top) if bottom == 1 else f"{top:x}/{bottom:x}"


def is_equal(line: bytes, data: Any, expected: Any) -> bool:
    """Whether an answer equals the literal of a test, given both as messages hold them; NoValue where it is no plain value."""
    expected_text = as_json(expected)
    text = as_json(data)
    if text == expected_text:
        return "nan" not in expected_text
    if len(line) > _LARGER * len(expected_text) + _MARGIN:
        return False
    return spelling(data) == spelling(expected)


def is_true(data: Any) -> bool:
    """Whether an answer counts as true; NoValue for an object whose own class says so."""
    if data is None or isinstance(data, bool | str | int):
        return bool(data)
    if not isinstance(data, list) or not data:
        raise NoValue("nonsense")
    tag, *rest = data
    if tag == "r":
        if len(rest) >= 4 and rest[3] is not None:
            return is_true(rest[3])
        if len(rest) == 6 and rest[5] is True:
            return True
        raise NoValue(f"only a {shorten(str(rest[1]), 40)} itself says whether it is true")
    if tag in ("i", "f", "c", "S"):
        try:
            return bool(_as_number(tag, rest))
        except NoValue:
            return True
    if tag in ("l", "t", "s", "z", "q", "K", "V", "I", "d", "O", "C", "b", "B"):
        return bool(rest[0])
    return True
