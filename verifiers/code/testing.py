"""Running tests against an untrusted program so that the program never sees the values that they expect.

A test is taken apart as far as its form allows:
`value`: of `assert EXPRESSION == LITERAL` or `assert CALL`, the expression runs beside the program, its value comes out as plain
data, and the parent compares. `tester`: other code runs in a second sandbox, where every name of the program is a proxy for a
call into the first. `in_process`: code that passes functions to the program runs beside it, which is the weakest way; only the
form of the test leads there, never what the program answers.
"""

import ast
import builtins
import secrets
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from tulu.verifiers.code.sandbox import WALL_PER_CPU, Limits, Sandbox, SandboxGone, SandboxTimeout
from tulu.verifiers.code.spare import take_sandbox
from tulu.verifiers.contract import GoldError, shorten

_GRACE = 1.0
"""Seconds beyond the wall limit of a test in which the sandbox may still answer."""
_MOST_CALLS = 20_000
"""Calls into the program that one test may make."""
_MOST_RESTARTS = 3
"""Times that a program's sandbox is started again after a test ended it."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


@dataclass(frozen=True, slots=True)
class Test:
    """One test, taken apart."""

    kind: Literal["value", "tester"]
    source: str
    """value: the expression; tester: the code."""
    expected: Any = None
    truth: bool | None = None
    """value: what a bare call must be, true or false; None where the value is compared with `expected`."""
    names: tuple[str, ...] = ()
    """tester: the names of the program that it uses."""
    modules: tuple[str, ...] = ()
    """Standard modules it uses without importing them."""


@dataclass(frozen=True, slots=True)
class Result:
    """Whether a test passed; `detail` says why not, or that it ran `in_process`."""

    passed: bool
    detail: str = ""


@lru_cache(maxsize=4096)
def take_apart(source: str) -> Test:
    """The parts of a test; GoldError where it is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        raise GoldError(f"test {shorten(source)!r} is no Python: {fault}") from fault
    if not tree.body:
        raise GoldError("a test is empty")
    only = tree.body[0] if len(tree.body) == 1 else None
    sides = _sides(only.test) if isinstance(only, ast.Assert) else None
    return _tester(tree, source) if sides is None else _value_test(*sides)


def _sides(test: ast.expr) -> tuple[ast.expr, Any, bool | None] | None:
    """The (expression, literal, truth) of a condition that the parent can decide by itself; None for any other."""
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


def _value_test(expression: ast.expr, expected: Any, truth: bool | None) -> Test:
    modules = sorted({part.id for part in ast.walk(expression) if isinstance(part, ast.Name)} & sys.stdlib_module_names)
    return Test("value", ast.unparse(expression), expected, truth, modules=tuple(modules))


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
    """The plain value in a JSON answer of the program; ValueError for references, unknown tags and deep nesting."""
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
    """The untrusted program in its sandbox, which is started again where a test ended it."""

    def __init__(self, source: str, seconds: float, limits: Limits) -> None:
        self._source, self._seconds, self._limits = source, seconds, limits
        self._sandbox: Sandbox | None = None
        self._restarts = 0
        self.failed = ""
        """Why the program does not load; no test can pass then. Empty where it loads."""

    def close(self) -> None:
        """Ends its sandbox."""
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None

    def _running(self) -> Sandbox:
        if self._sandbox is None:
            if self._restarts > _MOST_RESTARTS:
                raise SandboxGone("it brought its sandbox down too often")
            self._restarts += 1
            self._sandbox = take_sandbox(self._limits)
            loaded = self.ask({"op": "load", "source": self._source})
            if "error" in loaded:
                self.failed = _error_text(loaded)
        return self._sandbox

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """The program's answer to a command; where it gives none, its sandbox is ended, and the exception goes on."""
        sandbox = self._sandbox if command["op"] == "load" and self._sandbox else self._running()
        if self.failed:
            raise SandboxGone(self.failed)
        try:
            return sandbox.ask(
                {**command, "cpu": self._seconds, "wall": WALL_PER_CPU * self._seconds}, WALL_PER_CPU * self._seconds + _GRACE
            )
        except (SandboxGone, SandboxTimeout):
            self.close()
            raise


def _error_text(answer: dict[str, Any]) -> str:
    """The error in an answer, as `KeyError: 'x'`."""
    error = answer.get("error")
    return shorten(": ".join(str(part) for part in error) if isinstance(error, list) else "nonsense", 120)


def _run_value_test(program: Program, test: Test) -> Result:
    answer = program.ask({"op": "evaluate", "source": test.source, "modules": test.modules})
    if "value" not in answer:
        return Result(False, _error_text(answer))
    try:
        value = decode(answer["value"])
        passed = bool(value == test.expected) if test.truth is None else bool(value) is test.truth
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError) as fault:
        return Result(False, f"answer refused: {fault}"[:120])
    return Result(passed, "" if passed else f"got {_describe(value)}")


def _describe(value: Any) -> str:
    try:
        return shorten(repr(value), 116)
    except (ValueError, RecursionError):
        # Python does not print an integer of very many digits, or a list of very many levels.
        return f"a {type(value).__name__}"


def _run_tester(program: Program, test: Test, seconds: float, limits: Limits) -> Result:
    """Runs test code in a sandbox of its own, its calls forwarded to the program."""
    wall = WALL_PER_CPU * seconds
    ends = time.monotonic() + wall + _GRACE
    command = {"source": test.source, "names": test.names, "modules": test.modules, "cpu": seconds, "wall": wall}
    with Sandbox("tester", limits) as tester:
        tester.send(command, wall)
        for _ in range(_MOST_CALLS):
            message = tester.receive(max(0.0, ends - time.monotonic()))
            if "done" in message:
                return _tester_result(program, test, message["done"])
            answer = program.ask({"op": "invoke", "keywords": ["d", []], "arguments": ["l", []], **message["rpc"]})
            tester.send(answer, max(0.0, ends - time.monotonic()))
    return Result(False, f"more than {_MOST_CALLS} calls")


def _tester_result(program: Program, test: Test, done: dict[str, Any]) -> Result:
    if done.get("value") is True:
        return Result(True)
    if done.get("error", [""])[0] == "Unsendable":
        # The test passes something that JSON cannot hold; a program cannot bring this about.
        nonce = secrets.token_hex(16)
        answer = program.ask({"op": "test", "source": test.source, "nonce": nonce})
        passed = answer.get("value") == nonce
        return Result(passed, "in_process" if passed else _error_text(answer))
    return Result(False, _error_text(done))


def run_tests(source: str, tests: list[Test], seconds: float, limits: Limits, budget: float) -> list[Result]:
    """The results of the tests, in order; a test that the program does not pass within its limits has failed."""
    program, ends, results = Program(source, seconds, limits), time.monotonic() + budget, list[Result]()
    try:
        for test in tests:
            if time.monotonic() > ends:
                results.append(Result(False, "total time limit"))
                continue
            try:
                results.append(
                    _run_value_test(program, test) if test.kind == "value" else _run_tester(program, test, seconds, limits)
                )
            except SandboxTimeout:
                results.append(Result(False, "time limit"))
            except SandboxGone as fault:
                results.append(Result(False, shorten(str(fault).splitlines()[-1] if str(fault) else "ended", 120)))
    finally:
        program.close()
    return results
