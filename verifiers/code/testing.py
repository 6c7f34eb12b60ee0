"""Running tests against an untrusted program so that it never meets the values they expect.

A test is taken apart as far as its form allows:
`value`: `assert EXPRESSION == LITERAL` (or a bare call): the expression runs beside the program, its plain value comes out, the
parent compares. `tester`: other code runs in a second sandbox, where every name of the program is a proxy for a call into the
first. `in_process`: code that hands functions to the program runs beside it, the weakest class; only the test's own form
leads there, never what the program answers.
"""

import ast
import builtins
import secrets
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from tulu.verifiers.code.sandbox import WALL, Limits, Sandbox, SandboxGone, SandboxTimeout
from tulu.verifiers.code.spare import program_sandbox
from tulu.verifiers.contract import GoldError, shorten

_GRACE = 1.0
_CALLS = 20_000
_RESTARTS = 3
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


@dataclass(frozen=True, slots=True)
class Test:
    """One test, taken apart."""

    kind: Literal["value", "tester"]
    source: str
    """value: the expression; tester: the code."""
    expected: Any = None
    truth: bool | None = None
    """value: the truth that a bare call must have; None compares with `expected`."""
    names: tuple[str, ...] = ()
    """tester: names of the program."""
    modules: tuple[str, ...] = ()
    """Standard modules it uses without importing them."""


@dataclass(frozen=True, slots=True)
class Result:
    """Whether a test passed, and how it was judged."""

    passed: bool
    detail: str = ""


@lru_cache(maxsize=4096)
def plan(source: str) -> Test:
    """Takes a test apart; GoldError where it is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        raise GoldError(f"test {shorten(source)!r} is no Python: {fault}") from fault
    if not tree.body:
        raise GoldError("a test is empty")
    return _value_test(tree.body[0]) if len(tree.body) == 1 and _is_value(tree.body[0]) else _tester(tree, source)


def _is_value(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assert) and _sides(node.test) is not None


def _sides(test: ast.expr) -> tuple[ast.expr, Any, bool | None] | None:
    """(expression, literal, truth) of a condition that the parent can judge by itself."""
    if isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id not in vars(builtins):
        return test, None, True
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _sides(test.operand)
        return (inner[0], None, False) if inner is not None and inner[2] is True else None
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq | ast.Is):
        return None
    for expression, literal in ((test.left, test.comparators[0]), (test.comparators[0], test.left)):
        try:
            value = ast.literal_eval(literal)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(test.ops[0], ast.Is) and value not in (None, True, False):
            return None
        return expression, value, None
    return None


def _value_test(node: ast.stmt) -> Test:
    assert isinstance(node, ast.Assert)
    sides = _sides(node.test)
    assert sides is not None
    used = sorted({part.id for part in ast.walk(sides[0]) if isinstance(part, ast.Name)} & sys.stdlib_module_names)
    return Test("value", ast.unparse(sides[0]), sides[1], sides[2], modules=tuple(used))


def _tester(tree: ast.Module, source: str) -> Test:
    nodes = list(ast.walk(tree))
    loaded = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    free = sorted(loaded - bound - set(vars(builtins)))
    modules = tuple(name for name in free if name in sys.stdlib_module_names)
    return Test("tester", source, names=tuple(name for name in free if name not in modules), modules=modules)


def decode(data: Any, depth: int = 0) -> Any:
    """A plain value of the program, from its JSON; ValueError for references, bad tags and deep nesting."""
    if not isinstance(data, list):
        if isinstance(data, _PLAIN):
            return data
        raise ValueError("no plain value")
    if depth > 100 or not data:
        raise ValueError("no plain value")
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
        return {decode(key, depth + 1): decode(value, depth + 1) for key, value in rest[0]}
    kinds: dict[str, Any] = {"l": list, "t": tuple, "s": set, "z": frozenset, "q": list}
    if tag not in kinds:
        raise ValueError(f"a {shorten(str(rest[-1]), 40)} is no plain value")
    return kinds[tag](decode(entry, depth + 1) for entry in rest[0])


class Program:
    """The untrusted program in its sandbox; started again where a test brought it down."""

    def __init__(self, source: str, seconds: float, limits: Limits) -> None:
        self._source, self._seconds, self._limits = source, seconds, limits
        self._sandbox: Sandbox | None = None
        self._restarts = 0
        self.failed = ""
        """Why it does not load; then no test can pass."""

    def close(self) -> None:
        """Ends its sandbox."""
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None

    def _running(self) -> Sandbox:
        if self._sandbox is None:
            if self._restarts > _RESTARTS:
                raise SandboxGone("it brought its sandbox down too often")
            self._restarts += 1
            self._sandbox = program_sandbox(self._limits)
            loaded = self.ask({"op": "load", "source": self._source})
            if "error" in loaded:
                self.failed = _told(loaded)
        return self._sandbox

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """An answer of the program; where it gives none, its sandbox is ended."""
        sandbox = self._sandbox if command["op"] == "load" and self._sandbox else self._running()
        if self.failed:
            raise SandboxGone(self.failed)
        try:
            return sandbox.ask({**command, "cpu": self._seconds, "wall": WALL * self._seconds}, WALL * self._seconds + _GRACE)
        except (SandboxGone, SandboxTimeout):
            self.close()
            raise


def _told(answer: dict[str, Any]) -> str:
    error = answer.get("error")
    return shorten(": ".join(str(part) for part in error) if isinstance(error, list) else "nonsense", 120)


def _value(program: Program, test: Test) -> Result:
    answer = program.ask({"op": "evaluate", "source": test.source, "modules": test.modules})
    if "value" not in answer:
        return Result(False, _told(answer))
    try:
        value = decode(answer["value"])
        passed = bool(value == test.expected) if test.truth is None else bool(value) is test.truth
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError) as fault:
        return Result(False, f"answer refused: {fault}"[:120])
    return Result(passed, "" if passed else f"got {_shown(value)}")


def _shown(value: Any) -> str:
    try:
        return shorten(repr(value), 116)
    except (ValueError, RecursionError):
        # An integer of too many digits, or too deep a list, is told by its type.
        return f"a {type(value).__name__}"


def _try(program: Program, test: Test, seconds: float, limits: Limits) -> Result:
    """Runs test code in a sandbox of its own, its calls forwarded to the program."""
    wall = WALL * seconds
    ends = time.monotonic() + wall + _GRACE
    command = {"source": test.source, "names": test.names, "modules": test.modules, "cpu": seconds, "wall": wall}
    with Sandbox("tester", limits) as tester:
        tester.send(command, wall)
        for _ in range(_CALLS):
            said = tester.receive(max(0.0, ends - time.monotonic()))
            if "done" in said:
                return _done(program, test, said["done"])
            answer = program.ask({"op": "invoke", "keywords": ["d", []], "arguments": ["l", []], **said["rpc"]})
            tester.send(answer, max(0.0, ends - time.monotonic()))
    return Result(False, f"more than {_CALLS} calls")


def _done(program: Program, test: Test, done: dict[str, Any]) -> Result:
    if done.get("value") is True:
        return Result(True)
    if done.get("error", [""])[0] == "Unsendable":
        # Decided by what the test hands over; a program cannot bring it about.
        nonce = secrets.token_hex(16)
        answer = program.ask({"op": "test", "source": test.source, "nonce": nonce})
        return Result(answer.get("value") == nonce, "in_process" if answer.get("value") == nonce else _told(answer))
    return Result(False, _told(done))


def run_tests(source: str, tests: list[Test], seconds: float, limits: Limits, budget: float) -> list[Result]:
    """Results of the tests in order; what the program does not do within its limits is failed, never an error of ours."""
    program, ends, results = Program(source, seconds, limits), time.monotonic() + budget, list[Result]()
    try:
        for test in tests:
            if time.monotonic() > ends:
                results.append(Result(False, "total time limit"))
                continue
            try:
                results.append(_value(program, test) if test.kind == "value" else _try(program, test, seconds, limits))
            except SandboxTimeout:
                results.append(Result(False, "time limit"))
            except SandboxGone as fault:
                results.append(Result(False, shorten(str(fault).splitlines()[-1] if str(fault) else "ended", 120)))
    finally:
        program.close()
    return results
