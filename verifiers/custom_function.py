"""A function of the user's, in the process that grades by it: what it is called with, and what it gives back.

Whatever it does is told, and reaches no process but this one: it gets copies, and gives back plain values.
"""

import copy
import inspect
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tulu.errors import RecipeError
from tulu.types import Verdict
from tulu.user_code import content_digest, import_file, told
from tulu.verifiers.contract import LARGEST_SCORE, Case, GoldError, OverBudget, as_score

_OPTIONAL = ("prompt", "row")
"""Further arguments that a function receives where it takes them."""


@dataclass(frozen=True)
class OwnFunction:
    """A verifier of the user's, which this process has imported."""

    function: Callable[..., Any]
    check: Callable[..., Any] | None
    """The `check` of its file, where there is one."""
    wanted: tuple[str, ...]
    """Which of the further arguments it takes."""
    content: str
    """A digest of its file and of those that it imports from beside itself, as they were when it was imported."""

    def grade(self, case: Case) -> Verdict:
        """What the function says of a case. It gets a gold and a row of its own, since the next case may have the same."""
        given = {"prompt": case.prompt, "row": copy.deepcopy(dict(case.row)) if "row" in self.wanted else None}
        try:
            result = self.function(case.completion, copy.deepcopy(case.gold), **{key: given[key] for key in self.wanted})
            return _as_verdict(_settled(result))
        except (Exception, OverBudget, SystemExit, KeyboardInterrupt):
            raise
        # Anything else would end the process, as what pytest.fail raises does.
        except BaseException as fault:
            raise RuntimeError(told(fault)) from fault

    def objection(self, gold: Any) -> str:
        """Why the file's `check` refuses a ground truth; empty where it does not, or there is none."""
        if self.check is None:
            return ""
        try:
            refused = _settled(self.check(gold)) is False
        except GoldError as fault:
            return told(fault).removeprefix("GoldError: ")
        # It may raise anything, SystemExit too.
        except BaseException as fault:  # noqa: BLE001
            words = told(fault)
            return f"ground_truth refused by the verifier's own check: {words.removeprefix('AssertionError: ')}"
        return "ground_truth refused by the verifier's own check: it returned False" if refused else ""


def own_file(name: str) -> Path:
    """The file of `FILE.py:FUNCTION`. RecipeError where there is none."""
    file = Path(name.rpartition(":")[0]).expanduser()
    if not file.is_file():
        raise RecipeError(f"verifier {name!r}: there is no file {file} (relative to {Path.cwd()})")
    return file


@cache
def own_function(name: str) -> OwnFunction:
    """The function of `FILE.py:FUNCTION`, imported into this process. RecipeError where it cannot be used."""
    file, function_name = own_file(name), name.rpartition(":")[2]
    content = content_digest(file)
    names = vars(import_file(file, f"verifier {name!r}"))
    function, check = names.get(function_name), names.get("check")
    if not callable(function):
        functions = ", ".join(sorted(key for key, value in names.items() if callable(value) and not key.startswith("_")))
        raise RecipeError(f"verifier {name!r}: {file} has no function {function_name!r}; it has {functions or 'none'}")
    if callable(check) and (misfit := _misfit(check, 1, ())):
        raise RecipeError(f"verifier {name!r}: {file}: check must take (ground_truth): {misfit}")
    return OwnFunction(function, check if callable(check) else None, _wanted(function, name), content)


def _wanted(function: Callable[..., Any], name: str) -> tuple[str, ...]:
    """The further arguments that a function takes by name. RecipeError where it cannot be called as it will be."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        # What is written in C may have none.
        return ()
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    wanted = tuple(key for key in _OPTIONAL if takes_all or key in parameters)
    if misfit := _misfit(function, 2, wanted):
        cure = "must take (completion, ground_truth), and prompt= or row= if it wants them"
        raise RecipeError(f"verifier {name!r} {cure}: {misfit}")
    return wanted


def _misfit(function: Callable[..., Any], count: int, by_name: tuple[str, ...]) -> str:
    """Why a function cannot be called with `count` arguments and with these; empty where it can, or nobody knows."""
    try:
        inspect.signature(function).bind(*range(count), **dict.fromkeys(by_name))
    except TypeError as fault:
        return str(fault)
    except ValueError:
        pass
    return ""


def _settled(result: Any) -> Any:
    """What a function gave back, which an async one gives only when it is awaited."""
    if not inspect.iscoroutine(result):
        return result
    # The command line imports this file, and most commands await nothing.
    import asyncio

    return asyncio.run(result)


def _as_verdict(result: Any) -> Verdict:
    """What a function returned as a verdict; status error where that is no number, or one that would ruin every sum."""
    if result is None:
        return Verdict(None, "error", "the verifier returned None")
    given: Any = result.score if isinstance(result, Verdict) else result
    # What is said goes to a process that knows no types of the user's, not even one of text.
    detail = str.__str__(result.detail) if isinstance(result, Verdict) else ""
    if isinstance(result, Verdict) and given is None:
        return Verdict(None, "timeout" if result.status == "timeout" else "error", detail)
    if (score := as_score(given)) is None:
        cure = f"return a number of at most {LARGEST_SCORE:g}, or None"
        return Verdict(None, "error", f"the verifier returned {reprlib.repr(given)}; {cure}")
    return Verdict(score, "ok", detail)
