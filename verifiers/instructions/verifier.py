"""ifeval and ifeval_loose: the share of verifiable instructions that a completion follows.

The ground truth is {"instruction_id": [...], "kwargs": [...]} or a list of such objects, also as JSON or as a Python literal.
Rows of Tülu 3's first IF data name this verifier too, with {"func_name": ...}; ifeval_old.py grades those. strict grades what
follows the thinking. tulu3 does as open-instruct's IFEvalVerifier (ground_truth_utils.py @ e6c3044): it grades the first entry
only, and takes keywords for regular expressions.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Mode, Verifier, as_text, parse_literal, shorten
from tulu.verifiers.instructions import ifeval_old
from tulu.verifiers.instructions.registry import check_arguments, instruction, stripped
from tulu.verifiers.languages import warm
from tulu.verifiers.text import after_thinking, has_content, remove_thinking_section, visible_text

_ANSWER_TAG = re.compile(r"</?answer>", re.IGNORECASE)
_OF_MARKS = ("format:parentheses", "format:quotes")
"""Instructions that brackets and quotes alone may follow."""
Constraint = tuple[str, dict[str, Any]]
"""The id of an instruction, and its keyword arguments."""


def parse(gold: Any) -> list[list[Constraint]] | None:
    """The constraints of every entry of a ground truth; None for one that ifeval_old grades; GoldError for any other."""
    if isinstance(gold, str):
        gold = parse_literal(gold)
    if isinstance(gold, dict) and "func_name" in gold:
        ifeval_old.parse(gold)
        return None
    entries = gold if isinstance(gold, list) else [gold]
    if not entries:
        raise GoldError("ground_truth holds no instructions")
    return [_constraints(parse_literal(entry) if isinstance(entry, str) else entry) for entry in entries]


def _constraints(entry: Any) -> list[Constraint]:
    if not isinstance(entry, dict):
        raise GoldError(f"ground_truth must hold objects with instruction_id and kwargs, got {type(entry).__name__}")
    # The files of IFEval call the field instruction_id_list.
    ids = entry.get("instruction_id", entry.get("instruction_id_list"))
    ids = [ids] if isinstance(ids, str) else ids
    if not isinstance(ids, list) or not ids:
        raise GoldError("instruction_id must be a non-empty list of ids")
    kwargs = entry.get("kwargs")
    kwargs = [None] * len(ids) if kwargs is None else [kwargs] if isinstance(kwargs, dict) else kwargs
    if not isinstance(kwargs, list) or len(kwargs) != len(ids):
        raise GoldError(f"{len(ids)} instruction ids need a list of {len(ids)} kwargs")
    for name, values in zip(ids, kwargs, strict=True):
        if not isinstance(name, str) or not isinstance(values, dict | None):
            raise GoldError("an instruction is an id and an object of kwargs")
    return [(name, check_arguments(name, instruction(name, "strict"), values)) for name, values in zip(ids, kwargs, strict=True)]


@lru_cache(maxsize=8192)
def _cached_parse(text: str) -> list[list[Constraint]] | None:
    return parse(text)


def follows(text: str, constraints: Sequence[Constraint], mode: Mode) -> list[bool]:
    """Whether a text follows each instruction, in order; a text that shows no letter, digit or symbol follows none."""
    if mode == "tulu3":
        return [bool(text.strip()) and instruction(name, mode)(text, **values) for name, values in constraints]
    if not has_content(text):
        return [False] * len(constraints)
    shown, marks_alone = visible_text(text), not has_content(text, punctuation=False)
    return [
        # Where a ground truth has invisible characters, they are part of what is asked for.
        not (marks_alone and name not in _OF_MARKS)
        and instruction(name, mode)(text if as_text(values) != visible_text(as_text(values)) else shown, **stripped(values))
        for name, values in constraints
    ]


def loose_variants(text: str) -> list[str]:
    """The eight texts of IFEval's loose evaluation: all, or less the first line, the last or both, with and without asterisks."""
    lines = text.split("\n")
    cuts = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    return [variant for cut in (text, *cuts) for variant in (cut, cut.replace("*", ""))]


def _text_to_grade(completion: str) -> str:
    """All that follows the thinking, without answer tags and the blank lines around it; indentation stays."""
    text = after_thinking(completion)
    thought = len(text) < len(completion.strip("\ufeff"))
    text = _ANSWER_TAG.sub("", text) if "<" in text else text
    return (text.lstrip() if thought else text).strip("\r\n")


def _share(results: Sequence[bool], constraints: Sequence[Constraint]) -> Verdict:
    failed = [name for (name, _), passed in zip(constraints, results, strict=True) if not passed]
    detail = f"{len(results) - len(failed)}/{len(results)}" + (f", not {', '.join(failed)}" if failed else "")
    return Verdict(sum(results) / len(results), detail=shorten(detail, 200))


def strict(case: Case) -> Verdict:
    """The share of all instructions that the text after the thinking follows."""
    entries = _cached_parse(as_text(case.gold))
    if entries is None:
        return ifeval_old.strict(case)
    constraints = [constraint for entry in entries for constraint in entry]
    return _share(follows(_text_to_grade(case.completion), constraints, "strict"), constraints)


def loose(case: Case) -> Verdict:
    """As strict, but an instruction counts as followed where any of the eight loose variants follows it."""
    entries = _cached_parse(as_text(case.gold))
    if entries is None:
        return ifeval_old.strict(case)
    constraints = [constraint for entry in entries for constraint in entry]
    variants = loose_variants(_text_to_grade(case.completion))
    results = [any(follows(variant, [constraint], "strict")[0] for variant in variants) for constraint in constraints]
    return _share(results, constraints)


def tulu3(case: Case) -> Verdict:
    """The share of the first entry's instructions that are followed; a keyword that is no regular expression is status error."""
    entries = _cached_parse(as_text(case.gold))
    if entries is None:
        return ifeval_old.tulu3(case)
    return _share(follows(remove_thinking_section(case.completion), entries[0], "tulu3"), entries[0])


def tulu3_2024(case: Case) -> Verdict:
    """As in December 2024, when rows had one constraint with a func_name; other rows have no verdict, where upstream scored 0."""
    if _cached_parse(as_text(case.gold)) is None:
        return ifeval_old.tulu3_2024(case)
    return Verdict(None, "error", "mode tulu3-2024 knows ground truths with func_name alone; use mode tulu3")


IFEVAL = Verifier(check=parse, strict=strict, tulu3=tulu3, tulu3_2024=tulu3_2024, needs=("langdetect", "syllapy"), warm=warm)
IFEVAL_LOOSE = replace(IFEVAL, strict=loose, tulu3=None, tulu3_2024=None)
