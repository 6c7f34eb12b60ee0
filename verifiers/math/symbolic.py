"""Mathematical equality of two short answers by math-verify; only ever used in a process that can be killed."""

import cmath
import logging
import re
from functools import lru_cache
from typing import Any

from tulu.verifiers.math.exact import exact_number
from tulu.verifiers.numbers import same_number

_BASED = re.compile(r"([0-9A-F]+)\s*_\s*\{?\s*(\d{1,3})\s*\}?", re.IGNORECASE)  # 1A_{16}, 101_2: a number and its base
_DIGITS = 10
"""Decimals to which math-verify compares values."""
_RELATIVE = 1e-9
"""Share of the larger of two numbers by which equal ones may differ."""


def warm() -> None:
    """Imports math-verify and parses once, so that the first verdict does not wait for its grammar."""
    equal("\\frac{x}{2}", "0.5x")


@lru_cache(maxsize=1)
def _library() -> Any:
    import math_verify

    # It warns in every process that its own time-outs are off, which is intended here.
    for name in ("math_verify", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return math_verify


@lru_cache(maxsize=2048)
def _parse(answer: str) -> tuple[Any, ...]:
    library = _library()
    # math-verify's own time-out is SIGALRM in whole seconds; here the worker has a CPU limit, and its parent a deadline.
    formula, config = f"${answer}$", [library.LatexExtractionConfig()]
    return tuple(library.parse(formula, config, fallback_mode="no_fallback", parsing_timeout=None))


def parses(answer: str) -> bool:
    """Whether math-verify can read an answer."""
    return bool(_parse(answer))


def equal(answer: str, gold: str) -> bool:
    """Whether math-verify takes two tidied answers for equal, and numbers among them are close and bases the same."""
    answer_base, gold_base = _BASED.fullmatch(answer), _BASED.fullmatch(gold)
    if answer_base and gold_base:
        return answer_base.groups() == gold_base.groups()
    if answer_base:
        return answer_base[1] == gold
    if gold_base:
        return gold_base[1] == answer
    if answer.count("=") == 1 and "=" not in gold and _is_false_equation(answer):
        return False
    parsed, parsed_gold = _parse(answer), _parse(gold)
    same = bool(_library().verify(list(parsed_gold), list(parsed), float_rounding=_DIGITS, timeout_seconds=None))
    if not same:
        return False
    if _holds_undefined(parsed[0]) or _holds_undefined(parsed_gold[0]):
        return bool(parsed[0] == parsed_gold[0])
    return not _far_apart(parsed[0], parsed_gold[0])


def _holds_undefined(node: Any) -> bool:
    """Whether some number in an expression, such as `0^{-1}`, has no finite value; the ends of an interval may be infinite."""
    from sympy import Basic, Expr, Interval

    if not isinstance(node, Basic) or isinstance(node, Interval):
        return False
    if isinstance(node, Expr) and node.is_number:
        try:
            return not cmath.isfinite(complex(node.evalf(20)))
        except TypeError:
            # sympy has no complex number for what it leaves unevaluated, such as an undefined limit.
            return True
    return any(_holds_undefined(part) for part in node.args)


def _is_false_equation(equation: str) -> bool:
    """Whether an equation says that two different numbers are equal, such as 11 = 12."""
    left, right = (exact_number(side.strip()) for side in equation.split("="))
    return left is not None and right is not None and not same_number(left, right)


def _far_apart(a: Any, b: Any) -> bool:
    """Whether two numbers differ by more than rounding; math-verify rounds to decimals, which makes all tiny numbers equal."""
    from sympy import Expr

    if not (isinstance(a, Expr) and isinstance(b, Expr) and a.is_number and b.is_number):
        return False
    first, second = complex(a.evalf(20)), complex(b.evalf(20))
    return abs(first - second) > _RELATIVE * max(abs(first), abs(second)) and "%" not in str(a) + str(b)
