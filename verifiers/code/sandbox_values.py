"""Values as JSON and back, by exact type and by value; used by the parent, and inside the sandbox as a part of one module.

It imports built-in modules only. A value is written as itself where JSON has it, else as a list that starts with the letter of
its type: [1, 2] is ["l", [1, 2]]. What is no plain data becomes a reference, which `refer` makes and `resolve` turns back.
"""

from __future__ import annotations

import sys
from _collections import OrderedDict, defaultdict, deque
from _json import encode_basestring_ascii as quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DEPTH = 150
"""Most containers inside each other that are written."""
PLAIN = (bool, str, type(None))
SEQUENCES: dict[type, str] = {
    list: "l", tuple: "t", set: "s", frozenset: "z", deque: "q", type({}.keys()): "K", type({}.values()): "V",
}  # fmt: skip
MAPPINGS: dict[type, str] = {dict: "d", defaultdict: "d", OrderedDict: "O", type({}.items()): "I"}
NUMBERS = (int, float, complex, str, bytes, tuple, list, dict, set, frozenset, deque, bytearray)
"""The types whose subclasses are also sent by the value of the base."""
OWN_TYPES = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, object, type, type(None))
"""The types that a program may give back as themselves."""
STANDARD: dict[str, tuple[str, Callable[[Any], tuple[Any, ...]]]] = {
    "Fraction": ("fractions", lambda value: (value.numerator, value.denominator)),
    "Decimal": ("decimal", lambda value: (str(value),)),
    "date": ("datetime", lambda value: (value.year, value.month, value.day)),
    "time": ("datetime", lambda value: (value.hour, value.minute, value.second, value.microsecond, value.tzinfo)),
    "datetime": ("datetime", lambda value: (*value.timetuple()[:6], value.microsecond, value.tzinfo)),
    "timedelta": ("datetime", lambda value: (value.days, value.seconds, value.microseconds)),
    "timezone": ("datetime", lambda value: (value.utcoffset(None),)),
    "UUID": ("uuid", lambda value: (str(value),)),
    "PosixPath": ("pathlib", lambda value: (str(value),)),
    "PurePosixPath": ("pathlib", lambda value: (str(value),)),
}
"""Name of a class of the standard library -> its module, and the arguments that make the same value again."""


class Unsendable(Exception):
    """A value that cannot be sent: nested too deeply."""


def encode(value: Any, refer: Callable[[Any], Any], depth: int = 0) -> Any:
    """A value as JSON can hold it."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is int:
        return value if -(2**53) < value < 2**53 else ["i", hex(value)]
    if kind is float:
        return ["f", value.hex()]
    if kind in SEQUENCES or kind in MAPPINGS:
        if depth >= DEPTH:
            raise Unsendable("nested too deeply")
        if kind in SEQUENCES:
            return [SEQUENCES[kind], [encode(entry, refer, depth + 1) for entry in value]]
        pairs = value if MAPPINGS[kind] == "I" else value.items()
        return [MAPPINGS[kind], [[encode(key, refer, depth + 1), encode(entry, refer, depth + 1)] for key, entry in pairs]]
    special = encode_special(value, kind, refer, depth)
    return refer(value) if special is None else special


def encode_special(value: Any, kind: type, refer: Callable[[Any], Any], depth: int) -> Any:
    """As `encode`, for the rarer types; None where the value is no plain data."""
    if kind is complex:
        return ["c", value.real.hex(), value.imag.hex()]
    if kind is bytes or kind is bytearray:
        return ["b" if kind is bytes else "B", value.hex()]
    if kind is range:
        return ["x", [encode(entry, refer) for entry in (value.start, value.stop, value.step)]]
    if kind is slice:
        return ["L", [encode(entry, refer, depth + 1) for entry in (value.start, value.stop, value.step)]]
    name = kind.__name__
    if name in STANDARD and kind is member(STANDARD[name][0], name):
        return ["S", name, [encode(entry, refer, depth + 1) for entry in STANDARD[name][1](value)]]
    if name == "Counter" and kind is member("collections", "Counter"):
        return ["C", [[encode(key, refer, depth + 1), encode(value[key], refer, depth + 1)] for key in list(value)]]
    return encode_array(value, kind, refer, depth) if "numpy" in sys.modules else None


def encode_array(value: Any, kind: type, refer: Callable[[Any], Any], depth: int) -> Any:
    """A number of numpy as Python's, and an array as its type, shape and numbers."""
    generic, array = member("numpy", "generic"), member("numpy", "ndarray")
    if generic is not None and issubclass(kind, generic):
        plain = value.item()
        return None if type(plain) is kind else encode(plain, refer, depth)
    if kind is array and value.dtype.kind in "biufcUS":
        return ["N", value.dtype.str, list(value.shape), [encode(entry, refer, depth + 1) for entry in value.ravel().tolist()]]
    return None


def member(module: str, name: str) -> Any:
    """A name of a module, if the module has been imported."""
    loaded = sys.modules.get(module)
    return None if loaded is None else vars(loaded).get(name)


def base_of(value: Any) -> type | None:
    """The built-in type that a value's class is derived from; None where there is none, or the value is of that type itself."""
    kind = type(value)
    return next((base for base in NUMBERS if base in kind.__mro__), None) if kind not in NUMBERS else None


def base_value(value: Any, base: type) -> Any:
    """The value that an instance of a subclass has as one of the built-in type, whatever its own methods say."""
    if issubclass(base, dict):
        return dict(dict.items(value))
    makers: dict[type, Callable[[Any], Any]] = {
        int: int.__int__,
        float: float.__float__,
        complex: lambda number: complex.__add__(number, 0),
        str: lambda text: "".join(str.__iter__(text)),
        bytes: lambda text: bytes.__add__(b"", text),
    }
    if base in makers:
        return makers[base](value)
    kind: Any = base
    return kind(kind.__iter__(value))


def as_json(value: Any) -> str:
    """The JSON text of a message; the json module would take too long to import."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return str(quoted(value))
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, dict):
        return "{" + ", ".join([f"{quoted(key)}: {as_json(entry)}" for key, entry in value.items()]) + "}"
    return "[" + ", ".join([as_json(entry) for entry in value]) + "]"


def decode(data: Any, resolve: Callable[[list[Any]], Any]) -> Any:
    """The value that `encode` wrote; `resolve` turns a reference, with its letter, into an object."""
    if not isinstance(data, list):
        return data
    tag, rest = data[0], data[1:]
    if tag in DECODERS:
        return DECODERS[tag](*rest)
    if tag in "ltszqKV" and len(tag) == 1:
        entries = [decode(entry, resolve) for entry in rest[0]]
        if tag == "V":
            return dict(enumerate(entries)).values()
        return dict.fromkeys(entries).keys() if tag == "K" else KINDS[tag](entries)
    if tag in "dOCI" and len(tag) == 1:
        pairs = [(decode(key, resolve), decode(value, resolve)) for key, value in rest[0]]
        if tag == "C":
            return __import__("collections").Counter(dict(pairs))
        return OrderedDict(pairs) if tag == "O" else dict(pairs).items() if tag == "I" else dict(pairs)
    if tag == "x" or tag == "L":
        return (range if tag == "x" else slice)(*(decode(entry, resolve) for entry in rest[0]))
    if tag == "S":
        return getattr(__import__(STANDARD[rest[0]][0]), rest[0])(*(decode(entry, resolve) for entry in rest[1]))
    if tag == "N":
        return __import__("numpy").array([decode(entry, resolve) for entry in rest[2]], dtype=rest[0]).reshape(rest[1])
    return resolve(data)


KINDS: dict[str, Any] = {"l": list, "t": tuple, "s": set, "z": frozenset, "q": deque}
DECODERS: dict[str, Callable[..., Any]] = {
    "i": lambda text: int(text, 16),
    "f": float.fromhex,
    "c": lambda real, imaginary: complex(float.fromhex(real), float.fromhex(imaginary)),
    "b": bytes.fromhex,
    "B": bytearray.fromhex,
}
