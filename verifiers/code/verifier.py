"""code and code_stdio: the share of tests that a program passes in a sandbox.

Ground truth of `code`: a list of assert statements (or any test code), or {"tests": [...], "imports": [...],
"time_limit": s, "threshold": t}; of `code_stdio`: a list of {"input", "output"}, or {"tests": [...], "time_limit": s,
"tolerance": x}. The program is the last Python block of the answer, else its last block, else all of it.
tulu3 takes the same text for the program as open-instruct (ground_truth_utils.py, code_utils @ e6c3044), and refuses the same
words; it still runs the program in the sandbox, and compares outside of it.
"""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.code.remote_client import remote_results, remote_url
from tulu.verifiers.code.sandbox import Limits, require
from tulu.verifiers.code.script import Output, run_script
from tulu.verifiers.code.spare import keep_spare
from tulu.verifiers.code.testing import Result, run_tests, take_apart
from tulu.verifiers.contract import Case, GoldError, Verifier, as_text, is_finite, parse_literal, shorten
from tulu.verifiers.text import after_thinking

_SECONDS = 6.0
"""CPU seconds of a test where the data gives none."""
_BUDGET = 40.0
"""Seconds for all tests of a program together."""
DEADLINE = 60.0
"""Seconds within which a verdict comes: the budget of all tests, the start of a sandbox, and the time of the last test."""
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)
"""The line that opens or closes a block: "```python", "~~~"; the groups are the fence and the language."""
_PYTHON = ("python", "py", "python3", "py3")
_UPSTREAM_BLOCK = re.compile(r"```(?:python)?(.*?)```", re.DOTALL)
_DENIED_WORDS = ("import os", "threading", "multiprocess", "shutil", "torch", "sklearn")


@dataclass(frozen=True, slots=True)
class Gold:
    """The tests of one row, and how they are run."""

    tests: tuple[Any, ...]
    """Test code for `code`; {input, output} for `code_stdio`."""
    seconds: float
    """CPU seconds of a test."""
    threshold: float
    """The smallest share of passed tests that does not score 0."""
    tolerance: Decimal | None
    """How far printed numbers may be off; None where they are compared as text."""
    imports: str
    """Lines that come before the program."""


def _fields(gold: Any, form: str) -> dict[str, Any]:
    forms = f'a non-empty list of tests, [{form}], or {{"tests": [{form}]}}'
    if isinstance(gold, str):
        try:
            gold = parse_literal(gold)
        except GoldError as fault:
            raise GoldError(f"ground_truth is plain text, {shorten(gold)!r}; give {forms}") from fault
    fields = gold if isinstance(gold, dict) else {"tests": gold}
    if not isinstance(fields.get("tests"), list) or not fields["tests"]:
        raise GoldError(f"ground_truth must be {forms}")
    return fields


def _number(fields: dict[str, Any], key: str, default: float, most: float) -> float:
    value = fields.get(key, default)
    if not is_finite(value) or not 0 <= value <= most:
        raise GoldError(f"{key} must be a number from 0 to {most:g}, got {value!r}")
    return float(value)


def _parse(gold: Any, parse_test: Callable[[Any], Any]) -> Gold:
    """The tests of a ground truth, each read by `parse_test`; GoldError where they cannot be used."""
    fields = _fields(gold, '"assert f(2) == 4", ...' if parse_test is _parse_assertion else '{"input": "2", "output": "4"}, ...')
    imports = fields.get("imports", fields.get("test_imports", []))
    if not isinstance(imports, list) or not all(isinstance(line, str) for line in imports):
        raise GoldError("imports must be a list of lines")
    tolerance = _number(fields, "tolerance", 0, 1)
    return Gold(
        tuple(parse_test(test) for test in fields["tests"]),
        _number(fields, "time_limit", _SECONDS, _BUDGET) or _SECONDS,
        _number(fields, "threshold", 0, 1),
        Decimal(str(tolerance)) if tolerance else None,
        "\n".join(imports),
    )


def _parse_assertion(test: Any) -> str:
    if not isinstance(test, str):
        raise GoldError(f"a test must be a string of Python, got {type(test).__name__}")
    take_apart(test)
    return test


def _parse_exchange(test: Any) -> dict[str, str]:
    if not isinstance(test, dict) or not all(isinstance(test.get(key), str) for key in ("input", "output")):
        raise GoldError("a test must be {input, output}, both strings")
    return {key: test[key] for key in ("input", "output")}


@lru_cache(maxsize=1024)
def _cached_parse(text: str, parse_test: Callable[[Any], Any]) -> Gold:
    return _parse(text, parse_test)


def program_in(completion: str) -> str:
    """The last Python block after the thinking, else the last block without a language, else the last block, else all text."""
    text = after_thinking(completion)
    blocks: list[tuple[str, str]] = []
    opening: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif fence[1].startswith(opening[1]) and not fence[2]:
            blocks.append((opening[2].lower(), text[opening.end() + 1 : fence.start()]))
            opening = None
    if opening is not None:
        # A block that never closes was cut off, but it is still the program.
        blocks.append((opening[2].lower(), text[opening.end() + 1 :]))
    for languages in (_PYTHON, ("",)):
        programs = [block for language, block in blocks if language in languages]
        if programs:
            return programs[-1]
    return blocks[-1][1] if blocks else text


def upstream_program_in(completion: str) -> str:
    """The program as open-instruct finds it: "```py" leaves `py` as its first line, and a later shell block comes first."""
    blocks = _UPSTREAM_BLOCK.findall(completion)
    return blocks[-1].strip() if blocks else completion


def _share_passed(results: list[Result], threshold: float) -> Verdict:
    share = sum(result.passed for result in results) / len(results)
    failed = next((result.detail for result in results if not result.passed), "")
    in_process = ", in_process" if any(result.detail == "in_process" for result in results) else ""
    detail = f"{sum(result.passed for result in results)}/{len(results)} tests{in_process}" + (f"; {failed}" if failed else "")
    return Verdict(share if share >= threshold else 0.0, detail=shorten(detail, 200))


def _grade(case: Case, kind: str, find_program: Callable[[str], str] = program_in, denied: tuple[str, ...] = ()) -> Verdict:
    """The verdict on the program that is found, run here or on the machine that TULU_SANDBOX_URL names."""
    parse_test, run_here = _KINDS[kind]
    gold, source = _cached_parse(as_text(case.gold), parse_test), find_program(case.completion)
    if not source.strip():
        return Verdict(0.0, detail="no program")
    if any(word in source for word in denied):
        return Verdict(0.0, detail="denied word")
    source = source.encode("utf-8", "replace").decode()
    if kind == "code" and gold.imports:
        source = f"{gold.imports}\n{source}"
    if remote_url():
        results = remote_results(kind, source, list(gold.tests), gold.seconds)
    else:
        require()
        results = run_here(source, gold)
    return _share_passed(results, gold.threshold)


def code(case: Case) -> Verdict:
    """The share of the tests that pass; 0 below the threshold."""
    return _grade(case, "code")


def code_tulu3(case: Case) -> Verdict:
    """As code, but with open-instruct's way of finding the program, and the words that it denies."""
    return _grade(case, "code", upstream_program_in, _DENIED_WORDS)


def same_output(printed: str, expected: str, tolerance: Decimal | None) -> bool:
    """Whether two outputs have the same lines, blank space at their ends aside, or the same words on every line.

    With a tolerance, words that are numbers may differ by it, relative to numbers above 1.
    """
    lines, expected_lines = (text.strip().splitlines() for text in (printed, expected))
    if [line.strip() for line in lines] == [line.strip() for line in expected_lines]:
        return True
    if len(lines) != len(expected_lines):
        return False
    return all(_same_line(line.split(), other.split(), tolerance) for line, other in zip(lines, expected_lines, strict=True))


def _same_line(words: list[str], expected: list[str], tolerance: Decimal | None) -> bool:
    return len(words) == len(expected) and all(_same_word(a, b, tolerance) for a, b in zip(words, expected, strict=True))


def _same_word(word: str, expected: str, tolerance: Decimal | None) -> bool:
    if word == expected:
        return True
    if tolerance is None or len(word) > 100:
        return False
    try:
        return abs(Decimal(word) - Decimal(expected)) <= tolerance * max(Decimal(1), abs(Decimal(expected)))
    except ArithmeticError:
        return False


def _compare_output(output: Output, expected: str, tolerance: Decimal | None) -> Result:
    if output.code != 0:
        return Result(False, shorten(output.detail.splitlines()[-1] if output.detail else f"exit code {output.code}", 120))
    printed = output.text.decode("utf-8", "replace")
    passed = same_output(printed, expected, tolerance)
    return Result(passed, "" if passed else shorten(f"printed {printed!r}", 120))


def code_stdio(case: Case) -> Verdict:
    """The share of the inputs for which the program prints the expected output; each runs in a sandbox of its own."""
    return _grade(case, "code_stdio")


def _run_assertions(source: str, gold: Gold) -> list[Result]:
    return run_tests(source, [take_apart(test) for test in gold.tests], gold.seconds, Limits(), _BUDGET)


def _run_exchanges(source: str, gold: Gold) -> list[Result]:
    """One result for each input; once the budget of all tests is used up, the rest fail."""
    left, results = _BUDGET, list[Result]()
    for test in gold.tests:
        if left <= 0:
            results.append(Result(False, "total time limit"))
            continue
        output = run_script(source, test["input"].encode("utf-8", "replace"), gold.seconds, Limits())
        left -= output.seconds
        results.append(_compare_output(output, test["output"], gold.tolerance))
    return results


_KINDS: dict[str, tuple[Callable[[Any], Any], Callable[[str, Gold], list[Result]]]] = {
    "code": (_parse_assertion, _run_assertions),
    "code_stdio": (_parse_exchange, _run_exchanges),
}
"""How a verifier reads one test, and how it runs all tests of a program."""


def run_job(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs the job of another machine's grader and returns its results; ValueError where its tests cannot be used."""
    kind, program, fields = job["verifier"], str(job["program"]), {"tests": job["tests"], "time_limit": job["time_limit"]}
    require()
    if kind not in _KINDS:
        raise ValueError(f"verifier {kind!r} is not run here")
    parse_test, run_here = _KINDS[kind]
    try:
        return [asdict(result) for result in run_here(program, _parse(fields, parse_test))]
    except GoldError as fault:
        raise ValueError(str(fault)) from fault


def warm() -> None:
    """Starts the sandbox of the first program before it is needed."""
    if not remote_url():
        require()
        keep_spare()


CODE = Verifier(
    check=lambda gold: _parse(gold, _parse_assertion),
    strict=code,
    tulu3=code_tulu3,
    key=lambda case: program_in(case.completion),
    deadline=DEADLINE,
    ready=require,
    warm=warm,
)
CODE_STDIO = replace(CODE, check=lambda gold: _parse(gold, _parse_exchange), strict=code_stdio, tulu3=code_stdio, warm=None)
