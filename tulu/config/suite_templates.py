"""The Jinja of suites: prompts are templates over a row's columns, ground truths are expressions.

A suite may be another person's file, so its templates run in Jinja's sandbox: they compute texts, and reach nothing else.
"""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tulu.verifiers.boxed import last_box

_IMPORT = re.compile(r"^(?:import|from)\s[^\n]+", re.MULTILINE)


def _boxed(text: str) -> str:
    """What stands in the last box of a solution, which is its answer; an empty text where there is none."""
    box = last_box(text)
    return "" if box is None else box.content or ""


def _letter(place: int) -> str:
    """A for 0, B for 1."""
    return chr(ord("A") + int(place))


def _imports(program: str) -> list[str]:
    """The lines of a program that import something."""
    return _IMPORT.findall(program)


def _after(tests: Sequence[str], setup: str | None) -> list[str]:
    """Each test behind the code that sets it up, where there is any."""
    return [f"{setup}\n{test}" for test in tests] if setup else list(tests)


def _shuffle(options: Sequence[Any], key: str) -> list[Any]:
    """The options in an order that depends on the key alone."""
    shuffled = list(options)
    random.Random(key).shuffle(shuffled)
    return shuffled


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters.update(boxed=_boxed, letter=_letter, from_json=json.loads, imports=_imports, after=_after)
    environment.globals["shuffle"] = _shuffle
    return environment


_ENVIRONMENT = _environment()


def template_mistake(text: str, expression: bool = False) -> str | None:
    """What is wrong with a template or an expression, before any row is there."""
    try:
        filled(text, expression)
    except TemplateSyntaxError as error:
        return f"no Jinja {'expression' if expression else 'template'}: {error.message}"
    return None


@lru_cache(maxsize=256)
def filled(text: str, expression: bool = False) -> Callable[[Mapping[str, Any]], Any]:
    """The function that fills a template in with a row's columns, to a text; or that computes an expression, to its value."""
    if not expression:
        return _ENVIRONMENT.from_string(text).render
    return _ENVIRONMENT.compile_expression(text, undefined_to_none=False)
