"""code and code_stdio: the share of tests that a program passes in a sandbox.

Ground truth of `code`: a list of assert statements (or any test code), or {"tests": [...], "imports": [...],
"time_limit": s, "threshold": t}; of `code_stdio`: a list of {"input", "output"}, or {"tests": [...], "time_limit": s,
"tolerance": x}. The program is the last Python block of the answer, else its last block, else all of it.
tulu3 takes the same text for the program as open-instruct (ground_truth_utils.py, code_utils @ e6c3044), and refuses the same
words; it still runs the program in the sandbox, and compares outside of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.code.analyse import Test, parse, take_apart
from tulu.verifiers.code.extract import program_in, upstream_program_in
from tulu.verifiers.code.messages import SandboxFault
from tulu.verifiers.code.outputs import same_output
from tulu.verifiers.code.prompt_functions import helpers_in
from tulu.verifiers.code.remote_client import remote_results, remote_url
from tulu.verifiers.code.sandbox import Limits, require
from tulu.verifiers.code.script import Output, run_script
from tulu.verifiers.code.spare import keep_spare
from tulu.verifiers.code.testing import Late, Result, run_tests
from tulu.verifiers.contract import Case, GoldError, Postponed, Verifier, as_text, is_finite, parse_literal, shorten

_SECONDS = 6.0
"""CPU seconds of a test where the data gives none."""
_BUDGET = 40.0
"""Seconds for all tests of a program together."""
DEADLINE = 60.0
"""Seconds within which a verdict comes: the budget of all tests, the start of a sandbox, and the time of the last test."""
_MOST_LATE = 2
"""Inputs on which a program may miss its time before the rest fail too."""
_BRIEF = 0.15
"""Seconds of a first attempt while others wait."""
_DENIED_WORDS = ("import os", "threading", "multiprocess", "shutil", "torch", "sklearn")


@dataclass(frozen=True, slots=True)
class Gold:
    """The tests of one row, and how they are run."""

    tests: tuple[Any, ...]
    """Test code for `code`; (input, output) for `code_stdio`."""
    seconds: float | None
    """CPU seconds of a test; None where the row names none."""
    threshold: float | None
    """The smallest share of passed tests that does not score 0; None where the row names none."""
    tolerance: Decimal | None
    """How far printed numbers may be off; None where they are compared as text."""
    imports: str
    """Lines that come before the program, and before the tests."""
    entry: str = ""
    """The function that `check` is to be called with, for tests that do not call it."""
    helpers: str = ""
    """Functions that the tests use, and that are not the program's."""


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
    texts = {key: fields.get(key) or "" for key in ("entry_point", "helpers")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise GoldError("entry_point and helpers must be text")
    gold = Gold(
        tuple(parse_test(test) for test in fields["tests"]),
        _number(fields, "time_limit", 0, _BUDGET) or None,
        _number(fields, "threshold", 0, 1) if "threshold" in fields else None,
        Decimal(str(tolerance)) if tolerance else None,
        "\n".join(imports),
        texts["entry_point"],
        texts["helpers"],
    )
    if parse_test is _parse_assertion:
        _take_apart(gold)
    return gold


def _take_apart(gold: Gold) -> list[Test]:
    """How each test of a row is run; GoldError where one cannot be."""
    for code in (gold.imports, gold.helpers):
        if code:
            parse(code)
    return [take_apart(test, gold.imports, gold.helpers, gold.entry) for test in gold.tests]


def _parse_assertion(test: Any) -> str:
    if not isinstance(test, str):
        raise GoldError(f"a test must be a string of Python, got {type(test).__name__}")
    return test


def _parse_exchange(test: Any) -> dict[str, str]:
    if not isinstance(test, dict) or not all(isinstance(test.get(key), str) for key in ("input", "output")):
        raise GoldError("a test must be {input, output}, both strings")
    return {key: test[key] for key in ("input", "output")}


@lru_cache(maxsize=1024)
def _cached_parse(text: str, parse_test: Callable[[Any], Any]) -> Gold:
    return _parse(text, parse_test)


def _share_passed(results: Sequence[Result], threshold: float, attempt: int = 0) -> Verdict:
    share = sum(result.passed for result in results) / len(results)
    failed = next((result.detail for result in results if not result.passed), "")
    detail = f"{sum(result.passed for result in results)}/{len(results)} tests" + (f"; {failed}" if failed else "")
    kind = Postponed if attempt in (1, 2) and any(result.starved for result in results) else Verdict
    # A detail may hold what the program says: half a character cannot be written to a file, and escapes would reach a terminal.
    detail = "".join(letter if letter.isprintable() else "\ufffd" for letter in detail)
    return kind(share if share >= threshold else 0.0, detail=shorten(detail, 200))


def _grade(case: Case, kind: str, find_program: Callable[[str], str] = program_in, denied: tuple[str, ...] = ()) -> Verdict:
    """The verdict on the program that is found, run here or on the machine that TULU_SANDBOX_URL names."""
    parse_test, run_here = _KINDS[kind]
    gold, source = _cached_parse(as_text(case.gold), parse_test), find_program(case.completion)
    if not source.strip():
        return Verdict(0.0, detail="no program")
    if any(word in source for word in denied):
        return Verdict(0.0, detail="denied word")
    source = source.encode("utf-8", "replace").decode()
    if not gold.helpers:
        gold = replace(gold, helpers=helpers_in(case.prompt))
    gold = replace(gold, seconds=gold.seconds or case.settings.code_seconds)
    try:
        if remote_url():
            results = remote_results(kind, source, list(gold.tests), _seconds(gold), _other_fields(gold))
        else:
            require()
            results = run_here(source, gold, case.attempt == 1)
    except Late:
        return Postponed(0.0, detail="takes long")
    except SandboxFault as fault:
        return Verdict(None, "error", str(fault))
    threshold = case.settings.code_threshold if gold.threshold is None else gold.threshold
    return _share_passed(results, threshold or 0.0, case.attempt)


def _seconds(gold: Gold) -> float:
    return gold.seconds or _SECONDS


def code(case: Case) -> Verdict:
    """The share of the tests that pass; 0 below the threshold."""
    return _grade(case, "code")


def code_tulu3(case: Case) -> Verdict:
    """As code, but with open-instruct's way of finding the program, and the words that it denies."""
    return _grade(case, "code", upstream_program_in, _DENIED_WORDS)


def code_stdio(case: Case) -> Verdict:
    """The share of the inputs for which the program prints the expected output; each runs in a sandbox of its own."""
    return _grade(case, "code_stdio")


def _compare_output(output: Output, expected: str, tolerance: Decimal | None) -> Result:
    if output.code != 0:
        lines = output.detail.splitlines()
        return Result(False, shorten(lines[-1] if lines else f"exit code {output.code}", 120), output.starved)
    printed = output.text.decode("utf-8", "replace")
    passed = same_output(printed, expected, tolerance)
    return Result(passed, "" if passed else shorten(f"printed {printed!r}", 120))


def _run_assertions(source: str, gold: Gold, brief: bool = False) -> list[Result]:
    return run_tests(source, _take_apart(gold), _seconds(gold), Limits(), _BUDGET, gold.imports, _BRIEF if brief else None)


def _run_exchanges(source: str, gold: Gold, brief: bool = False) -> list[Result]:
    """One result for each input; once the budget of all tests is used up, the rest fail."""
    left, late, results = _BRIEF * len(gold.tests) if brief else _BUDGET, 0, list[Result]()
    for test in gold.tests:
        if left <= 0 or late >= _MOST_LATE:
            results.append(Result(False, "total time limit", any(result.starved for result in results)))
            continue
        text = test["input"].replace("\r\n", "\n").encode("utf-8", "replace")
        output = run_script(source, text, _seconds(gold), Limits(), left)
        if output.spent:
            return [Result(False, output.detail) for _ in gold.tests]
        left -= output.seconds
        late += output.code is None and output.detail == "time limit"
        if brief and late:
            raise Late
        results.append(_compare_output(output, test["output"], gold.tolerance))
    return results


_KINDS: dict[str, tuple[Callable[[Any], Any], Callable[[str, Gold, bool], list[Result]]]] = {
    "code": (_parse_assertion, _run_assertions),
    "code_stdio": (_parse_exchange, _run_exchanges),
}
"""How a verifier reads one test, and how it runs all tests of a program."""


def _other_fields(gold: Gold) -> dict[str, Any]:
    """What another machine needs to know of a row beside its tests."""
    tolerance = float(gold.tolerance or 0)
    return {"imports": gold.imports.split("\n"), "entry_point": gold.entry, "helpers": gold.helpers, "tolerance": tolerance}


def run_job(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs the job of another machine's grader and returns its results; ValueError where its tests cannot be used."""
    kind, program = job["verifier"], str(job["program"])
    fields = {**job.get("fields", {}), "tests": job["tests"], "time_limit": job["time_limit"]}
    require()
    if kind not in _KINDS:
        raise ValueError(f"verifier {kind!r} is not run here")
    parse_test, run_here = _KINDS[kind]
    try:
        return [asdict(result) for result in run_here(program, _parse(fields, parse_test), False)]
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
    ready=lambda _settings: require(),
    warm=warm,
)
CODE_STDIO = replace(CODE, check=lambda gold: _parse(gold, _parse_exchange), strict=code_stdio, tulu3=code_stdio, warm=None)
