"""What a verifier is: a gold check for load time and a function from one completion to one verdict."""

import ast
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tulu.errors import DataError, RecipeError
from tulu.types import Verdict

Mode = Literal["strict", "tulu3"]
Place = Literal["here", "worker", "thread"]
_LARGEST = 1e300
MODES: tuple[Mode, ...] = ("strict", "tulu3")


class GoldError(DataError):
    """A ground truth that a verifier cannot use; raised when data is loaded, never in training."""


class OverBudget(BaseException):
    """The completion used up the CPU it is granted: its own fault, so it scores 0.

    A BaseException, because libraries swallow every Exception while they try the next thing.
    """


@dataclass(frozen=True, slots=True)
class Case:
    """One completion and what it is held against."""

    completion: str
    gold: Any
    prompt: str = ""
    """The last user turn, for verifiers that need the question."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """The whole data row, for verifiers with further fields."""


Grade = Callable[[Case], Verdict]


@dataclass(frozen=True, slots=True)
class Verifier:
    """One family: its gold check, its grade in each mode, and where it may run."""

    check: Callable[[Any], None]
    """Takes a ground truth as the data gives it; raises GoldError with the cure where it is unusable."""
    strict: Grade
    """The default meaning."""
    tulu3: Grade | None = None
    """Bit-compatible with open-instruct @ e6c3044; None where open-instruct has no such verifier."""
    quick: Grade | None = None
    """A linear-time strict verdict, or a verdict of status `error` and detail UNDECIDED where only `strict` can tell."""
    key: Callable[[Case], str] | None = None
    """What of a completion the strict verdict depends on; verdicts are cached by it. None: not cached."""
    place: Place = "worker"
    """here: linear time, no process needed; worker: in a process that can be killed; thread: waits on a network."""
    cpu_seconds: float | None = None
    """CPU time a completion is granted in a worker; beyond it the score is 0. None: only the deadline holds."""
    deadline: float | None = None
    """Seconds a verdict may take in a worker, where the grader's own deadline is too short for it."""
    ready: Callable[[], None] | None = None
    """Raises RecipeError where this machine cannot run it."""
    needs: tuple[str, ...] = ()
    """Modules of the extra `verifiers` that it stands on; a missing one is an error when the recipe is loaded."""
    warm: Callable[[], None] | None = None
    """Imports what the first verdict would otherwise have to wait for."""

    def grade(self, mode: Mode) -> Grade:
        """The function of a mode; RecipeError where this verifier has no tulu3 mode."""
        if mode == "strict":
            return self.strict
        if self.tulu3 is None:
            raise RecipeError("mode tulu3: open-instruct has no such verifier, use --mode strict")
        return self.tulu3

    def __call__(self, completion: str, ground_truth: Any, mode: Mode = "strict", prompt: str = "") -> Verdict:
        """Grades one completion in this thread, without deadline or memory limit; exceptions become status error."""
        return judged(self.grade(mode), Case(completion, ground_truth, prompt))


UNDECIDED = Verdict(None, "error", "undecided")


def judged(grade: Grade, case: Case) -> Verdict:
    """The verdict of `grade`; what it raises is a fault of ours, so the sample is masked and not scored."""
    try:
        return grade(case)
    except OverBudget as fault:
        return Verdict(0.0, detail=str(fault))
    # The one boundary where anything may surface: a verifier must never end a run.
    except Exception as fault:  # noqa: BLE001
        return Verdict(None, "error", f"{type(fault).__name__}: {fault}"[:500])


def right(condition: bool, detail: str = "") -> Verdict:
    """Score 1 or 0."""
    return Verdict(1.0 if condition else 0.0, detail=detail)


def gold_text(gold: Any) -> str:
    """The ground truth as one non-empty string; GoldError otherwise."""
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise GoldError(f"ground_truth must be a string or a number, got {type(gold).__name__}")
    text = str(gold)
    if not text.strip():
        raise GoldError("ground_truth is empty; drop the row or fill it in")
    return text


def gold_texts(gold: Any) -> list[str]:
    """One ground truth or a list of accepted ones; GoldError where any is unusable."""
    if isinstance(gold, list | tuple):
        if not gold:
            raise GoldError("ground_truth is an empty list; give at least one accepted answer")
        return [gold_text(entry) for entry in gold]
    return [gold_text(gold)]


def is_finite(value: Any) -> bool:
    """Whether a value is a number that can be computed with: no bool, no NaN, nothing beyond a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def literal(text: str) -> Any:
    """A ground truth written as JSON or as a Python literal; GoldError where it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as fault:
            raise GoldError(f"ground_truth is neither JSON nor a Python literal: {shorten(text)!r}") from fault


def shorten(text: str, limit: int = 80) -> str:
    """Text that fits a table cell."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
