"""What tests use most of pytest, in a module of that name; runs inside the sandbox, in one module with sandbox_tester.py."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tulu.verifiers.code.sandbox_proxy import Proxy


class Captured:
    """What a test and the program print, as pytest's capsys gives it."""

    def __init__(self, ends: list[Any]) -> None:
        io = __import__("io")
        self.out, self.before = io.StringIO(), sys.stdout
        sys.stdout = self.out
        ends.append(self.restore())

    def restore(self) -> Any:
        sys.stdout = self.before
        yield

    def readouterr(self) -> Any:
        text = self.out.getvalue()
        self.out.seek(0)
        self.out.truncate()
        return __import__("collections").namedtuple("Captured", "out err")(text, "")


class Raises:
    """`pytest.raises`: the block must raise an exception of a class, whose text may have to match a pattern."""

    def __init__(self, kinds: Any, match: str | None = None) -> None:
        self.kinds, self.match, self.value = kinds, match, None

    def __enter__(self) -> Raises:
        return self

    def __exit__(self, kind: Any, fault: Any, trace: Any) -> bool:
        if kind is None:
            raise AssertionError("did not raise")
        if not issubclass(kind, self.kinds):
            return False
        if self.match is not None and not __import__("re").search(self.match, str(fault)):
            raise AssertionError("raised with another text")
        self.value, self.type = fault, kind
        return True


class Approximately:
    """`pytest.approx` of a number, or of a list or dict of numbers."""

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None) -> None:
        self.expected, self.rel, self.abs = expected, rel, abs

    def __eq__(self, other: Any) -> bool:
        expected = self.expected
        if type(expected) in (list, tuple):
            return type(other) is type(expected) and len(other) == len(expected) and all(map(self.one, other, expected))
        if type(expected) is dict:
            return (
                type(other) is dict
                and other.keys() == expected.keys()
                and all(self.one(other[k], v) for k, v in expected.items())
            )
        return self.one(other, expected)

    def one(self, value: Any, expected: Any) -> bool:
        if type(value) is Proxy or not isinstance(value, (int, float, complex)):
            return bool(type(value) is not Proxy and value == expected)
        absolute = 1e-12 if self.abs is None else self.abs
        relative = (1e-6 if self.rel is None else self.rel) if self.rel is not None or self.abs is None else 0.0
        return bool(value == expected or abs(value - expected) <= max(absolute, relative * abs(expected)))

    __hash__ = None  # type: ignore[assignment]


def parametrize(names: Any, cases: Any, **_options: Any) -> Any:
    """`pytest.mark.parametrize`: notes the parameters at the function."""
    keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)

    def mark(function: Any) -> Any:
        before = getattr(function, "_parameters", None) or [{}]
        rows = [dict(zip(keys, case if len(keys) > 1 else (case,), strict=True)) for case in cases]
        function._parameters = [{**old, **new} for old in before for new in rows]
        return function

    return mark


def give_back(function: Any = None, **_options: Any) -> Any:
    """A decorator that changes nothing, with options or without."""
    return function if callable(function) else give_back


def fail(reason: str = "") -> None:
    """`pytest.fail`."""
    raise AssertionError(reason)


def parameters(*values: Any, **_options: Any) -> Any:
    """`pytest.param`."""
    return values if len(values) > 1 else values[0]


class Marks:
    """`pytest.mark`: of its marks only the parameters matter here."""

    def __getattr__(self, name: str) -> Any:
        return parametrize if name == "parametrize" else lambda *arguments, **_options: give_back(*arguments[:1])


def make_pytest() -> Any:
    """The module."""
    module = type(sys)("pytest")
    members = {"raises": Raises, "approx": Approximately, "fixture": give_back, "fail": fail, "param": parameters}
    vars(module).update(members, mark=Marks())
    return module
