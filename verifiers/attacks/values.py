"""Whether two golds have the same value, decided without the verifier that is under attack."""

import json
import re
from fractions import Fraction
from typing import Any

_WRAPPER = re.compile(r"\\(?:left|right|displaystyle|!|,|;|:)|[$\s]|\\(?:d|t)(?=frac)")
"""What changes no value: sizes, spaces, dollars, and the d of `\\dfrac`."""
_FRACTION = re.compile(r"(-?)\\?frac\{(-?\d+)\}\{(\d+)\}", re.ASCII)
_NUMERIC = frozenset({"gsm8k", "math", "strict_math"})


def value_key(name: str, gold: Any) -> str:
    """A text that golds of the same value share as a rule; golds with different keys may still be equal."""
    if name in _NUMERIC:
        return _number_key(str(gold))
    if name == "multiple_choice":
        return str(gold["answer"] if isinstance(gold, dict) else gold).strip("() .").upper()
    if name == "reasoning_gym":
        # Two questions that have one answer are no two values: "Yes" is right for both.
        return str((gold if isinstance(gold, dict) else json.loads(gold))["entry"]["answer"]).strip().casefold()
    if isinstance(gold, str | int | float):
        return " ".join(str(gold).split()).casefold()
    return json.dumps(gold, sort_keys=True, default=str)


def _number_key(text: str) -> str:
    plain = _WRAPPER.sub("", text.rsplit("####", 1)[-1]).replace("\\frac", "frac")
    number = _FRACTION.sub(r"\1\2/\3", plain).replace(",", "").lstrip("$")
    try:
        return str(Fraction(number))
    except (ValueError, ZeroDivisionError):
        return plain


def values_differ(name: str, a: Any, b: Any) -> bool:
    """Whether two golds whose keys differ have different values: expressions are computed to 40 digits where sympy reads them."""
    if name not in ("math", "strict_math"):
        return True
    try:
        import sympy
        from latex2sympy2_extended import latex2sympy

        first, second = (latex2sympy(str(gold)) for gold in (a, b))
        difference = sympy.sympify(first - second)
        letters = sorted(difference.free_symbols, key=str)
        at = {letter: sympy.Rational(7 + 3 * place, 5 + place) for place, letter in enumerate(letters)}
        return bool(abs(sympy.N(difference.subs(at), 40)) > sympy.Float("1e-30"))
    # What sympy cannot read or subtract (sets, texts, equations) counts as different, and is listed for a person to see.
    except Exception:  # noqa: BLE001
        return True
