"""What a verifier is: a check of the ground truth when data is loaded, and a function from one completion to one verdict.

Every verifier has the same functions: `check` refuses ground truths that it cannot use, `strict` grades by the meaning that
is the default, and `tulu3`, where there is one, grades as open-instruct does; `tulu3_2024` as it did when Tülu 3 was trained.
"""

import ast
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Literal

from tulu.errors import DataError, RecipeError, TuluError
from tulu.types import Verdict
from tulu.user_code import told

Mode = Literal["strict", "tulu3", "tulu3-2024"]
Place = Literal["here", "worker", "thread"]
_LARGEST = 1e300
"""The largest number of a ground truth; beyond it, arithmetic would overflow."""
LARGEST_SCORE = 1e9
"""A score beyond this is a mistake: squares of it, of which the norm of a gradient is made, soon have no float32."""
MODES: tuple[Mode, ...] = ("strict", "tulu3", "tulu3-2024")


def as_score(given: object) -> float | None:
    """What code of the user's gave as a score, as a number; None where it is none, or beyond LARGEST_SCORE."""
    try:
        score = float("nan") if isinstance(given, str | bytes | bytearray) else float(given)  # type: ignore[arg-type]
    # What becomes a number may say in any way that it does not, as a tensor with two elements does.
    except Exception:  # noqa: BLE001
        return None
    # No comparison holds of a NaN.
    return score if abs(score) <= LARGEST_SCORE else None


class GoldError(DataError):
    """A ground truth that a verifier cannot use; raised when data is loaded, never in training."""


class OverBudget(BaseException):
    """Grading took more CPU time than a completion may cost; that is the completion's fault, so it scores 0.

    It is a BaseException because libraries catch every Exception and go on with the next attempt.
    """


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run sets for all verdicts, and a row may set otherwise; None leaves it to the verifier."""

    code_threshold: float | None = None
    """Least share of passed tests that scores more than 0."""
    code_seconds: float | None = None
    """CPU seconds of a test."""
    judge_model: str | None = None
    """Model that a judge's endpoint is asked for."""
    judge_seconds: float | None = None
    """Seconds for one score, all attempts together."""
    judge_tokens: int | None = None
    """Most tokens of a judge's reply."""


NO_SETTINGS = Settings()


@dataclass(frozen=True, slots=True)
class Case:
    """One completion and the ground truth that it is compared with."""

    completion: str
    gold: Any
    prompt: str = ""
    """The last user turn, for verifiers that need the question."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """The whole data row, for verifiers that read further fields of it."""
    attempt: int = 0
    """0: the only one. 1: others wait, so that a verifier may postpone what takes long. 2: it may still postpone what missed its
    time on a busy machine. 3: the last one, on an idle machine."""
    settings: Settings = NO_SETTINGS
    content: str = ""
    """What the verifier's files held when grading began, as `Verifier.content` says it; empty where it has none."""


@dataclass(frozen=True, slots=True)
class Postponed(Verdict):
    """What a verifier would say now, but would rather be asked again, later; only in an attempt that another can follow."""


Grade = Callable[[Case], Verdict]


@dataclass(frozen=True, slots=True)
class Verifier:
    """One verifier: how it checks a ground truth, how it grades in each mode, and where it may run."""

    check: Callable[[Any], object]
    """Takes a ground truth as the data gives it; raises GoldError with the cure where it cannot be used. What it returns is not
    read, so that the function by which a verifier reads its ground truths may stand here."""
    strict: Grade
    """Grades in mode strict, the default."""
    tulu3: Grade | None = None
    """Grades exactly as open-instruct @ e6c3044 does; None where open-instruct has no such verifier."""
    tulu3_2024: Grade | None = None
    """Grades exactly as open-instruct @ 5bcd3b25 (4 December 2024) did; None where it had no such verifier then."""
    quick: Grade | None = None
    """Grades as `strict` does, but in linear time; returns UNDECIDED where only `strict` can tell."""
    key: Callable[[Case], str] | None = None
    """The part of a completion that decides the strict verdict; verdicts are cached by it. None: they are not cached."""
    place: Place = "worker"
    """here: in the caller's process, for what takes linear time; worker: in a process that can be killed; thread: in a thread,
    for what waits on a network."""
    cpu_seconds: float | None = None
    """CPU seconds that grading one completion may take in a worker; beyond them its score is 0. None: the grader's own limit
    holds, and an answer that passes it scores 0 unless a neutral answer does too."""
    deadline: float | None = None
    """Seconds that a verdict may take in a worker, where the grader's own deadline is too short for it."""
    ready: Callable[[Settings], None] | None = None
    """Raises RecipeError where this machine cannot run the verifier with these settings."""
    needs: tuple[str, ...] = ()
    """Modules of the extra `verifiers` that it imports; a missing one is an error when the recipe is loaded."""
    needs_2024: tuple[str, ...] = ()
    """Further modules that mode tulu3-2024 imports."""
    warm: Callable[[], None] | None = None
    """Imports what the first verdict would otherwise wait for."""
    content: Callable[[], str] | None = None
    """A digest of the files of the user's on which it rests. All verdicts of a grader are by one content."""

    def grade(self, mode: Mode) -> Grade:
        """The function that grades in a mode; RecipeError where this verifier does not have it."""
        if mode == "strict":
            return self.strict
        grade = self.tulu3 if mode == "tulu3" else self.tulu3_2024
        if grade is None:
            when = "has" if mode == "tulu3" else "of December 2024 had"
            raise RecipeError(f"mode {mode}: open-instruct {when} no such verifier, use mode strict")
        return grade

    def __call__(self, completion: str, ground_truth: Any, mode: Mode = "strict", prompt: str = "") -> Verdict:
        """Grades one completion in this thread, without deadline or memory limit; no exception leaves it."""
        return grade_safely(self.grade(mode), Case(completion, ground_truth, prompt), traced=mode == "strict")


UNDECIDED = Verdict(None, "error", "undecided")
"""What `Verifier.quick` returns where it cannot tell."""
NEUTRAL = ("I do not know.", "#### 7", "\\boxed{7}", "<answer>7</answer>", '{"answer": 7}', "```python\npass\n```")
"""Answers in the commonest forms that nothing is wrong with. A verifier that fails on one of them fails on all completions."""


def grade_safely(grade: Grade, case: Case, traced: bool = True) -> Verdict:
    """The verdict of `grade`; an exception is traced to its cause, since a policy must not be able to choose to be masked.

    Where the verifier fails on a neutral answer to the same row too, the row, the verifier or the machine is at fault: status
    error, which masks the sample. Where it does not, the answer is at fault: score 0. Faults that are the
    machine's by their kind (TuluError, a missing module) are masked at once, and so is everything where `traced` is False.
    """
    try:
        return _grade_or_retry(grade, case)
    except OverBudget as fault:
        return Verdict(0.0, detail=str(fault))
    # This is the one place that catches everything, an attempt to end the program too: a verifier must never end a run.
    except (Exception, SystemExit) as fault:  # noqa: BLE001
        reason = told(fault)[:500]
        own_fault = isinstance(fault, TuluError | ImportError) and not isinstance(fault, DataError)
        if not traced or own_fault or fails_on_neutral(grade, case):
            return Verdict(None, "error", reason)
        return Verdict(0.0, detail=f"the answer cannot be graded: {reason}")


def _grade_or_retry(grade: Grade, case: Case) -> Verdict:
    """The verdict; a fault of the machine, such as a file that cannot be opened just now, is given a second chance."""
    try:
        return grade(case)
    except OSError:
        return grade(case)


def neutral_cases(case: Case) -> list[Case]:
    """The neutral answers to the row of a case."""
    return [replace(case, completion=answer) for answer in NEUTRAL]


def fails_on_neutral(grade: Grade, case: Case) -> bool:
    """Whether a verifier raises an exception, or reaches no verdict, on any neutral answer to the row of a case."""
    for neutral in neutral_cases(case):
        try:
            verdict = grade(neutral)
            if verdict.score is None and verdict is not UNDECIDED:
                return True
        # Whatever it raises, it was not the answer that caused it.
        except (Exception, SystemExit):  # noqa: BLE001
            return True
    return False


def pass_or_fail(passed: bool, detail: str = "") -> Verdict:
    """Score 1 or 0."""
    return Verdict(1.0 if passed else 0.0, detail=detail)


def not_negative(grade: Grade) -> Grade:
    """A grading function whose scores are those of another one, but never below 0."""

    @wraps(grade)
    def graded(case: Case) -> Verdict:
        verdict = grade(case)
        return verdict if verdict.score is None else replace(verdict, score=max(0.0, verdict.score))

    return graded


def gold_text(gold: Any) -> str:
    """The ground truth as one text; GoldError unless it is a string that is not empty, or a number."""
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise GoldError(f"ground_truth must be a string or a number, got {type(gold).__name__}")
    text = str(gold)
    if not text.strip():
        raise GoldError("ground_truth is empty; drop the row or fill it in")
    return text


def gold_texts(gold: Any) -> list[str]:
    """The accepted answers of a ground truth that is one answer or a list; GoldError where any cannot be used."""
    if isinstance(gold, list | tuple):
        if not gold:
            raise GoldError("ground_truth is an empty list; give at least one accepted answer")
        return [gold_text(entry) for entry in gold]
    return [gold_text(gold)]


def parse_json(gold: Any, complaint: str = "ground_truth is no JSON") -> Any:
    """A ground truth that may be written as JSON; GoldError, which begins with the complaint, for a text that is no JSON."""
    try:
        return json.loads(gold) if isinstance(gold, str) else gold
    except (ValueError, RecursionError) as fault:
        raise GoldError(f"{complaint}: {fault}") from fault


def as_text(gold: Any) -> str:
    """A ground truth as text, by which its parsed form is cached."""
    return gold if isinstance(gold, str) else json.dumps(gold)


def is_finite(value: Any) -> bool:
    """Whether a value is a number that can be computed with: not a bool, not NaN, and not too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def parse_literal(text: str) -> Any:
    """The value of a ground truth that is written as JSON or as a Python literal; GoldError where it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as fault:
            raise GoldError(f"ground_truth is neither JSON nor a Python literal: {shorten(text)!r}") from fault


def shorten(text: str, limit: int = 80) -> str:
    """The start of a text, so that it fits into a table cell."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
