"""The table of all verifiable instructions (25 of IFEval, 29 of IF-RLVR, 58 of IFBench), and the check of their arguments."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from tulu.verifiers.contract import GoldError, Mode, is_finite
from tulu.verifiers.instructions import if_rlvr, ifbench_format, ifbench_words, ifeval
from tulu.verifiers.instructions.ifeval import Instruction
from tulu.verifiers.languages import CODES

INSTRUCTIONS: dict[str, Instruction] = {
    **ifeval.INSTRUCTIONS,
    **if_rlvr.INSTRUCTIONS,
    **ifbench_words.INSTRUCTIONS,
    **ifbench_format.INSTRUCTIONS,
}
UPSTREAM: dict[str, Instruction] = {
    **ifeval.UPSTREAM,
    **if_rlvr.UPSTREAM,
    **ifbench_words.UPSTREAM,
    **ifbench_format.UPSTREAM,
}
"""The instructions that mode tulu3 computes otherwise, as open-instruct does; all others are the same in both modes."""

_COUNTS = (
    "N capital_frequency frequency let_frequency i m max_words min_words n n_end n_sent n_start n_words nth_paragraph "
    "num_bullets num_highlights num_paragraphs num_placeholders num_sections num_sentences num_words small_n"
).split()
_TEXTS = (
    "end_phrase first_word keyword keyword1 keyword2 keyword3 keyword4 keyword5 language last_word letter options "
    "original_prompt phrase postscript_marker prompt_to_repeat reference_text section_spliter section_splitter sep word"
).split()
_RELATIONS = ("less than", "at least")
KINDS: dict[str, Any] = {
    **dict.fromkeys(_COUNTS, int),
    **dict.fromkeys(_TEXTS, str),
    **dict.fromkeys(("forbidden_words", "keyword_list", "keywords"), list),
    **dict.fromkeys(("relation", "let_relation", "capital_relation"), _RELATIONS),
    "quantifier": ("at least", "around", "at most"),
    "percentage": float,
}
"""What each argument may be, by its name in the data: a number, a text, a list of texts, or one of several words."""


_KEYWORDS = frozenset(
    "end_phrase first_word forbidden_words keyword keyword1 keyword2 keyword3 keyword4 keyword5 keyword_list keywords last_word "
    "word".split()
)


def stripped(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an instruction, in which keywords have no white space around them."""
    return {key: _strip(value) if key in _KEYWORDS else value for key, value in values.items()}


def _strip(value: Any) -> Any:
    return [entry.strip() for entry in value] if isinstance(value, list) else value.strip()


def instruction(name: str, mode: Mode) -> Instruction:
    """The function of an id; GoldError with the nearest ids for an unknown one."""
    if name not in INSTRUCTIONS:
        similar = get_close_matches(name, INSTRUCTIONS, n=2, cutoff=0.4)
        raise GoldError(f"instruction id {name!r} is unknown" + (f"; did you mean {' or '.join(similar)}?" if similar else ""))
    return UPSTREAM.get(name, INSTRUCTIONS[name]) if mode == "tulu3" else INSTRUCTIONS[name]


@lru_cache(maxsize=256)
def _arguments(function: Instruction) -> list[str]:
    """The names of an instruction's arguments; the text comes before them, and what has a default comes from no data."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]


def check_arguments(
    name: str, function: Instruction, kwargs: Mapping[str, Any] | None, kinds: Mapping[str, Any] = KINDS
) -> dict[str, Any]:
    """The keyword arguments of an instruction as its function takes them, without nulls; GoldError where one cannot be used."""
    values = {key: value for key, value in (kwargs or {}).items() if value is not None}
    arguments = _arguments(function)
    if unknown := sorted(set(values) - set(arguments)):
        raise GoldError(f"{name}: unknown argument {', '.join(unknown)}; it takes {', '.join(arguments) or 'none'}")
    if missing := sorted(set(arguments) - set(values)):
        # IFEval draws a missing value at random, which would differ from one verdict to the next.
        raise GoldError(f"{name}: missing argument {', '.join(missing)}")
    return {key: _check_kind(name, key, values[key], kinds[key]) for key in arguments}


def _check_kind(name: str, key: str, value: Any, kind: Any) -> Any:
    if kind is str:
        # IF-RLVR writes some keywords as lists with one entry.
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        usable = isinstance(value, str) and value.strip() and (key != "language" or value in CODES | {"zh"})
    elif kind is list:
        usable = isinstance(value, list) and all(isinstance(entry, str) and entry.strip() for entry in value)
    elif kind in (int, float):
        usable = is_finite(value) and (kind is float or value == int(value))
        value = kind(value) if usable else value
    else:
        usable = value in kind
    if not usable:
        raise GoldError(f"{name}: argument {key} cannot be {value!r}")
    return value
