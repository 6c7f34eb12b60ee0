"""math: one final answer, compared as mathematics.

strict takes one answer, compares spelling, then exact numbers, and only then asks math-verify, in a process that can be
killed. tulu3 is what open-instruct's training really checked (@ e6c3044): see math_upstream.py.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import UNDECIDED, Case, GoldError, Verifier, gold_text, gold_texts, right, shorten
from tulu.verifiers.math import numeric as math_fast
from tulu.verifiers.math import symbolic as math_symbolic
from tulu.verifiers.math.answer import ANSWER_LIMIT, agrees, extract, refused, tidy, without_name
from tulu.verifiers.math.upstream import candidates, same_string, strict_candidates

_CPU_SECONDS = 2.0


def check(gold: Any) -> None:
    """GoldError unless the ground truth is one answer (or a list of accepted ones) with balanced braces."""
    for text in gold_texts(gold):
        if not _tidy_gold(text):
            raise GoldError(f"ground_truth {shorten(text)!r} holds no answer")
        if text.replace("\\{", "").count("{") != text.replace("\\}", "").count("}"):
            raise GoldError(f"ground_truth {shorten(text)!r} has unbalanced braces")


@lru_cache(maxsize=65536)
def _tidy_gold(text: str) -> str:
    boxed = extract(text) if "\\boxed" in text else None
    return tidy(text if boxed is None else boxed)


def _golds(gold: Any) -> list[str]:
    return [_tidy_gold(text) for text in gold_texts(gold)]


def quick(case: Case) -> Verdict:
    """The strict verdict where spelling, exact numbers or a refusal settle it; else UNDECIDED."""
    raw = extract(case.completion)
    if raw is None or not raw.strip():
        return Verdict(0.0, detail="no answer")
    golds = tuple(_golds(case.gold))
    # The answers of a group repeat.
    return _settled(raw, golds) if len(raw) <= ANSWER_LIMIT else _settle(raw, golds)


def _settle(raw: str, golds: tuple[str, ...]) -> Verdict:
    answer, undecided = tidy(raw), False
    for gold in golds:
        held = without_name(answer, gold)
        verdict = agrees(held, gold)
        if verdict is None and refused(held, gold) is None:
            verdict = math_fast.equal(held, gold)
            undecided = undecided or verdict is None
        if verdict:
            return Verdict(1.0, detail=shorten(f"answer {held}"))
    if undecided:
        return UNDECIDED
    why = refused(answer, golds[0])
    return Verdict(0.0, detail=shorten(f"answer {answer}" + (f" ({why})" if why else "")))


_settled = lru_cache(maxsize=32_768)(_settle)


def strict(case: Case) -> Verdict:
    """1 where the one answer equals a gold; 0 where it cannot be read; error where the gold cannot."""
    verdict = quick(case)
    if verdict is not UNDECIDED:
        return verdict
    answer = tidy(extract(case.completion) or "")
    unreadable = None
    for gold in _golds(case.gold):
        held = without_name(answer, gold)
        if agrees(held, gold) is False or refused(held, gold) or math_fast.equal(held, gold) is False:
            continue
        try:
            if math_symbolic.equal(held, gold):
                return Verdict(1.0, detail=shorten(f"answer {held}"))
            unreadable = unreadable or (None if math_symbolic.parses(gold) else gold)
        except (MemoryError, RecursionError) as fault:
            return Verdict(0.0, detail=f"answer {shorten(held)} cannot be computed: {type(fault).__name__}")
        # sympy fails in many ways on answers that mean nothing; only a gold that fails by itself is our fault.
        except Exception:  # noqa: BLE001
            unreadable = unreadable or (None if math_symbolic.equal(gold, gold) else gold)
    if unreadable is not None:
        cure = "give the final answer alone, or use gsm8k for its solutions"
        return Verdict(None, "error", f"ground_truth {shorten(unreadable)!r} cannot be parsed; {cure}")
    return Verdict(0.0, detail=shorten(f"answer {answer}"))


def key(case: Case) -> str:
    """The extracted answer: rollouts of a group repeat it."""
    return extract(case.completion) or ""


def tulu3(case: Case) -> Verdict:
    """1 where any of open-instruct's candidates equals the label, as Hendrycks' strings."""
    return _any_same(candidates(case.completion), case.gold)


def tulu3_strict_math(case: Case) -> Verdict:
    """As tulu3, with the candidate of open-instruct's strict_math."""
    return _any_same(strict_candidates(case.completion), case.gold)


def _any_same(answers: list[str], gold: Any) -> Verdict:
    # An empty label is upstream's to be matched by an empty box.
    labels = gold if isinstance(gold, list | tuple) else [gold]
    return right(any(same_string(answer, str(label)) for answer in answers for label in labels))


def check_one(gold: Any) -> None:
    """GoldError unless the ground truth is one non-empty answer."""
    check(gold_text(gold))


MATH = Verifier(
    check=check,
    strict=strict,
    tulu3=tulu3,
    quick=quick,
    key=key,
    cpu_seconds=_CPU_SECONDS,
    needs=("math_verify",),
    warm=math_symbolic.warm,
)
STRICT_MATH = replace(MATH, check=check_one, tulu3=tulu3_strict_math)
