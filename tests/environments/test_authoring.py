"""What of a class is a tool, by which schema, and that every such tool can be called."""

import asyncio
from collections.abc import Mapping
from enum import Enum
from functools import cache, cached_property, wraps
from typing import Annotated, Any, Literal, TypedDict

import pytest

from tulu.environments.authoring import Acting, check_options, describe, tool_names
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


class Place(TypedDict):
    """A dict with names, which JSON has."""

    row: int


class Colour(Enum):
    """A class of the user's, which JSON has not."""

    RED = "r"


def tool_with(**hints: Any) -> type:
    """A class with a tool of these arguments, as hinted."""
    lines = "\n".join(f"        {name}: One." for name in hints)
    source = f"def tool(self, {', '.join(hints)}):\n    '''Does it.\n\n    Args:\n{lines}\n    '''"
    made: dict[str, Any] = {}
    exec(source, made)
    made["tool"].__annotations__ = hints
    return type("Env", (), {"reset": lambda self, **row: None, "tool": made["tool"]})


def test_arguments_hold_what_json_has() -> None:
    fit: list[Any] = [
        int | None,
        Literal["a", 1],
        int | str,
        list[dict[str, Any]],
        Place,
        tuple[int, str],
        Any,
        Annotated[int, "one"],
        dict,
    ]
    for hint in fit:
        assert len(describe(tool_with(x=hint)).tools) == 1, hint
    for hint, kind in [(Colour, "Colour"), (bytes, "bytes"), (list[Colour], "Colour"), (Colour | None, "Colour")]:
        with pytest.raises(RecipeError, match=f"env: Env.tool: x is a {kind}, and calls bring JSON; take str, int, float"):
            describe(tool_with(x=hint))


DOCUMENTED = '        """Does it.\n\n        Args:\n            x: One.\n        """\n'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    def tool(self, *x: int):\n" + DOCUMENTED, r"Env\.tool: \*x: int takes any arguments, .* write them out"),
        ("    def tool(self, **x: int):\n" + DOCUMENTED, r"Env\.tool: \*\*x: int takes any arguments"),
        ("    def tool(self, x: int, /):\n" + DOCUMENTED, r"Env\.tool: x stands before / .* remove the /"),
        ("    def tool(x: int):\n" + DOCUMENTED, r"Env\.tool: x is its first argument, .* put self before it"),
        ("    def get_reward(self, answer): pass", r"get_reward is called without arguments: missing .*'answer'; let tools"),
        ("    get_reward = 1.0", r"Env\.get_reward is no method; write `def get_reward"),
        ("    @property\n    def get_reward(self): return 1.0", r"Env\.get_reward is no method"),
    ],
)
def test_what_every_episode_would_fail_at_is_refused_at_the_start(body: str, message: str) -> None:
    made: dict[str, Any] = {}
    exec(f"class Env:\n    def reset(self, **row): pass\n{body}", made)
    with pytest.raises(RecipeError, match=message):
        describe(made["Env"])


def test_options_are_those_of_the_class() -> None:
    class Shop:
        def __init__(self, budget: int, size: int = 3) -> None: ...

    check_options(Shop, {"budget": 1})
    check_options(dict, {})
    for options, wrong in [({}, "no options: missing .*'budget'"), ({"budget": 1, "siz": 2}, "unexpected .*'siz'")]:
        with pytest.raises(RecipeError, match=rf"env\.options: Shop cannot be made of .*{wrong}.*\(budget: int, size: int = 3\)"):
            check_options(Shop, options)


def test_a_row_that_does_not_fit_reset_is_told_with_its_columns() -> None:
    class Goal:
        def reset(self, goal: int) -> None:
            goal + 1

    class Own:
        def reset(self, **row: Any) -> None:
            int([])  # type: ignore[call-overload]

    with pytest.raises(TypeError, match=r"reset is called with the row's columns, messages, goal: take them, or write reset"):
        Acting(Goal, {}, 1.0).reset({"messages": [], "goal": 1})
    with pytest.raises(TypeError, match="columns, self: name the column otherwise"):
        Acting(Own, {}, 1.0).reset({"self": 1})
    with pytest.raises(TypeError, match=r"unsupported operand|can only concatenate") as raised:
        Acting(Goal, {}, 1.0).reset({"goal": "a"})
    assert "columns" not in str(raised.value), "what reset itself raises is no misfit"


class Hasty(Base):
    """Its tools end programs, as those do that parse arguments."""

    def stop(self) -> None:
        """Ends the program."""
        raise SystemExit("no such option")

    async def leave(self) -> None:
        """Ends the program later."""
        await asyncio.sleep(0)
        raise SystemExit(2)

    async def wait(self) -> str:
        """Ends well."""
        await asyncio.sleep(0.05)
        return "here"

    async def cancel(self) -> None:
        """Cancels itself."""
        raise asyncio.CancelledError

    inherited = None  # type: ignore[assignment]


def test_a_tool_that_ends_the_program_has_that_as_its_result() -> None:
    acting, told = Acting(Hasty, {}, 1.0), dict[int, str]()
    acting.call([("stop", {}), ("leave", {})], told.__setitem__)
    assert told == {0: "error: SystemExit: no such option", 1: "error: SystemExit: 2"}
    acting.call([("leave", {}), ("wait", {}), ("cancel", {})], told.__setitem__)
    assert told == {0: "error: SystemExit: 2", 1: "here", 2: "error: CancelledError"}
