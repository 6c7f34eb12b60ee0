"""What of a class is a tool, by which schema, and that every such tool can be called."""

from collections.abc import Mapping
from functools import cache, cached_property, wraps
from typing import Any

import pytest

from tulu.environments.authoring import Acting, describe, tool_names
from tulu.errors import RecipeError


def twice(method: Any) -> Any:
    """A decorator as users write them."""

    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        return method(*arguments, **named) * 2

    return call


class Base:
    limit = 3
    table: Mapping[str, int] = {}

    def reset(self, **row: Any) -> None:
        """Begin."""

    def inherited(self, a: int) -> int:
        """Of a base.

        Args:
            a: One.
        """
        return a


class Kinds(Base, dict[str, int]):
    """A tool of every kind that Python has; what a base in C brings along is none."""

    class Inner:
        """No tool."""

    @staticmethod
    def add(a: int, b: int) -> int:
        """Adds.

        Args:
            a: One.
            b: Other.
        """
        return a + b

    @classmethod
    def kind(cls, a: int) -> str:
        """Says the class.

        Args:
            a: One.
        """
        return f"{cls.__name__} {a}"

    @cache  # noqa: B019
    def cached(self, a: int) -> int:
        """Keeps what it said.

        Args:
            a: One.
        """
        return a * 10

    @twice
    def wrapped(self, a: int) -> int:
        """Says it twice.

        Args:
            a: One.
        """
        return a

    @staticmethod
    async def later(a: int) -> int:
        """Says it later.

        Args:
            a: One.
        """
        return a

    def __hash__(self) -> int:  # type: ignore[override]
        return 1

    @property
    def size(self) -> int:
        """No tool."""
        return 1

    @cached_property
    def known(self) -> int:
        """No tool."""
        return 1

    @staticmethod
    def _hidden() -> None:
        """No tool."""


def test_static_and_class_methods_and_decorated_ones_are_tools_by_their_own_arguments() -> None:
    tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in describe(Kinds).tools}
    assert sorted(tools) == ["add", "cached", "inherited", "kind", "later", "wrapped"]
    arguments = {name: (list(parameters["properties"]), parameters["required"]) for name, parameters in tools.items()}
    assert arguments.pop("add") == (["a", "b"], ["a", "b"])
    assert set(map(repr, arguments.values())) == {repr((["a"], ["a"]))}


def test_every_tool_that_is_described_can_be_called() -> None:
    acting, told = Acting(Kinds, {}, 1.0), dict[int, str]()
    names = tool_names(Kinds)
    acting.call([(name, {"a": 2, "b": 3} if name == "add" else {"a": 2}) for name in names], told.__setitem__)
    assert dict(zip(names, told.values(), strict=True)) == {
        "add": "5",
        "cached": "20",
        "inherited": "2",
        "kind": "Kinds 2",
        "later": "2",
        "wrapped": "4",
    }


def test_a_public_method_that_is_no_tool_is_refused_with_both_cures() -> None:
    class Named:
        def reset(self) -> None: ...

        @classmethod
        def build(cls, size):  # type: ignore[no-untyped-def]
            """Makes another."""

    with pytest.raises(RecipeError, match=r"env: Named.build: .*type hints.*what is no tool has a name that begins with _"):
        describe(Named)
