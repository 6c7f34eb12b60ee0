"""code and code_stdio: the share of tests that a program passes, in a sandbox.

Ground truth of `code`: a list of assert statements (or any test code), or {"tests": [...], "imports": [...],
"time_limit": s, "threshold": t}; of `code_stdio`: a list of {"input", "output"}, or {"tests": [...], "time_limit": s,
"tolerance": x}. The program is the last Python block of the answer, else its last block, else all of it.
tulu3 follows open-instruct (ground_truth_utils.py, code_utils @ e6c3044) in what it takes for the program and in its
deny-list, but still runs it in the sandbox and compares outside of it.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.code.remote import remote_results, remote_url
from tulu.verifiers.code.sandbox import Limits, require
from tulu.verifiers.code.script import Output, run_script
from tulu.verifiers.code.spare import keep_a_spare
from tulu.verifiers.code.testing import Result, Test, plan, run_tests
from tulu.verifiers.contract import Case, GoldError, Verifier, is_finite, literal, shorten
from tulu.verifiers.text import after_thinking

_SECONDS = 6.0
"""CPU time of a test where the data names none."""
_BUDGET = 40.0
DEADLINE = 60.0
"""Seconds within which a verdict comes: the budget of all tests, start-up, and the last test's own time."""
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)
_PYTHON = ("python", "py", "python3", "py3")
_UPSTREAM_BLOCK = re.compile(r"```(?:python)?(.*?)```", re.DOTALL)
_DENIED = ("import os", "threading", "multiprocess", "shutil", "torch", "sklearn")


@dataclass(frozen=True, slots=True)
class Gold:
    """Tests of one row."""

    tests: tuple[Any, ...]
    seconds: float
    threshold: float
    tolerance: Decimal | None
    preamble: str


def _fields(gold: Any, form: str) -> dict[str, Any]:
    wanted = f'a non-empty list of tests, [{form}], or {{"tests": [{form}]}}'
    if isinstance(gold, str):
        try:
            gold = literal(gold)
        except GoldError as fault:
            raise GoldError(f"ground_truth is plain text, {shorten(gold)!r}; give {wanted}") from fault
    fields = gold if isinstance(gold, dict) else {"tests": gold}
    if not isinstance(fields.get("tests"), list) or not fields["tests"]:
        raise GoldError(f"ground_truth must be {wanted}")
    return fields


def _number(fields: dict[str, Any], key: str, default: float, most: float) -> float:
    value = fields.get(key, default)
    if not is_finite(value) or not 0 <= value <= most:
        raise GoldError(f"{key} must be a number from 0 to {most:g}, got {value!r}")
    return float(value)


def _gold(gold: Any, take: Callable[[Any], Any]) -> Gold:
    fields = _fields(gold, '"assert f(2) == 4", ...' if take is _assertion else '{"input": "2", "output": "4"}, ...')
    imports = fields.get("imports", fields.get("test_imports", []))
    if not isinstance(imports, list) or not all(isinstance(line, str) for line in imports):
        raise GoldError("imports must be a list of lines")
    tolerance = _number(fields, "tolerance", 0, 1)
    return Gold(
        tuple(take(test) for test in fields["tests"]),
        _number(fields, "time_limit", _SECONDS, _BUDGET) or _SECONDS,
        _number(fields, "threshold", 0, 1),
        Decimal(str(tolerance)) if tolerance else None,
        "\n".join(imports),
    )


def _assertion(test: Any) -> str:
    if not isinstance(test, str):
        raise GoldError(f"a test must be a string of Python, got {type(test).__name__}")
    plan(test)
    return test


def _exchange(test: Any) -> tuple[str, str]:
    if not isinstance(test, dict) or not all(isinstance(test.get(key), str) for key in ("input", "output")):
        raise GoldError("a test must be {input, output}, both strings")
    return test["input"], test["output"]


@lru_cache(maxsize=1024)
def _asserts(text: str) -> Gold:
    return _gold(text, _assertion)


@lru_cache(maxsize=1024)
def _exchanges(text: str) -> Gold:
    return _gold(text, _exchange)


def check_code(gold: Any) -> None:
    """GoldError unless there are tests, all of them Python."""
    _gold(gold, _assertion)


def check_stdio(gold: Any) -> None:
    """GoldError unless there are tests, each with input and output."""
    _gold(gold, _exchange)


def program_in(completion: str) -> str:
    """The last Python block after the thinking, else the last block of no stated language, else the last, else all of it."""
    text = after_thinking(completion)
    blocks: list[tuple[str, str]] = []
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[1].startswith(opened[1]) and not fence[2]:
            blocks.append((opened[2].lower(), text[opened.end() + 1 : fence.start()]))
            opened = None
    if opened is not None:
        # A block that was cut off is still the program that was written.
        blocks.append((opened[2].lower(), text[opened.end() + 1 :]))
    for wanted in (_PYTHON, ("",)):
        found = [block for language, block in blocks if language in wanted]
        if found:
            return found[-1]
    return blocks[-1][1] if blocks else text


def upstream_program_in(completion: str) -> str:
    """As open-instruct cuts it out: a fence "```py" leaves `py` as the first line, a later shell block wins."""
    blocks = _UPSTREAM_BLOCK.findall(completion)
    return blocks[-1].strip() if blocks else completion


def _verdict(results: list[Result], threshold: float) -> Verdict:
    share = sum(result.passed for result in results) / len(results)
    failed = next((result.detail for result in results if not result.passed), "")
    weak = ", in_process" if any(result.detail == "in_process" for result in results) else ""
    detail = f"{sum(result.passed for result in results)}/{len(results)} tests{weak}" + (f"; {failed}" if failed else "")
    return Verdict(share if share >= threshold else 0.0, detail=shorten(detail, 200))


def _key(gold: Any) -> str:
    return gold if isinstance(gold, str) else json.dumps(gold)


def _run_code(source: str, gold: Gold) -> list[Result]:
    if remote_url():
        return remote_results("code", source, list(gold.tests), gold.seconds)
    require()
    tests: list[Test] = [plan(test) for test in gold.tests]
    return run_tests(source, tests, gold.seconds, Limits(), _BUDGET)


def _graded(case: Case, program: Callable[[str], str], denied: tuple[str, ...]) -> Verdict:
    gold, source = _asserts(_key(case.gold)), program(case.completion)
    if not source.strip():
        return Verdict(0.0, detail="no program")
    if any(word in source for word in denied):
        return Verdict(0.0, detail="denied word")
    source = source.encode("utf-8", "replace").decode()
    return _verdict(_run_code(f"{gold.preamble}\n{source}" if gold.preamble else source, gold), gold.threshold)


def code(case: Case) -> Verdict:
    """Share of the tests that pass; 0 under the threshold."""
    return _graded(case, program_in, ())


def code_tulu3(case: Case) -> Verdict:
    """As code, with open-instruct's idea of the program and its deny-list of words."""
    return _graded(case, upstream_program_in, _DENIED)


def same_output(said: str, wanted: str, tolerance: Decimal | None) -> bool:
    """Line by line without outer blank space, then word by word, numbers within the tolerance where there is one."""
    lines, wanted_lines = (text.strip().splitlines() for text in (said, wanted))
    if [line.strip() for line in lines] == [line.strip() for line in wanted_lines]:
        return True
    if len(lines) != len(wanted_lines):
        return False
    return all(_same_line(line.split(), other.split(), tolerance) for line, other in zip(lines, wanted_lines, strict=True))


def _same_line(words: list[str], wanted: list[str], tolerance: Decimal | None) -> bool:
    return len(words) == len(wanted) and all(_same_word(a, b, tolerance) for a, b in zip(words, wanted, strict=True))


def _same_word(word: str, wanted: str, tolerance: Decimal | None) -> bool:
    if word == wanted:
        return True
    if tolerance is None or len(word) > 100:
        return False
    try:
        return abs(Decimal(word) - Decimal(wanted)) <= tolerance * max(Decimal(1), abs(Decimal(wanted)))
    except (InvalidOperation, ArithmeticError):
        return False


def _told(output: Output, gold: Gold, wanted: str) -> Result:
    if output.code != 0:
        return Result(False, shorten(output.detail.splitlines()[-1] if output.detail else f"exit code {output.code}", 120))
    said = output.text.decode("utf-8", "replace")
    passed = same_output(said, wanted, gold.tolerance)
    return Result(passed, "" if passed else shorten(f"printed {said!r}", 120))


def code_stdio(case: Case) -> Verdict:
    """Share of the inputs for which the program prints the wanted output; each runs in a sandbox of its own."""
    gold, source = _exchanges(_key(case.gold)), program_in(case.completion)
    if not source.strip():
        return Verdict(0.0, detail="no program")
    source = source.encode("utf-8", "replace").decode()
    if remote_url():
        tests = [{"input": given, "output": wanted} for given, wanted in gold.tests]
        return _verdict(remote_results("code_stdio", source, tests, gold.seconds), gold.threshold)
    require()
    return _verdict(run_exchanges(source, gold), gold.threshold)


def run_exchanges(source: str, gold: Gold) -> list[Result]:
    """One result per input; once the budget of all tests is used up, the rest fail."""
    left, results = _BUDGET, list[Result]()
    for given, wanted in gold.tests:
        if left <= 0:
            results.append(Result(False, "total time limit"))
            continue
        output = run_script(source, given.encode("utf-8", "replace"), gold.seconds, Limits())
        left -= output.seconds
        results.append(_told(output, gold, wanted))
    return results


def answer_remote(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs the job of a remote grader here; GoldError, a ValueError's cousin, never leaves: bad tests are told as such."""
    kind, program, fields = job["verifier"], str(job["program"]), {"tests": job["tests"], "time_limit": job["time_limit"]}
    require()
    try:
        if kind == "code":
            results = run_tests(
                program, [plan(test) for test in _gold(fields, _assertion).tests], job["time_limit"], Limits(), _BUDGET
            )
        elif kind == "code_stdio":
            results = run_exchanges(program, _gold(fields, _exchange))
        else:
            raise ValueError(f"verifier {kind!r} is not run here")
    except GoldError as fault:
        raise ValueError(str(fault)) from fault
    return [{"passed": result.passed, "detail": result.detail} for result in results]


def warm() -> None:
    """Has the first program's sandbox started before it is needed."""
    if not remote_url():
        require()
        keep_a_spare()


CODE = Verifier(
    check=check_code,
    strict=code,
    tulu3=code_tulu3,
    key=lambda case: program_in(case.completion),
    deadline=DEADLINE,
    ready=require,
    warm=warm,
)
CODE_STDIO = replace(CODE, check=check_stdio, strict=code_stdio, tulu3=code_stdio, warm=None)
