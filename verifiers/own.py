"""A user's own verifier: a function of a Python file, named in the recipe as `path/to/mine.py:score`."""

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from tulu.errors import RecipeError
from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Verifier

_OFFERED = ("prompt", "row")


def is_own(name: str) -> bool:
    """Whether a verifier's name is a file and a function."""
    return ".py:" in name


@lru_cache(maxsize=64)
def own_verifier(name: str) -> Verifier:
    """Loads `FILE.py:FUNCTION`: called as (completion, ground_truth), with prompt= and row= where it takes them.

    It returns a float, a bool, a Verdict, or None where it could not judge. A function `check(ground_truth)` of the same
    file, where there is one, is called when data is loaded. RecipeError where the file cannot be used.
    """
    path, _, function_name = name.rpartition(":")
    module = _load(Path(path), name)
    function = module.get(function_name)
    if not callable(function):
        known = ", ".join(sorted(key for key, value in module.items() if callable(value) and not key.startswith("_")))
        raise RecipeError(f"verifier {name!r}: {path} has no function {function_name!r}; it has {known or 'none'}")
    extra = _extra_arguments(function, name)

    def strict(case: Case) -> Verdict:
        offered = {"prompt": case.prompt, "row": dict(case.row)}
        return _as_verdict(function(case.completion, case.gold, **{key: offered[key] for key in extra}))

    return Verifier(check=_check_of(module.get("check")), strict=strict)


def _load(path: Path, name: str) -> dict[str, Any]:
    if not path.is_file():
        raise RecipeError(f"verifier {name!r}: there is no file {path} (relative to {Path.cwd()})")
    spec = importlib.util.spec_from_file_location(f"own_verifier_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"verifier {name!r}: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    # Whatever a stranger's file raises belongs into one message that names the file.
    except Exception as fault:
        raise RecipeError(f"verifier {name!r}: {path} cannot be imported: {type(fault).__name__}: {fault}") from fault
    return vars(module)


def _extra_arguments(function: Callable[..., Any], name: str) -> tuple[str, ...]:
    parameters = signature(function).parameters
    needed = [key for key, value in parameters.items() if value.default is Parameter.empty and key not in _OFFERED]
    named = [key for key in needed if parameters[key].kind not in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)]
    takes_all = any(value.kind is Parameter.VAR_POSITIONAL for value in parameters.values())
    if len(named) > 2 or (len(parameters) < 2 and not takes_all):
        raise RecipeError(f"verifier {name!r} must take (completion, ground_truth), and prompt= or row= if it wants them")
    return tuple(key for key in _OFFERED if key in parameters)


def _check_of(function: Any) -> Callable[[Any], None]:
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
    if isinstance(result, Verdict):
        return result
    if result is None:
        return Verdict(None, "error", "the verifier returned None")
    score = float(result)
    if score != score or score in (float("inf"), float("-inf")):
        return Verdict(None, "error", f"the verifier returned {score}")
    return Verdict(score)
