"""Custom verifiers: a function in a Python file of the user, which a recipe names as `path/to/mine.py:score`."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from tulu.errors import RecipeError
from tulu.types import Verdict
from tulu.user_code import content_digest
from tulu.verifiers.contract import Case, GoldError, Settings, Verifier
from tulu.verifiers.custom_function import own_file, own_function
from tulu.verifiers.custom_look import looking


def is_custom(name: str) -> bool:
    """Whether the name of a verifier consists of a file and a function."""
    return ".py:" in name


def known_everywhere(name: str) -> str:
    """The name of a verifier as processes know it that work in other folders: of one in a file, the whole path."""
    if not is_custom(name):
        return name
    file, _, function = name.rpartition(":")
    return f"{Path(file).expanduser().resolve()}:{function}"


@lru_cache(maxsize=64)
def load_custom(name: str) -> Verifier:
    """The verifier of `FILE.py:FUNCTION`. `ready` says whether the file can be used; only what grades imports it.

    The function is called with (completion, ground_truth), and with prompt= and row= where it takes them. It returns a float,
    a bool, a Verdict, or None where it cannot grade. Where the file also has a function `check(ground_truth)`, that is called
    when data is loaded.
    """

    def ready(_settings: Settings) -> None:
        looking().has_check(name)

    def check(gold: Any) -> None:
        if objection := looking().objection(name, gold):
            raise GoldError(objection)

    def warm() -> None:
        own_function(name)

    def strict(case: Case) -> Verdict:
        own = own_function(name)
        if case.content not in ("", own.content):
            text = f"{own_file(name)}, or a file that it imports, is not what it was when grading began"
            raise RecipeError(f"{text}; put it back, or begin a new run")
        return own.grade(case)

    return Verifier(check=check, strict=strict, ready=ready, warm=warm, content=lambda: content_digest(own_file(name)))
