"""math: one final answer, compared as mathematics.

strict finds the answer (extract.py), reads it into a typed value (tokens.py, expressions.py, commands.py, statements.py,
read.py) and compares types, then values (compare.py), with certified arithmetic (certify.py, evaluate.py, balls.py). tulu3
is what open-instruct's training computes (upstream.py), tulu3-2024 what it computed when Tülu 3 was trained (released.py).
"""

import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import UNDECIDED, Case, GoldError, Verifier, gold_text, gold_texts, pass_or_fail, shorten
from tulu.verifiers.math.compare import Answer, Comparison
from tulu.verifiers.math.extract import boxes, extract, formula_of
from tulu.verifiers.math.read import read
from tulu.verifiers.math.released import NEEDS, released_candidates, same_answer
from tulu.verifiers.math.tokens import LONGEST
from tulu.verifiers.math.upstream import candidates, same_string, strict_candidates
from tulu.verifiers.math.values import Collection, Named, Number, Quantity, System, Text, Value
from tulu.verifiers.numbers import parse_number, same_number
from tulu.verifiers.text import last_turn

_CPU_SECONDS = 2.0
_PLAIN = re.compile(r"\s*([-+]?\d+(?:\.\d+)?)\s*", re.ASCII)  # -17 or 3.5: most answers are, and need no parser
_QUICK, _DEEP = Comparison(deep=False), Comparison(deep=True)
_CHANGED = "0.73105857863000487925"
"""A number that is no answer of any problem."""


@lru_cache(maxsize=65_536)
def _gold(text: str) -> str:
    """The answer that a ground truth holds: its boxes, what follows `####`, the formula of a sentence, or all of it."""
    boxed = boxes(text)
    if boxed:
        return ", ".join(boxed)
    return formula_of(text.rsplit("####", 1)[-1].strip())


@lru_cache(maxsize=65_536)
def _is_unread(text: str) -> bool:
    """Whether a ground truth is a formula that the grammar does not read, so that it equals the same letters only."""
    value = read(_gold(text))[0]
    return isinstance(value, Text) and value.is_formula


def check(gold: Any) -> None:
    """GoldError unless the ground truth is one answer (or a list of accepted ones) that can be read."""
    for text in gold_texts(gold):
        if not any(character.isalnum() or character == "\\" for character in _gold(text)):
            raise GoldError(f"ground_truth {shorten(text)!r} holds no answer")
        if text.replace("\\{", "").count("{") != text.replace("\\}", "").count("}"):
            raise GoldError(f"ground_truth {shorten(text)!r} has unbalanced braces")
        if len(_gold(text)) <= LONGEST and _is_unread(text):
            cure = "write it as plain LaTeX, the final answer alone, or use exact"
            raise GoldError(f"ground_truth {shorten(text)!r} cannot be read as a formula; {cure}")


def prove(gold: Any) -> None:
    """GoldError unless every accepted answer is read as mathematics or words, grades itself 1 and a changed one 0."""
    check(gold)
    for text in gold_texts(gold):
        answer = _gold(text)
        if len(answer) > LONGEST:
            continue
        value = read(answer)[0]
        if _same(answer, answer, _DEEP) is not True:
            raise GoldError(f"ground_truth {shorten(text)!r} does not equal itself; it may have no finite value")
        if any(_same(other, answer, _DEEP) for other in _changed(value, answer)):
            raise GoldError(f"ground_truth {shorten(text)!r} equals other values too")


def _changed(value: Value, answer: str) -> list[str]:
    """Answers that are wrong whatever the problem is."""
    changed = [_CHANGED, "1=1", "0=1", "x=x+1"]
    if isinstance(value, Number | Quantity):
        changed.append(f"({answer})+\\frac{{1}}{{7}}")
    return [other for other in changed if other != answer]


def quick(case: Case) -> Verdict:
    """The strict verdict where low precision decides; else UNDECIDED."""
    parts = extract(case.completion)
    if not parts:
        return Verdict(0.0, detail="no answer")
    golds = tuple(gold_texts(case.gold))
    if sum(map(len, parts)) > LONGEST:
        return _long(parts[-1], golds)
    return _graded(tuple(parts), golds)


def strict(case: Case) -> Verdict:
    """1 where the answer equals an accepted one, 0 where it does not, or where high precision decides neither."""
    verdict = quick(case)
    if verdict is not UNDECIDED:
        return verdict
    verdict = _grade(tuple(extract(case.completion)), tuple(gold_texts(case.gold)), _DEEP)
    return Verdict(0.0, detail="undecided") if verdict is UNDECIDED else verdict


def _long(answer: str, golds: tuple[str, ...]) -> Verdict:
    """The verdict on an answer that is too long to be read as mathematics: it can be right letter for letter, or as a number."""
    number = parse_number(answer)
    for text in golds:
        gold = _gold(text)
        gold_number = parse_number(gold) if number is not None else None
        if answer.split() in (gold.split(), text.split()) or (
            gold_number is not None and number is not None and same_number(number, gold_number)
        ):
            return Verdict(1.0, detail=shorten(f"answer {answer}"))
    return Verdict(0.0, detail=f"answer of {len(answer)} characters")


def _grade(parts: tuple[str, ...], golds: tuple[str, ...], comparison: Comparison) -> Verdict:
    undecided = False
    for text in golds:
        gold = _gold(text)
        answer = ", ".join(parts) if len(parts) > 1 and len(parts) == _count(gold) else parts[-1]
        same = parts[-1].split() == text.split() or _same(answer, gold, comparison)
        if same:
            return Verdict(1.0, detail=shorten(f"answer {answer}"))
        undecided = undecided or same is None
    return UNDECIDED if undecided else Verdict(0.0, detail=shorten(f"answer {parts[-1]}"))


@lru_cache(maxsize=32_768)
def _graded(parts: tuple[str, ...], golds: tuple[str, ...]) -> Verdict:
    """The answers of a group repeat, so each is compared once."""
    return _grade(parts, golds, _QUICK)


def _count(gold: str) -> int:
    """How many parts a gold has."""
    value = read(gold)[0]
    value = value.value if isinstance(value, Named) else value
    return len(value.items) if isinstance(value, Collection) else len(value.pairs) if isinstance(value, System) else 1


def _same(answer: str, gold: str, comparison: Comparison) -> Answer:
    """Whether an answer means a gold, in any of the readings that both have."""
    plain, plain_gold = _PLAIN.fullmatch(answer), _PLAIN.fullmatch(gold)
    if plain and plain_gold:
        return same_number(Decimal(plain[1]), Decimal(plain_gold[1]))
    if len(gold) > LONGEST or not answer.strip():
        return bool(answer.strip()) and answer.split() == gold.split()
    if answer.split() == gold.split():
        return True
    results = [comparison.same(one, other) for one in read(answer) for other in read(gold)]
    return True if True in results else None if None in results else False


def key(case: Case) -> str:
    """The extracted answer, which the completions of a group repeat."""
    return "\n".join(extract(case.completion))


def tulu3(case: Case) -> Verdict:
    """1 where any of open-instruct's candidates equals the label, as strings in Hendrycks' normalisation."""
    return _any_same(candidates(case.completion), case.gold)


def tulu3_strict_math(case: Case) -> Verdict:
    """As tulu3, with the one candidate of open-instruct's strict_math."""
    return _any_same(strict_candidates(case.completion), case.gold)


def tulu3_2024(case: Case) -> Verdict:
    """1 where any of the candidates of December 2024 equals the label, as a string or for sympy."""
    return _any_same(released_candidates(last_turn(case.completion)), case.gold, same_answer)


def _any_same(answers: list[str], gold: Any, same: Callable[[str, str], bool] = same_string) -> Verdict:
    # As upstream, an empty box equals an empty label.
    labels = gold if isinstance(gold, list | tuple) else [gold]
    return pass_or_fail(any(same(answer, str(label)) for answer in answers for label in labels))


MATH = Verifier(
    check=check,
    strict=strict,
    tulu3=tulu3,
    tulu3_2024=tulu3_2024,
    needs_2024=NEEDS,
    quick=quick,
    key=key,
    cpu_seconds=_CPU_SECONDS,
)
STRICT_MATH = replace(MATH, check=lambda gold: check(gold_text(gold)), tulu3=tulu3_strict_math, tulu3_2024=None)
