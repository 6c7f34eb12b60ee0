"""math: one final answer, compared as mathematics.

strict takes one answer and compares it with the gold by spelling and exact numbers (exact.py), then by its value at fixed points
(numeric.py), and only then by math-verify (symbolic.py), in a process that can be killed. tulu3 is what open-instruct's training
computes (upstream.py).
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import UNDECIDED, Case, GoldError, Verifier, gold_text, gold_texts, pass_or_fail, shorten
from tulu.verifiers.math import numeric, symbolic
from tulu.verifiers.math.answer import extract, tidy
from tulu.verifiers.math.exact import compare, without_name
from tulu.verifiers.math.limits import LONGEST_ANSWER, reason_to_refuse
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


def quick(case: Case) -> Verdict:
    """The strict verdict where it can be had without math-verify; else UNDECIDED."""
    raw = extract(case.completion)
    if raw is None or not raw.strip():
        return Verdict(0.0, detail="no answer")
    golds = tuple(map(_tidy_gold, gold_texts(case.gold)))
    # The answers of a group repeat, so short ones are compared once.
    return _cached_comparison(raw, golds) if len(raw) <= LONGEST_ANSWER else _compare_with_golds(raw, golds)


def _compare_with_golds(raw: str, golds: tuple[str, ...]) -> Verdict:
    answer, undecided = tidy(raw), False
    for gold in golds:
        candidate = without_name(answer, gold)
        same = compare(candidate, gold)
        if same is None and reason_to_refuse(candidate, gold) is None:
            same = numeric.equal(candidate, gold)
            undecided = undecided or same is None
        if same:
            return Verdict(1.0, detail=shorten(f"answer {candidate}"))
    if undecided:
        return UNDECIDED
    reason = reason_to_refuse(answer, golds[0])
    return Verdict(0.0, detail=shorten(f"answer {answer}" + (f" ({reason})" if reason else "")))


_cached_comparison = lru_cache(maxsize=32_768)(_compare_with_golds)


def strict(case: Case) -> Verdict:
    """1 where the answer equals an accepted one; 0 where it cannot be read; status error where the gold cannot be read."""
    verdict = quick(case)
    if verdict is not UNDECIDED:
        return verdict
    answer = tidy(extract(case.completion) or "")
    unreadable = None
    for gold in map(_tidy_gold, gold_texts(case.gold)):
        candidate = without_name(answer, gold)
        if compare(candidate, gold) is False or reason_to_refuse(candidate, gold) or numeric.equal(candidate, gold) is False:
            continue
        try:
            if symbolic.equal(candidate, gold):
                return Verdict(1.0, detail=shorten(f"answer {candidate}"))
            unreadable = unreadable or (None if symbolic.parses(gold) else gold)
        except (MemoryError, RecursionError) as fault:
            return Verdict(0.0, detail=f"answer {shorten(candidate)} cannot be computed: {type(fault).__name__}")
        # sympy raises many kinds of exceptions on answers that mean nothing; only a gold that fails by itself is an error.
        except Exception:  # noqa: BLE001
            unreadable = unreadable or (None if symbolic.equal(gold, gold) else gold)
    if unreadable is not None:
        cure = "give the final answer alone, or use gsm8k for its solutions"
        return Verdict(None, "error", f"ground_truth {shorten(unreadable)!r} cannot be parsed; {cure}")
    return Verdict(0.0, detail=shorten(f"answer {answer}"))


def key(case: Case) -> str:
    """The extracted answer, which the completions of a group repeat."""
    return extract(case.completion) or ""


def tulu3(case: Case) -> Verdict:
    """1 where any of open-instruct's candidates equals the label, as strings in Hendrycks' normalisation."""
    return _any_same(candidates(case.completion), case.gold)


def tulu3_strict_math(case: Case) -> Verdict:
    """As tulu3, with the one candidate of open-instruct's strict_math."""
    return _any_same(strict_candidates(case.completion), case.gold)


def _any_same(answers: list[str], gold: Any) -> Verdict:
    # As upstream, an empty box equals an empty label.
    labels = gold if isinstance(gold, list | tuple) else [gold]
    return pass_or_fail(any(same_string(answer, str(label)) for answer in answers for label in labels))


MATH = Verifier(
    check=check,
    strict=strict,
    tulu3=tulu3,
    quick=quick,
    key=key,
    cpu_seconds=_CPU_SECONDS,
    needs=("math_verify",),
    warm=symbolic.warm,
)
STRICT_MATH = replace(MATH, check=lambda gold: check(gold_text(gold)), tulu3=tulu3_strict_math)
