"""The table of all verifiers by name; a name may also be a function in a file of the user, `path/to/mine.py:score`."""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from tulu.errors import RecipeError
from tulu.verifiers.code.verifier import CODE, CODE_STDIO
from tulu.verifiers.contract import NO_SETTINGS, Mode, Settings, Verifier
from tulu.verifiers.custom import is_custom, load_custom
from tulu.verifiers.gsm8k import GSM8K
from tulu.verifiers.instructions.ifeval_old import IFEVAL_OLD
from tulu.verifiers.instructions.verifier import IFEVAL, IFEVAL_LOOSE
from tulu.verifiers.json_schema import JSON_SCHEMA
from tulu.verifiers.judge import LLM_JUDGE, RUBRIC
from tulu.verifiers.math.verifier import MATH, STRICT_MATH
from tulu.verifiers.multiple_choice import MULTIPLE_CHOICE
from tulu.verifiers.reasoning_gym import REASONING_GYM
from tulu.verifiers.reward_model import REWARD_MODEL
from tulu.verifiers.sciriff import SCIRIFF
from tulu.verifiers.sql import SQL
from tulu.verifiers.strings import EXACT, FLAN, PUZZLE, RE_SEARCH, RE_SEARCH_F1, STRING_F1, STRING_MATCH
from tulu.verifiers.style import CALMSCORE, FORMAT, LANGUAGE, LENGTH, MAX_LENGTH, REPETITION, UP_TO_MAX_LENGTH
from tulu.verifiers.tool_call import TOOL_CALL
from tulu.verifiers.zebra_logic import ZEBRA_LOGIC

VERIFIERS: dict[str, Verifier] = {
    "calmscore": CALMSCORE,
    "code": CODE,
    "code_stdio": CODE_STDIO,
    "exact": EXACT,
    "flan": FLAN,
    "format": FORMAT,
    # open-instruct's names for the judge without and with a reference.
    "general-quality": LLM_JUDGE,
    "general-quality_ref": LLM_JUDGE,
    "gsm8k": GSM8K,
    "ifeval": IFEVAL,
    "ifeval_loose": IFEVAL_LOOSE,
    "ifeval_old": IFEVAL_OLD,
    "json_schema": JSON_SCHEMA,
    "language": LANGUAGE,
    "length": LENGTH,
    "llm_judge": LLM_JUDGE,
    "math": MATH,
    "max_length": MAX_LENGTH,
    "multiple_choice": MULTIPLE_CHOICE,
    "puzzle": PUZZLE,
    "re_search": RE_SEARCH,
    "re_search_f1": RE_SEARCH_F1,
    "reasoning_gym": REASONING_GYM,
    "repetition": REPETITION,
    "reward_model": REWARD_MODEL,
    "rubric": RUBRIC,
    "sciriff": SCIRIFF,
    "sql": SQL,
    "strict_math": STRICT_MATH,
    "string_f1": STRING_F1,
    "string_match": STRING_MATCH,
    # open-instruct's name for string_match.
    "string_matcher": STRING_MATCH,
    "tool_call": TOOL_CALL,
    "up_to_max_length": UP_TO_MAX_LENGTH,
    "zebra_logic": ZEBRA_LOGIC,
}


EXTRAS = {"reasoning_gym": "environments"}
"""The extra that brings a module along, where that is not `verifiers`."""

_spec = lru_cache(maxsize=64)(find_spec)


def find(name: str) -> Verifier:
    """The verifier of a name. RecipeError where the name is unknown (with the nearest ones), its file cannot be used, or a
    package is missing.
    """
    if is_custom(name):
        return load_custom(name)
    verifier = VERIFIERS.get(name.lower())
    if verifier is None:
        similar = get_close_matches(name.lower(), VERIFIERS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(similar)}?" if similar else f"known are {', '.join(sorted(VERIFIERS))}."
        raise RecipeError(f"verifier {name!r} is unknown; {hint} One of your own is named as path/to/mine.py:score")
    _check_modules(name, verifier.needs)
    return verifier


def _check_modules(name: str, modules: Sequence[str]) -> None:
    missing = [module for module in modules if _spec(module) is None]
    if missing:
        extras = ",".join(sorted({EXTRAS.get(module, "verifiers") for module in missing}))
        raise RecipeError(f"verifier {name!r} needs {', '.join(missing)}: pip install 'tulu[{extras}]'")


def check_name(name: str, mode: Mode = "strict", settings: Settings = NO_SETTINGS) -> None:
    """RecipeError unless the verifier exists, has the mode and can run on this machine."""
    verifier = find(name)
    try:
        verifier.grade(mode)
    except RecipeError as error:
        raise RecipeError(f"verifier {name!r}: {error}") from error
    if mode == "tulu3-2024":
        _check_modules(name, verifier.needs_2024)
    if verifier.ready is not None:
        verifier.ready(settings)


def check_gold(name: str, ground_truth: Any) -> None:
    """GoldError (a DataError) unless the verifier can use this ground truth; RecipeError for an unknown verifier."""
    find(name).check(ground_truth)
