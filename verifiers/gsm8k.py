"""gsm8k: the one number that a solution ends in.

strict reads `#### N` or the last box, else the last number, and compares exact values; what stands at the mark is read as
mathematics, so that 5! is not 5 and `\\frac12` not 12. tulu3 is open-instruct's GSM8KVerifier (ground_truth_utils.py @
e6c3044), quirks kept: thinking is graded too, 42.0 is not 42, `10-3` ends in -3, and `1,2,3` ends in 3. tulu3-2024 is the same
@ 5bcd3b25, which read no sign before a whole number (d9797617, March 2026, mended that): -3 is never right, and 3 is for -3.
"""

import re
from fractions import Fraction
from functools import lru_cache

from tulu.types import Verdict
from tulu.verifiers.boxed import find_closing_brace, last_box
from tulu.verifiers.contract import Case, GoldError, Verifier, gold_text, pass_or_fail, shorten
from tulu.verifiers.math.extract import FORMULA
from tulu.verifiers.math.forgive import peel
from tulu.verifiers.math.literals import exact_value
from tulu.verifiers.math.read import read
from tulu.verifiers.math.units import SCALES
from tulu.verifiers.math.values import ZERO, Collection, Named, Quantity
from tulu.verifiers.math.values import Number as Number_
from tulu.verifiers.numbers import Number, parse_number, same_number
from tulu.verifiers.text import after_thinking, last_turn, normalise_characters, visible_text

_WINDOW = 20_000
"""Characters from the end of a completion in which its last number is looked for."""
_LONGEST_FORMULA = 80
"""Characters of a text that is a formula and no prose."""
_NUMBER = re.compile(
    # "-5", "- $5"; but in "10-5", "x-5" and "(2)-5" the minus subtracts, so it is no sign.
    r"(?P<sign>(?<![\w)\]}.])[-+]\s?)?(?:\\?[$€£]\s?)?"
    # "1,234.5", ".5"; "1e6"; "3/4"
    r"(?P<value>(?:\d+(?:,\d+)*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,9}(?!\w))?(?:/\d{1,300}(?![\d/]))?)",
    re.ASCII,
)
_HASHES = re.compile(
    r"####(?=(?:[-+*$€£ \t({]|\\(?:text\w*|math\w*|displaystyle|left|[dt]?frac|sqrt|[(\[$])(?![a-zA-Z]))*+\.?\d)[ \t*]*+([^\n]*)"
)
"""`#### 18`, `#### -$5`: the mark of GSM8K's own solutions; the group is the rest of its line."""
_HEADING = re.compile(r"\d+[.):]\s+\S")  # A heading and no answer, as in `#### 2. Count the eggs`
_HEDGE = re.compile(r"\W*\b(?:or|OR|oder|vs\.?|versus|to|through|bis)\b\W*")
"""What stands between two numbers of which the answer is either: `5 or 6`, `10 to 42`."""
_BETWEEN = re.compile(r"\bbetween\b\W*$", re.IGNORECASE)  # between 5 and 10
_OPERATION = re.compile(r"\d[)}\]]?\s*(?:[*×÷^+]|\\times|\\cdot|\\div)\s*\(?$|\\[a-zA-Z]+\s*[{(\[]?\s*$|[√^_]\s*\{?$")
"""What before a number makes it part of an expression: `3*`, `\\sqrt{`, `x^`."""
_GOES_ON = re.compile(r"\s*(?:[*×÷^+²³πi√]|\\(?:times|cdot|div|pi|sqrt|frac|ldots|dots)|\.\.\.|!(?=\s*[-+*/=]))")
"""What behind a number makes it part of an expression: `5\\pi`, `5^2`."""
_SCALED = re.compile(r"\s+([^\W\d]+)")  # 5 million
_BRACKETED = re.compile(r"[\[(]\s*[-+]?[\d.]+\s*[,;]\s*$")  # [0,100]
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d ,])", re.ASCII)  # `1 000 000`, as it is written in much of Europe
_ROW = re.compile(r"\d+(?:-| +)\d+")  # 10-3 is more often a dash than a sum; 12 13 is one number after another
_LARGEST_SCALED = 10**30
_LABEL = re.compile(r"\((?:step|steps|equation|eq\.?|part|note)\s*\d+\)", re.IGNORECASE)
"""A number that names a step: `(step 3)`, `(Eq. 2)`."""
_PROSE = re.compile(r"(?<!\\)\b[A-Za-z]{2,}")  # A word, and no command
_BOLD = re.compile(r"(?<!\S)(?:\*\*|__)[ \t]*|[ \t]*(?:\*\*|__)(?=[\s.,;:!?]|$)|\\displaystyle\b")  # **18**, but not 3**2
_WRAPPED = re.compile(r"\\[a-zA-Z]+\s*\{[^{}]*$")  # \text{ 18
_SENTENCE_END = re.compile(r"[.!?]\s")
_UPSTREAM_COMMA = re.compile(r"(\d),(\d)")
_UPSTREAM_NUMBER = re.compile(r"[-+]?(?:\d*\.\d+|\d+)")
_RELEASED_NUMBER = re.compile(r"[-+]?\d*\.\d+|\d+")


def _value(match: re.Match[str]) -> Number | None:
    """The exact value of a match of _NUMBER; None where its commas do not group thousands, as in 1,2,3."""
    return parse_number((match["sign"] or "").strip() + match["value"])


@lru_cache(maxsize=32_768)
def _marked_number(text: str) -> Number | None:
    """The number that stands at a mark, worked out and with a unit or a name at most; None where anything else stands there."""
    text = text.strip().strip("*").strip()
    packed = text.replace(" ", "") if _SPACED.fullmatch(text) else text
    plain = parse_number(packed.lstrip("$€£").strip())
    if plain is not None:
        return plain
    for reading in (text, _SENTENCE_END.split(text, maxsplit=1)[0]):
        value = read(reading)[0]
        while isinstance(value, Named | Collection):
            if isinstance(value, Collection) and (value.kind != "set" or len(value.items) != 1):
                return None
            value = value.value if isinstance(value, Named) else value.items[0]
        value = peel(value, Number_(ZERO)) or value
        if isinstance(value, Number_ | Quantity):
            return exact_value(value.node)
    return None


def extract(completion: str) -> Number | None:
    """The number that a completion gives as its answer; None where it gives none, or a choice of two."""
    text = normalise_characters(visible_text(after_thinking(completion)))
    hashes = max(
        ((match.start(), match[1]) for match in _HASHES.finditer(text) if not _HEADING.match(match[1])),
        default=(-1, ""),
    )
    box = last_box(text)
    if box is not None and box.start > hashes[0]:
        return None if box.content is None else _marked_number(box.content)
    if hashes[0] >= 0:
        return _marked_number(hashes[1])
    tail = _BOLD.sub("", _LABEL.sub("", text[-_WINDOW:])).strip()
    if len(tail) <= _LONGEST_FORMULA and not _PROSE.search(tail) and "\n" not in tail and not _ROW.fullmatch(tail):
        return _marked_number(tail)
    return _last_number(tail)


def _last_number(text: str) -> Number | None:
    """The last number of prose; None where it is part of an expression, or one of two to choose from."""
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    last = numbers[-1]
    before, after = text[max(0, last.start() - 40) : last.start()], text[last.end() : last.end() + 40]
    formulas = list(FORMULA.finditer(text))
    if formulas and formulas[-1].start() < last.start() and last.end() <= formulas[-1].end():
        return _marked_number(next(group for group in formulas[-1].groups() if group is not None))
    if len(numbers) > 1:
        between = text[numbers[-2].end() : last.start()]
        between_two = between.strip(" $") == "and" and _BETWEEN.search(
            text[max(0, numbers[-2].start() - 20) : numbers[-2].start()]
        )
        if _HEDGE.fullmatch(between) or between_two:
            return None
    wrapped = _WRAPPED.search(before)
    if wrapped:
        opening = last.start() - len(before) + wrapped.start()
        brace = find_closing_brace(text, text.index("{", opening))
        return None if brace is None else _marked_number(text[opening : brace + 1])
    start = max(text.rfind(" ", 0, last.start()), text.rfind("\n", 0, last.start())) + 1
    chunk = text[start:].split(maxsplit=1)[0]
    if "\\" in chunk or "{" in chunk:
        # \frac{1}{2} and 1{,}000 are read as a whole.
        return _marked_number(chunk.rstrip(".,;:!?"))
    if _OPERATION.search(before) or _GOES_ON.match(after) or (_BRACKETED.search(before) and after.lstrip()[:1] in ("]", ")")):
        return None
    value = _value(last)
    scale = _SCALED.match(after)
    if value is not None and scale and (times := SCALES.get(scale[1])) is not None:
        return Fraction(value) * times if -_LARGEST_SCALED < value < _LARGEST_SCALED else None
    return value


@lru_cache(maxsize=65536)
def _gold_number(text: str) -> Number | None:
    """The number of a ground truth such as `18`, `$1,234`, `5%`, or a solution that ends in `#### 18`; None for all else."""
    return parse_number(
        normalise_characters(visible_text(text)).rsplit("####", 1)[-1].strip().lstrip("$").removesuffix("%").strip()
    )


def check(gold: object) -> None:
    """GoldError unless the ground truth is a number, or a GSM8K solution that ends in `#### N`."""
    text = gold_text(gold)
    if _gold_number(text) is None:
        raise GoldError(f"ground_truth {shorten(text)!r} is no number; gsm8k wants one such as 18, 1,234 or 3.5")


def strict(case: Case) -> Verdict:
    """1 where answer and ground truth have the same exact value."""
    gold = _gold_number(str(case.gold))
    if gold is None:
        return Verdict(None, "error", f"ground_truth {shorten(str(case.gold))!r} is no number")
    answer = extract(case.completion)
    if answer is None:
        return Verdict(0.0, detail="no single number")
    return pass_or_fail(same_number(answer, gold), shorten(f"answer {answer}"))


def tulu3(case: Case) -> Verdict:
    """1 where the last number, cut out as open-instruct does, equals the label as a string."""
    return _last_number_is_gold(case.completion, _UPSTREAM_NUMBER, case.gold)


def tulu3_2024(case: Case) -> Verdict:
    """As tulu3, with the numbers of December 2024."""
    return _last_number_is_gold(last_turn(case.completion), _RELEASED_NUMBER, case.gold)


def _last_number_is_gold(completion: str, number: re.Pattern[str], gold: object) -> Verdict:
    text = _UPSTREAM_COMMA.sub(r"\1\2", completion)
    numbers = number.findall(text)
    answer = numbers[-1] if numbers else text
    return pass_or_fail(str(answer).lower() == str(gold).lower(), shorten(f"answer {answer}"))


GSM8K = Verifier(check=check, strict=strict, tulu3=tulu3, tulu3_2024=tulu3_2024, place="here")
