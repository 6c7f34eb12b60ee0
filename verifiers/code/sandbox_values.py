"""Values of a program as JSON and back, by exact type; runs inside the sandbox, in one module with sandbox_child.py."""

from __future__ import annotations

import sys
from _collections import OrderedDict, defaultdict, deque
from _json import encode_basestring_ascii as quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DEPTH = 60
"""Containers inside each other that are encoded; deeper ones become references."""
PLAIN = (bool, str, type(None))
# The letter of a type in JSON: [1, 2] is ["l", [1, 2]].
SEQUENCES: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "z", deque: "q"}
MAPPINGS = (dict, OrderedDict, defaultdict)


class Unsendable(Exception):
    """A value of the test that JSON cannot hold, such as a function."""


def encode(value: Any, refer: Callable[[Any], Any], depth: int = 0) -> Any:
    """A value as JSON. Types have to be exact: `refer` makes a reference of an instance of a subclass, or of any other object."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is int:
        return value if -(2**53) < value < 2**53 else ["i", hex(value)]
    if kind is float:
        return ["f", value.hex()]
    if kind is complex:
        return ["c", value.real.hex(), value.imag.hex()]
    if kind in (bytes, bytearray):
        return ["b", value.hex()]
    if depth < DEPTH and kind in SEQUENCES:
        return [SEQUENCES[kind], [encode(entry, refer, depth + 1) for entry in value]]
    if depth < DEPTH and (kind in MAPPINGS or is_counter(kind)):
        return ["d", [[encode(key, refer, depth + 1), encode(value[key], refer, depth + 1)] for key in list(value)]]
    return refer(value)


def is_counter(kind: type) -> bool:
    """Whether a type is collections.Counter, which is loaded only where the program imported it."""
    module = sys.modules.get("collections")
    return module is not None and kind is vars(module).get("Counter")


def as_json(value: Any) -> str:
    """The JSON text of a message; the json module would take too long to import."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return str(quoted(value))
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)}: {as_json(entry)}" for key, entry in value.items()) + "}"
    return "[" + ", ".join([as_json(entry) for entry in value]) + "]"


def decode(data: Any, resolve: Callable[[list[Any]], Any]) -> Any:
    """The value that `encode` turned into JSON; `resolve` turns a reference into an object."""
    if not isinstance(data, list):
        return data
    tag, *rest = data
    if tag == "i":
        return int(rest[0], 16)
    if tag == "f":
        return float.fromhex(rest[0])
    if tag == "c":
        return complex(float.fromhex(rest[0]), float.fromhex(rest[1]))
    if tag == "b":
        return bytes.fromhex(rest[0])
    if tag == "d":
        return {decode(key, resolve): decode(value, resolve) for key, value in rest[0]}
    kinds: dict[str, Any] = {"l": list, "t": tuple, "s": set, "z": frozenset, "q": deque}
    if tag in kinds:
        return kinds[tag](decode(entry, resolve) for entry in rest[0])
    return resolve(rest)
