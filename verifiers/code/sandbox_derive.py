"""Classes of a test that are derived from the program's: they are made in the program's process, with methods that stay here.

Runs inside the sandbox, on both sides.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tulu.verifiers.code.sandbox_proxy import Proxy, mark_as_made


class Derive(type):
    """Makes a class of a test that is derived from one of the program's, on the other side; its methods stay here."""

    def __new__(mcs, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> Any:
        if "__orig_bases__" not in space:
            return super().__new__(mcs, name, bases, space)
        cell, originals = space.pop("__classcell__", None), space.pop("__orig_bases__")
        peer = next(base._tulu_peer for base in originals if type(base) is Proxy)
        members = [taken_apart(key, entry) for key, entry in space.items() if key not in ("__module__", "__qualname__")]
        made = mark_as_made(peer.ask("subclass", name, list(originals), members))
        if cell is not None:
            cell.cell_contents = made
        return made


class Derived(metaclass=Derive):
    """Stands for a class of the program while Python makes one that is derived from it."""


def taken_apart(name: str, entry: Any) -> tuple[str, str, Any]:
    """A member of a class as (name, kind, function or value), which the other side puts together again."""
    if isinstance(entry, property):
        return name, "property", entry.fget
    if isinstance(entry, (staticmethod, classmethod)):
        return name, type(entry).__name__, entry.__func__
    return name, "function" if isinstance(entry, type(parent_class)) else "value", entry


def derive(name: str, bases: tuple[Any, ...], members: list[tuple[str, str, Any]]) -> type:
    """A class of the program that is derived as a test says, with methods that call the test's."""

    def method(function: Any) -> Callable[..., Any]:
        # A proxy is no function, and would not be given the instance.
        def call(*arguments: Any, **keywords: Any) -> Any:
            return function(*arguments, **keywords)

        return call

    wrap: dict[str, Any] = {"property": property, "staticmethod": staticmethod, "classmethod": classmethod}
    space = {
        key: entry if kind == "value" else wrap.get(kind, lambda function: function)(method(entry))
        for key, kind, entry in members
    }
    kind = type(bases[0])
    return kind(name, bases, space)


def parent_class(*arguments: Any) -> Any:
    """`super()` in a test, also within classes that are derived from one of the program's."""
    frame = sys._getframe(1)
    if not arguments:
        arguments = (frame.f_locals["__class__"], frame.f_locals[frame.f_code.co_varnames[0]])
    kind = arguments[0]
    return Super(kind._tulu_peer.ask("super", *arguments)) if type(kind) is Proxy else super(*arguments)


class Super:
    """What `super()` gives in a class that is derived from one of the program's: all of its names are the program's."""

    def __init__(self, proxy: Proxy) -> None:
        object.__setattr__(self, "proxy", proxy)

    def __getattribute__(self, name: str) -> Any:
        proxy = object.__getattribute__(self, "proxy")
        return proxy._tulu_peer.ask("get", proxy, name)
