"""The trusted side of a test: runs its code with proxies for the names of the program; runs inside the sandbox.

Test functions as pytest runs them, and classes of unittest, are run too. Whether a test passes follows from its own control flow.
"""

from __future__ import annotations

import builtins
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tulu.verifiers.code.sandbox_channel import Channel, run_timed
    from tulu.verifiers.code.sandbox_derive import parent_class
    from tulu.verifiers.code.sandbox_peer import Peer
    from tulu.verifiers.code.sandbox_proxy import Proxy, mark_as_made
    from tulu.verifiers.code.sandbox_pytest import Captured, make_pytest

CLOSED = ("_", "gi_", "cr_", "ag_", "f_", "tb_", "co_", "func_")
"""Beginnings of names of a test's objects that the program may not read: by way of them it would come to the test itself."""


def serve_tests(channel: Channel) -> None:
    """Runs pieces of test code; answers whether each passed."""
    while True:
        command = channel.receive()
        channel.send({"done": run_timed(command, run_test, channel, command)})


def run_test(channel: Channel, command: dict[str, Any]) -> dict[str, Any]:
    """Runs test code to its end, which is what passing means, and at least one assertion of it, if it has any."""
    peer = Peer(channel, judges=True)
    peer.allowed, peer.stops, peer.holds = lends, command["stops"], command["holds"]
    passed: list[None] = []
    space = space_of(peer, command)
    space["__tulu_passed__"] = lambda: passed.append(None)
    exec(compile(command["source"], "test", "exec", dont_inherit=True), space)
    for name in command["functions"]:
        run_function(space[name], space)
    for name in command["classes"]:
        run_class(space[name], space)
    if command["counts"] and not passed:
        raise AssertionError("no assertion was executed")
    if peer.broken:
        raise AssertionError("an assertion failed in code that the program called")
    return {"value": True}


def space_of(peer: Peer, command: dict[str, Any]) -> dict[str, Any]:
    """The names that a test sees: built-in names, the row's imports and helpers, then those of the program."""
    own = {**vars(builtins), "type": TypeOf, "super": parent_class, "callable": can_be_called}
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": own}
    if command["pytest"]:
        sys.modules["pytest"] = make_pytest()
    names = peer.ask("names", *command["names"])
    for name, value in names.items():
        # The empty name is the program as a module.
        space[name or "__tulu_program__"] = mark_as_made(value) if name in command["made"] or not name else value
    for name in command["modules"]:
        space[name] = __import__(name)
    for piece in command["before"]:
        exec(compile(piece, "test", "exec", dont_inherit=True), space)
    return space


def lends(action: str, target: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether the program may do something to an object that a test handed over: call it, iterate, or use what is public."""
    kind = type(target)
    if action in ("get", "set", "del"):
        name = arguments[0]
        if type(name) is not str or name.startswith(CLOSED) or isinstance(target, (type, type(sys), type(lends), Proxy)):
            return False
        inner = kind.__name__ in ("generator", "coroutine", "async_generator", "frame", "code", "traceback")
        return kind.__module__ == "__main__" or (action == "get" and not inner)
    return action not in ("super", "subclass", "dir", "names", "base")


class KindOfTypeOf(type):
    """What makes `type(x)` of a test the class of the program's object, and lets `type` itself be a type still."""

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        value = arguments[0]
        if len(arguments) == 1 and type(value) is Proxy:
            return value._tulu_peer.ask("type", value)
        return type(*arguments, **keywords)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, type)


class TypeOf(type, metaclass=KindOfTypeOf):
    """`type` in a test."""


def can_be_called(value: Any) -> bool:
    """`callable` in a test."""
    return value._tulu_peer.ask("callable", value) is True if type(value) is Proxy else callable(value)


def run_class(kind: type, space: dict[str, Any]) -> None:
    """Runs the tests of a class of unittest, or of one as pytest takes them."""
    unittest = sys.modules.get("unittest")
    if unittest is None or not issubclass(kind, unittest.TestCase):
        for name in [name for name in dir(kind) if name.startswith("test")]:
            instance = kind()
            getattr(instance, "setup_method", lambda: None)()
            run_function(getattr(instance, name), space)
        return
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(kind).run(result)
    for _, text in (*result.errors, *result.failures):
        raise AssertionError(text.strip().splitlines()[-1])
    if not result.testsRun or not result.wasSuccessful() or len(result.skipped) == result.testsRun:
        raise AssertionError("no test was run")


def run_function(function: Any, space: dict[str, Any], given: dict[str, Any] | None = None) -> None:
    """Runs a test function once for each of its parameters, with the fixtures that it takes."""
    for parameters in getattr(function, "_parameters", None) or [{}]:
        values = dict(given or {}, **parameters)
        ends: list[Any] = []
        for name in arguments_of(function):
            if name not in values:
                values[name] = fixture(name, space, ends)
        result = function(**values)
        if hasattr(result, "__await__") and type(result) is not Proxy:
            __import__("asyncio").run(result)
        for generator in reversed(ends):
            next(generator, None)


def arguments_of(function: Any) -> tuple[str, ...]:
    """The names of a function's parameters, without that of the instance."""
    bound = 1 if hasattr(function, "__self__") else 0
    code = function.__code__
    missing = code.co_argcount - len(function.__defaults__ or ())
    return tuple(code.co_varnames[bound:missing])


def fixture(name: str, space: dict[str, Any], ends: list[Any]) -> Any:
    """The value of a fixture: one of the test's own, or what captures the output."""
    if name == "capsys":
        return Captured(ends)
    if name in ("tmp_path", "tmpdir"):
        return __import__("pathlib").Path(__import__("tempfile").mkdtemp())
    function = space[name]
    value = function(**{other: fixture(other, space, ends) for other in arguments_of(function)})
    if type(value).__name__ == "generator" and type(value) is not Proxy:
        ends.append(value)
        return next(value)
    return value
