"""ifeval: the share of verifiable instructions that a completion follows.

The ground truth is {"instruction_id": [...], "kwargs": [...]}, a list of such, or either as JSON or a Python literal. Rows of
Tülu 3's first IF data call this verifier too, with {"func_name": ...}: those are ifeval_old's, and are handed to it.
strict grades what follows the thinking. tulu3 grades the first entry only, as open-instruct's IFEvalVerifier does
(ground_truth_utils.py @ e6c3044), reads keywords as patterns, and scores 0 where all is empty.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Mode, Verifier, literal, shorten
from tulu.verifiers.instructions import ifeval_old
from tulu.verifiers.instructions.registry import arguments, instruction
from tulu.verifiers.languages import warm
from tulu.verifiers.text import after_thinking, remove_thinking_section

Constraint = tuple[str, dict[str, Any]]


def parse(gold: Any) -> list[list[Constraint]]:
    """Constraints of every entry of a ground truth; GoldError names what is amiss."""
    if isinstance(gold, str):
        gold = literal(gold)
    entries = gold if isinstance(gold, list) else [gold]
    if not entries:
        raise GoldError("ground_truth holds no instructions")
    return [_constraints(literal(entry) if isinstance(entry, str) else entry) for entry in entries]


def _constraints(entry: Any) -> list[Constraint]:
    if not isinstance(entry, dict):
        raise GoldError(f"ground_truth must hold objects with instruction_id and kwargs, got {type(entry).__name__}")
    # IFEval's own files call the field instruction_id_list.
    ids = entry.get("instruction_id", entry.get("instruction_id_list"))
    ids = [ids] if isinstance(ids, str) else ids
    if not isinstance(ids, list) or not ids:
        raise GoldError("instruction_id must be a non-empty list of ids")
    given = entry.get("kwargs")
    given = [None] * len(ids) if given is None else [given] if isinstance(given, dict) else given
    if not isinstance(given, list) or len(given) != len(ids):
        raise GoldError(f"{len(ids)} instruction ids need a list of {len(ids)} kwargs")
    for name, values in zip(ids, given, strict=True):
        if not isinstance(name, str) or not isinstance(values, dict | None):
            raise GoldError("an instruction is an id and an object of kwargs")
    return [(name, arguments(name, instruction(name, "strict"), values)) for name, values in zip(ids, given, strict=True)]


@lru_cache(maxsize=8192)
def _parsed(text: str) -> list[list[Constraint]]:
    return parse(text)


def _entries(gold: Any) -> list[list[Constraint]]:
    # An object from JSON is parsed once too: its text is the key.
    return _parsed(gold if isinstance(gold, str) else json.dumps(gold))


@lru_cache(maxsize=8192)
def _names_function(text: str) -> bool:
    if "func_name" not in text:
        return False
    found = literal(text)
    return isinstance(found, dict) and "func_name" in found


def _is_old(gold: Any) -> bool:
    return _names_function(gold) if isinstance(gold, str) else isinstance(gold, dict) and "func_name" in gold


def check(gold: Any) -> None:
    """GoldError unless every id is known and has its arguments."""
    if _is_old(gold):
        ifeval_old.check(gold)
    else:
        parse(gold)


def follows(text: str, constraints: Sequence[Constraint], mode: Mode) -> list[bool]:
    """Whether a text follows each instruction."""
    return [bool(text.strip()) and instruction(name, mode)(text, **values) for name, values in constraints]


def loose_variants(text: str) -> list[str]:
    """The eight readings of IFEval's loose evaluation: without first line, last line, both, and each without asterisks."""
    lines = text.split("\n")
    cuts = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    return [variant for cut in (text, *cuts) for variant in (cut, cut.replace("*", ""))]


def _graded(completion: str) -> str:
    """What is graded: all after the thinking, without the blank lines around it; indentation is kept."""
    text = after_thinking(completion)
    return (text if len(text) == len(completion) else text.lstrip()).strip("\r\n")


def _share(results: Sequence[bool], constraints: Sequence[Constraint]) -> Verdict:
    failed = [name for (name, _), passed in zip(constraints, results, strict=True) if not passed]
    detail = f"{len(results) - len(failed)}/{len(results)}" + (f", not {', '.join(failed)}" if failed else "")
    return Verdict(sum(results) / len(results), detail=shorten(detail, 200))


def strict(case: Case) -> Verdict:
    """Share of all instructions that the text after the thinking follows."""
    if _is_old(case.gold):
        return ifeval_old.strict(case)
    constraints = [constraint for entry in _entries(case.gold) for constraint in entry]
    return _share(follows(_graded(case.completion), constraints, "strict"), constraints)


def loose(case: Case) -> Verdict:
    """As strict, with each instruction followed where any of the eight loose readings follows it."""
    if _is_old(case.gold):
        return ifeval_old.strict(case)
    constraints = [constraint for entry in _entries(case.gold) for constraint in entry]
    variants = loose_variants(_graded(case.completion))
    results = [any(follows(variant, [constraint], "strict")[0] for variant in variants) for constraint in constraints]
    return _share(results, constraints)


def tulu3(case: Case) -> Verdict:
    """As open-instruct: the first entry, the mean over its ids; exceptions of its patterns surface as status error."""
    if _is_old(case.gold):
        return ifeval_old.tulu3(case)
    constraints = _entries(case.gold)[0]
    answer = remove_thinking_section(case.completion)
    return _share(follows(answer, constraints, "tulu3"), constraints)


IFEVAL = Verifier(check=check, strict=strict, tulu3=tulu3, needs=("langdetect", "syllapy"), warm=warm)
IFEVAL_LOOSE = replace(IFEVAL, strict=loose, tulu3=None)
