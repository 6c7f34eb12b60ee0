"""Comparing two tidied answers by what linear time can tell: their spelling, their words and their exact numbers."""

import re
from decimal import Decimal

from tulu.verifiers.numbers import EXACT, Number, parse_number, same_number

# Numbers in TeX.

_FRAC = re.compile(r"([-+]?)\\frac\{([-+]?)(\d{1,400})\}\{(\d{1,400})\}")  # \frac{3}{4}, -\frac{3}{4}, \frac{-3}{4}
_MIXED = re.compile(r"([-+]?)(\d{1,300})\\frac\{(\d{1,300})\}\{(\d{1,300})\}")  # 2\frac{1}{2}
# 0.1\overline{36}, 0.\bar3
_REPEATING = re.compile(r"([-+]?)(\d{0,100})\.(\d{0,100})\\(?:overline|dot|bar)(?:\{(\d{1,100})\}|(\d))")
_SCIENTIFIC = re.compile(r"([-+]?[\d.]+)(?:\\times|\\cdot|\*)10\^(?:\{([-+]?\d{1,9})\}|(\d))")  # 1.5\times10^{6}, 2\cdot10^3
_POWER_OF_TEN = re.compile(r"([-+]?)10\^(?:\{([-+]?\d{1,9})\}|(\d))")  # 10^{6}, -10^3
_SLASH = re.compile(r"\s*/\s*")

# Names and inequalities.

_NAME = re.compile(r"(?:[A-Za-z]|\\[a-z]+)(?:_\{?\w+\}?)?(?:\([a-z](?:,[a-z])*\))?'?")  # x, x_1, \theta, f(x), f(x,y), y'
_CHAIN = re.compile(r"([^<>=]+?)(<|\\lt|\\le)([A-Za-z])(<|\\lt|\\le)([^<>=]+)")  # 1<x\le5
_BOUND = re.compile(r"([A-Za-z])(<|>|\\lt|\\gt|\\le|\\ge)([^<>=]+)")  # x\ge2
_INCLUSIVE = ("\\le", "\\ge")

# Words, letters and things counted.

_COUNTED = re.compile(r"(.*\d\)?)((?: [a-z]{3,}){1,4})")  # 12 red apples
_NO_UNITS = frozenset(
    "and but not nor plus minus times over mod half halves third thirds quarter quarters dozen score hundred thousand million "
    "billion trillion alpha beta gamma delta epsilon theta lambda sigma omega phi psi rho tau sin cos tan log exp sqrt".split()
)
"""Words after a number that change its value, and so count nothing."""
_OPTION = re.compile(r"(?:option|choice) ", re.IGNORECASE)  # option B
_LETTERED = re.compile(r"\(([A-Z])\)([^()]*)")  # (A) 5: an option and its text
_SECOND_OPTION = re.compile(r"\b(?:[A-Z]|or|and)\b")  # A second option in that text: (A) or B


def exact_number(text: str) -> Number | None:
    """The rational number that a tidied answer spells, its percent sign ignored; None where it is something else."""
    if " /" in text or "/ " in text:
        text = _SLASH.sub("/", text)
    packed = text.replace(" ", "").removesuffix("%")
    spaced = text.removesuffix("%").strip()
    if packed[:1] + packed[-1:] in ("()", "{}"):
        packed = spaced = packed[1:-1]
    # Only the space tells the mixed number 2 1/2 from 21/2.
    number = parse_number(packed if "/" not in packed or " " not in spaced else spaced)
    if number is not None:
        return number
    if match := _FRAC.fullmatch(packed):
        sign = "-" if (match[1] == "-") != (match[2] == "-") else ""
        return parse_number(f"{sign}{match[3]}/{match[4]}")
    if match := _MIXED.fullmatch(packed):
        return parse_number(f"{match[1]}{match[2]} {match[3]}/{match[4]}")
    if match := _REPEATING.fullmatch(packed):
        return _repeating(match)
    if match := _SCIENTIFIC.fullmatch(packed):
        return parse_number(f"{match[1]}e{match[2] or match[3]}")
    if match := _POWER_OF_TEN.fullmatch(packed):
        return parse_number(f"{match[1]}1e{match[2] or match[3]}")
    return None


def _repeating(match: re.Match[str]) -> Number | None:
    """0.1\\overline{36} is (136 - 1) / 990."""
    sign, whole, start = match[1], match[2] or "0", match[3]
    period = match[4] or match[5]
    numerator = int(whole + start + period) - int(whole + start)
    return parse_number(f"{sign}{numerator}/{'9' * len(period)}{'0' * len(start)}")


def without_name(answer: str, gold: str) -> str:
    """The answer in the form of the gold: `x = 5` as `5` where the gold has no name, `1 < x < 5` as `(1,5)` where it is one."""
    if gold[:1] in ("(", "[") and gold[-1:] in ("]", ")"):
        answer = _interval(answer.replace(" ", "")) or answer
    name, equals, value = answer.partition("=")
    is_equation = equals and "=" not in value and value.strip() and name.strip()[-1:] not in ("<", ">", "!", ":")
    return value.strip() if is_equation and "=" not in gold and _NAME.fullmatch(name.replace(" ", "")) else answer


def _interval(answer: str) -> str | None:
    """A solved inequality in one letter as an interval: `1<x\\le5` is `(1,5]`; None for anything else."""
    if chain := _CHAIN.fullmatch(answer):
        low, low_relation, _, high_relation, high = chain.groups()
    elif bound := _BOUND.fullmatch(answer):
        is_upper = bound[2] in ("<", "\\lt", "\\le")
        low, high = ("-\\infty", bound[3]) if is_upper else (bound[3], "\\infty")
        low_relation, high_relation = ("<", bound[2]) if is_upper else (bound[2], "<")
    else:
        return None
    if re.search("[A-Za-z]", re.sub(r"\\[a-z]+", "", low + high)):
        return None
    return f"{'[' if low_relation in _INCLUSIVE else '('}{low},{high}{']' if high_relation in _INCLUSIVE else ')'}"


def _compare_words(answer: str, gold: str) -> bool | None:
    """Whether two answers that are words or letters of options agree; None where the gold is neither."""
    bare_gold = gold.strip("() ")
    if re.fullmatch(r"[A-Z]", bare_gold):
        lettered = _LETTERED.fullmatch(answer)
        if lettered and not _SECOND_OPTION.search(lettered[2]):
            return lettered[1] == bare_gold
        bare_answer = _OPTION.sub("", answer).strip("(). ")
        return bare_answer == bare_gold if len(bare_answer) == 1 or exact_number(bare_answer) is not None else None
    # "Monday", "no solution", but not "x" or "ab"
    if re.fullmatch(r"[A-Za-z][A-Za-z' -]*[A-Za-z]", bare_gold) and re.search(r"[A-Za-z]{3}", bare_gold):
        return answer.strip("() ").casefold() == bare_gold.casefold()
    return None


def compare(answer: str, gold: str) -> bool | None:
    """Whether two tidied answers are equal; None where neither their spelling nor exact numbers can tell."""
    if not answer:
        return False
    if answer.replace(" ", "") == gold.replace(" ", ""):
        return True
    number, gold_number = exact_number(answer), exact_number(gold)
    if number is None and gold_number is not None and (counted := _COUNTED.fullmatch(answer)):
        number = None if _NO_UNITS & set(counted[2].split()) else exact_number(counted[1])
    if number is not None and gold_number is not None:
        # 50% is written for both 50 and 1/2, so a percentage may also be compared by its value.
        return same_number(number, gold_number) or _same_percentage(answer, number, gold, gold_number)
    if gold_number is not None and not re.search(r"\d|\\[a-z]|[a-zA-Z]", answer):
        return False
    return _compare_words(answer, gold)


def _same_percentage(answer: str, number: Number, gold: str, gold_number: Number) -> bool:
    """Whether one is a percentage, and a hundredth of it is the other."""
    if answer.endswith("%") == gold.endswith("%"):
        return False
    percent, other = (number, gold_number) if answer.endswith("%") else (gold_number, number)
    return same_number(EXACT.scaleb(percent, -2) if isinstance(percent, Decimal) else percent / 100, other)
