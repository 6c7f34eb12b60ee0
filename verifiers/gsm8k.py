"""gsm8k: the one number that a solution ends in.

strict reads `#### N` or the last box, else the last number, and compares exact values.
tulu3 is open-instruct's GSM8KVerifier (ground_truth_utils.py @ e6c3044), quirks kept: thinking is graded too, 42.0 is not
42, `10-3` ends in -3, and `1,2,3` ends in 3.
"""

import re
from functools import lru_cache
from itertools import islice

from tulu.types import Verdict
from tulu.verifiers.boxed import last_box
from tulu.verifiers.contract import Case, GoldError, Verifier, gold_text, pass_or_fail, shorten
from tulu.verifiers.numbers import Number, parse_number, same_number
from tulu.verifiers.text import after_thinking, normalise_characters

_WINDOW = 20_000
"""Characters from the end of a completion in which its last number is looked for."""
_MOST_NUMBERS = 20
"""Numbers of a marked answer that are compared with its first one."""
_NUMBER = re.compile(
    # "-5", "- $5"; but in "10-5", "x-5" and "(2)-5" the minus subtracts, so it is no sign.
    r"(?P<sign>(?<![\w)\]}.])[-+]\s?)?(?:\\?[$€£]\s?)?"
    # "1,234.5", ".5"; "1e6"; "3/4"
    r"(?P<value>(?:\d+(?:,\d+)*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,9}(?!\w))?(?:/\d{1,300}(?![\d/]))?)",
    re.ASCII,
)
_HASHES = re.compile(r"####[ \t]*+(?=[-+]?[ \t]*+\\?[$€£]?[ \t]*+\.?\d)([^\n]*)")
"""`#### 18`, `#### -$5`: the mark of GSM8K's own solutions; the group is the rest of its line."""
_HEADING = re.compile(r"\d+[.):]\s+\S")  # A heading and no answer, as in `#### 2. Count the eggs`
_HEDGE = re.compile(r"\W*\b(?:or|OR|oder|vs\.?|versus)\b\W*")
"""What stands between two numbers of which the answer is either: `5 or 6`."""
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d ,])", re.ASCII)  # `1 000 000`, as it is written in much of Europe
_LABEL = re.compile(r"\((?:step|steps|equation|eq\.?|part|note)\s*\d+\)", re.IGNORECASE)
"""A number that names a step: `(step 3)`, `(Eq. 2)`."""
_FRAC = re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}", re.ASCII)  # `\frac{3}{4}`, `\dfrac {3} {4}`
_TEX_COMMA = re.compile(r"\{,\}|\\[!,;]")  # What groups digits in TeX: `1{,}000`, `1\,000`
_UPSTREAM_COMMA = re.compile(r"(\d),(\d)")
_UPSTREAM_NUMBER = re.compile(r"[-+]?(?:\d*\.\d+|\d+)")


def _value(match: re.Match[str]) -> Number | None:
    """The exact value of a match of _NUMBER; None where its commas do not group thousands, as in 1,2,3."""
    return parse_number((match["sign"] or "").strip() + match["value"])


def _only_number(text: str) -> Number | None:
    """The number of a short answer; None where it holds no number, or several that differ."""
    if _SPACED.fullmatch(text.strip()):
        text = text.replace(" ", "")
    values = [_value(match) for match in islice(_NUMBER.finditer(text), _MOST_NUMBERS)]
    first = values[0] if values else None
    if first is None or any(value is None or not same_number(value, first) for value in values[1:]):
        return None
    return first


def extract(completion: str) -> Number | None:
    """The number that a completion gives as its answer; None where it gives none, or a choice of two."""
    text = normalise_characters(_TEX_COMMA.sub(",", after_thinking(completion)))
    text = _FRAC.sub(r"\1/\2", text)
    hashes = max(
        ((match.start(), match[1]) for match in _HASHES.finditer(text) if not _HEADING.match(match[1])),
        default=(-1, ""),
    )
    box = last_box(text)
    if box is not None and box.start > hashes[0]:
        return None if box.content is None else _only_number(box.content)
    if hashes[0] >= 0:
        return _only_number(hashes[1])
    tail = _LABEL.sub("", text[-_WINDOW:])
    if _SPACED.fullmatch(tail.strip()):
        return _only_number(tail)
    numbers = list(_NUMBER.finditer(tail))
    if not numbers:
        return None
    if len(numbers) > 1 and _HEDGE.fullmatch(tail, numbers[-2].end(), numbers[-1].start()):
        return None
    return _value(numbers[-1])


@lru_cache(maxsize=65536)
def _gold_number(text: str) -> Number | None:
    """The number of a ground truth such as `18`, `$1,234`, `5%`, or a solution that ends in `#### 18`; None for all else."""
    return parse_number(normalise_characters(text).rsplit("####", 1)[-1].strip().lstrip("$").removesuffix("%").strip())


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
    text = _UPSTREAM_COMMA.sub(r"\1\2", case.completion)
    numbers = _UPSTREAM_NUMBER.findall(text)
    answer = numbers[-1] if numbers else text
    return pass_or_fail(str(answer).lower() == str(case.gold).lower(), shorten(f"answer {answer}"))


GSM8K = Verifier(check=check, strict=strict, tulu3=tulu3, place="here")
