"""Custom verifiers: a function in a Python file of the user, which a recipe names as `path/to/mine.py:score`."""

import reprlib
from collections.abc import Callable
from functools import lru_cache
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from tulu.errors import RecipeError
from tulu.types import Verdict
from tulu.user_code import import_file
from tulu.verifiers.contract import LARGEST_SCORE, Case, GoldError, Verifier, as_score

_OPTIONAL = ("prompt", "row")
"""Further arguments that a function receives where it takes them."""


def is_custom(name: str) -> bool:
    """Whether the name of a verifier consists of a file and a function."""
    return ".py:" in name


@lru_cache(maxsize=64)
def load_custom(name: str) -> Verifier:
    """The verifier of `FILE.py:FUNCTION`; RecipeError where the file cannot be used.

    The function is called with (completion, ground_truth), and with prompt= and row= where it takes them. It returns a float,
    a bool, a Verdict, or None where it cannot grade. Where the file also has a function `check(ground_truth)`, that is called
    when data is loaded.
    """
    path, _, function_name = name.rpartition(":")
    file = Path(path).expanduser()
    if not file.is_file():
        raise RecipeError(f"verifier {name!r}: there is no file {file} (relative to {Path.cwd()})")
    names = vars(import_file(file, f"verifier {name!r}"))
    function = names.get(function_name)
    if not callable(function):
        functions = ", ".join(sorted(key for key, value in names.items() if callable(value) and not key.startswith("_")))
        raise RecipeError(f"verifier {name!r}: {path} has no function {function_name!r}; it has {functions or 'none'}")
    optional = _optional_arguments(function, name)

    def strict(case: Case) -> Verdict:
        values = {"prompt": case.prompt, "row": dict(case.row)}
        return _as_verdict(function(case.completion, case.gold, **{key: values[key] for key in optional}))

    return Verifier(check=_check_with(names.get("check")), strict=strict)


def _optional_arguments(function: Callable[..., Any], name: str) -> tuple[str, ...]:
    parameters = signature(function).parameters
    needed = [key for key, value in parameters.items() if value.default is Parameter.empty and key not in _OPTIONAL]
    required = [key for key in needed if parameters[key].kind not in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)]
    takes_all = any(value.kind is Parameter.VAR_POSITIONAL for value in parameters.values())
    if len(required) > 2 or (len(parameters) < 2 and not takes_all):
        raise RecipeError(f"verifier {name!r} must take (completion, ground_truth), and prompt= or row= if it wants them")
    return tuple(key for key in _OPTIONAL if key in parameters)


def _check_with(function: Any) -> Callable[[Any], None]:
    def check(gold: Any) -> None:
        if not callable(function):
            return
        try:
            function(gold)
        except GoldError:
            raise
        except Exception as fault:
            raise GoldError(f"ground_truth refused by the verifier's own check: {fault}") from fault

    return check


def _as_verdict(result: Any) -> Verdict:
    """What a function returned as a verdict; status error where that is no number, or one that would ruin every sum."""
    if result is None:
        return Verdict(None, "error", "the verifier returned None")
    given: Any = result.score if isinstance(result, Verdict) else result
    # The detail goes to a process that knows no types of the user's, not even one of text.
    detail = str.__str__(result.detail) if isinstance(result, Verdict) else ""
    if isinstance(result, Verdict) and given is None:
        return Verdict(None, result.status, detail)
    if (score := as_score(given)) is None:
        cure = f"return a number of at most {LARGEST_SCORE:g}, or None"
        return Verdict(None, "error", f"the verifier returned {reprlib.repr(given)}; {cure}")
    return Verdict(score, "ok", detail)
