"""Running tests against an untrusted program, so that nothing the program can answer is the judge.

The parent asks the program for the value of one call and compares it (compare.py), or carries the messages between the program
and a tester, which runs the test's code in a sandbox of its own (sandbox_tester.py). CPU time and memory are counted by the
parent over all processes of a sandbox.
"""

import time
from dataclasses import dataclass
from typing import Any

from tulu.verifiers.code.analyse import Test
from tulu.verifiers.code.compare import is_equal, is_true
from tulu.verifiers.code.messages import SandboxGone, SandboxSpent, SandboxTimeout, parse
from tulu.verifiers.code.sandbox import WALL_PER_CPU, Limits, Sandbox
from tulu.verifiers.code.spare import take_sandbox
from tulu.verifiers.contract import shorten

_GRACE = 0.5
"""Seconds beyond the wall limit of a test in which the sandbox may still answer."""
_MOST_CALLS = 200_000
"""Messages between tester and program in one test."""
_MOST_RESTARTS = 3
"""Times that a program's sandbox is started again after a test ended it."""
_MOST_LATE = 2
"""Tests that may miss their time before the rest fail too."""
_FAULTS = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, AttributeError, MemoryError)
"""What an answer in a wrong form raises when it is read."""


@dataclass(frozen=True, slots=True)
class Result:
    """Whether a test passed; `detail` says why not."""

    passed: bool
    detail: str = ""
    starved: bool = False
    """Whether its time was up although it had CPU time left: the machine may have been busy."""


class Late(Exception):
    """The time for a first try is over."""


class Program:
    """The untrusted program in its sandbox, which is started again where a test ended it."""

    def __init__(self, source: str, imports: str, seconds: float, limits: Limits, prints: bool) -> None:
        self._load = {"source": source, "imports": imports, "prints": prints}
        self._seconds, self._limits, self._prints, self._ends = seconds, limits, prints, 0.0
        self._sandbox: Sandbox | None = None
        self._fresh: Sandbox | None = None
        self._restarts = 0
        self.failed: Result | None = None
        """Why the program does not load; no test can pass then."""

    def close(self) -> None:
        """Ends its sandbox."""
        for sandbox in (self._sandbox, self._fresh):
            if sandbox is not None:
                sandbox.close()
        self._sandbox = self._fresh = None

    def prepare(self) -> None:
        """Waits for a sandbox in which nothing runs yet; that is no time of the program."""
        self._fresh = take_sandbox("program", self._limits)
        self._fresh.wait_until_ready()

    def until(self, ends: float) -> None:
        """Sets the end of all tests."""
        self._ends = ends

    def start(self) -> Sandbox:
        """Its sandbox, with the program loaded; SandboxGone where it does not load."""
        if self.failed is not None:
            raise SandboxGone(self.failed.detail)
        if self._sandbox is None:
            if self._restarts > _MOST_RESTARTS:
                raise SandboxGone("it brought its sandbox down too often")
            self._restarts += 1
            self._sandbox, self._fresh = self._fresh or take_sandbox("program", self._limits), None
            self._sandbox.grant(self._seconds)
            try:
                answer = parse(self.ask(self._load))
            except SandboxGone as fault:
                self.failed = Result(False, _last_line(fault))
                raise
            if "error" in answer:
                self.failed = Result(False, error_text(answer), is_starved(answer, self))
                raise SandboxGone(self.failed.detail)
        return self._sandbox

    def grant(self) -> None:
        """Grants it the CPU time of one test from now on."""
        self.start().grant(self._seconds)

    def is_starved(self) -> bool:
        """Whether CPU time is left of what it was granted, and it had to wait for a core."""
        sandbox = self._sandbox
        return sandbox is not None and sandbox.left() > 0.1 * self._seconds and sandbox.was_kept_waiting()

    def ask(self, command: dict[str, Any]) -> bytes:
        """Its answer to a command as it came; where it gives none, its sandbox is ended, and the exception goes on."""
        sandbox = self._sandbox or self.start()
        wall = WALL_PER_CPU * self._seconds
        until = max(0.0, min(wall + _GRACE, self._ends - time.monotonic()))
        try:
            message = {**command, "cpu": self._seconds, "wall": wall, "prints": self._prints}
            sandbox.send(message, until)
            return sandbox.receive_line(until)
        except (SandboxGone, SandboxSpent):
            self.close()
            raise
        except SandboxTimeout:
            # It does not even see to its own end, so that nothing further is asked of it.
            self.failed = Result(False, "time limit", self.is_starved())
            self.close()
            raise


def is_starved(answer: dict[str, Any], program: Program) -> bool:
    """Whether an answer says that the wall time was up, and the program could not run when it wanted to."""
    return answer.get("error") == ["TimeLimit", "wall"] and program.is_starved()


def error_text(answer: dict[str, Any]) -> str:
    """The error in an answer, as `KeyError: 'x'`."""
    error = answer.get("error")
    if not isinstance(error, list) or len(error) < 2:
        return "nonsense"
    kind = error[0]
    while isinstance(kind, list) and kind:
        # The name stands in the tree of its class: ["b", "KeyError"] or ["c", 3, "Bad", ...].
        kind = kind[2] if kind[0] == "c" and len(kind) > 2 else kind[-1]
    return shorten(f"{kind}: {error[1]}" if error[1] else str(kind), 120)


def _last_line(fault: Exception) -> str:
    return shorten(str(fault).splitlines()[-1] if str(fault) else "ended", 120)


def _run_value_test(program: Program, test: Test) -> Result:
    program.grant()
    line = program.ask({"call": test.call, "values": list(test.values), "keywords": test.keywords})
    answer = parse(line)
    try:
        if "same" in answer and isinstance(answer["same"], int):
            # The program gave back one of its arguments, which it may have changed.
            answer["value"] = _given_back(test, answer)
        if "value" not in answer:
            return Result(False, error_text(answer), is_starved(answer, program))
        data = answer["value"]
        if test.relation == "equal":
            passed = is_equal(line, data, test.expected)
        elif test.relation == "same":
            passed = data is test.expected
        else:
            passed = is_true(data) is (test.relation == "true")
        return Result(passed, "" if passed else f"got {_describe(data)}")
    except _FAULTS as fault:
        return Result(False, f"answer refused: {fault}"[:120])


def _given_back(test: Test, answer: dict[str, Any]) -> Any:
    """The argument of a call that it gave back, as the call left it. The function is the first of the arguments."""
    changed = {entry[0]: entry[1] for entry in answer.get("changed", ()) if isinstance(entry, list) and len(entry) == 2}
    place = answer["same"]
    return changed.get(place, test.values[place - 1] if 0 < place <= len(test.values) else None)


def _describe(data: Any) -> str:
    """A value of a message as a person reads it, roughly."""
    if isinstance(data, list) and data:
        if data[0] == "f" and len(data) > 1:
            return str(float.fromhex(str(data[1])))
        if data[0] == "r" and len(data) > 2:
            return f"a {data[2]}"
        if data[0] in ("l", "t", "s") and len(data) > 1 and isinstance(data[1], list):
            around = {"l": "[]", "t": "()", "s": "{}"}[data[0]]
            return shorten(around[0] + ", ".join(_describe(entry) for entry in data[1][:20]) + around[1], 116)
    return shorten(repr(data), 116)


class Tester:
    """The trusted side: the sandbox in which the code of tests runs; started when a test needs it."""

    def __init__(self, seconds: float, limits: Limits) -> None:
        self._seconds, self._limits = seconds, limits
        self._sandbox: Sandbox | None = None

    def close(self) -> None:
        """Ends the sandbox."""
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None

    def run(self, program: Program, test: Test, ends: float) -> Result:
        """Runs one test, and carries its messages to the program and back."""
        program.grant()
        if self._sandbox is None:
            self._sandbox = take_sandbox("tester", self._limits)
        self._sandbox.grant(self._seconds)
        wall = WALL_PER_CPU * self._seconds
        ends = min(ends, time.monotonic() + wall + _GRACE)
        try:
            return self._converse(program, test, wall, ends)
        except (SandboxGone, SandboxSpent):
            # It waits for an answer that does not come any more.
            self.close()
            raise
        except SandboxTimeout:
            starved = self._is_starved(program)
            self.close()
            return program.failed or Result(False, "time limit", starved)

    def _is_starved(self, program: Program) -> bool:
        sandbox = self._sandbox
        return program.is_starved() or (sandbox is not None and sandbox.left() > 0 and sandbox.was_kept_waiting())

    def _converse(self, program: Program, test: Test, wall: float, ends: float) -> Result:
        assert self._sandbox is not None
        command = {
            "source": test.source, "names": test.names, "made": test.made, "modules": test.modules, "before": test.before,
            "functions": test.functions, "classes": test.classes, **test.flags, "cpu": self._seconds, "wall": wall,
        }  # fmt: skip
        self._sandbox.send(command, wall)
        for _ in range(_MOST_CALLS):
            message = self._sandbox.receive(max(0.0, ends - time.monotonic()))
            if "done" in message:
                done = message["done"]
                if done.get("value") is True:
                    return Result(True)
                late = done.get("error") == ["TimeLimit", "wall"]
                return Result(False, error_text(done), late and self._is_starved(program))
            answer = parse(program.ask(message))
            error = answer.get("error")
            if error is not None and not (isinstance(error, list) and len(error) == 4):
                # Its time was up, or its answer too large; the tester has nothing to go on with.
                self.close()
                return Result(False, error_text(answer), is_starved(answer, program))
            self._sandbox.send(answer, max(0.0, ends - time.monotonic()))
        raise SandboxGone(f"more than {_MOST_CALLS} calls")


def run_tests(
    source: str, tests: list[Test], seconds: float, limits: Limits, budget: float, imports: str = "", brief: float | None = None
) -> list[Result]:
    """The results of the tests, in order; a test that the program does not pass within its limits has failed.

    `budget` is the end of all tests in seconds. With `brief`, Late is raised where they take longer than so many seconds.
    """
    prints = any(test.flags.get("prints", False) for test in tests)
    program, tester, results = Program(source, imports, seconds, limits, prints), Tester(seconds, limits), list[Result]()
    try:
        program.prepare()
        ends = time.monotonic() + (budget if brief is None else brief)
        program.until(ends)
        for test in tests:
            late = sum(result.detail == "time limit" or result.detail.startswith("TimeLimit") for result in results)
            if time.monotonic() > ends or late >= _MOST_LATE:
                results.append(Result(False, "total time limit", any(result.starved for result in results)))
            else:
                results.append(_run_test(program, tester, test, ends))
            if brief is not None and time.monotonic() > ends:
                raise Late
    except SandboxSpent as fault:
        return [Result(False, str(fault)) for _ in tests]
    finally:
        program.close()
        tester.close()
    return results


def _run_test(program: Program, tester: Tester, test: Test, ends: float) -> Result:
    try:
        return _run_value_test(program, test) if test.kind == "value" else tester.run(program, test, ends)
    except SandboxTimeout:
        return program.failed or Result(False, "time limit")
    except SandboxGone as fault:
        return program.failed or Result(False, _last_line(fault))
