"""gsm8k: the one number a solution ends in.

strict reads `#### N` or the last box, else the last number, and compares exact values.
tulu3 is open-instruct's GSM8KVerifier (ground_truth_utils.py @ e6c3044), quirks kept: thinking is graded too, 42.0 is not
42, `10-3` ends in -3, and `1,2,3` ends in 3.
"""

import re
from functools import lru_cache
from itertools import islice

from tulu.types import Verdict
from tulu.verifiers.boxed import last_box
from tulu.verifiers.contract import Case, GoldError, Verifier, gold_text, right, shorten
from tulu.verifiers.numbers import Number, parse_number, same_number
from tulu.verifiers.text import after_thinking, plain

_WINDOW = 20_000
"""Characters from the end in which a last number is looked for."""
_SHORT = 20
"""Numbers of a marked answer that are compared with its first."""
_NUMBER = re.compile(
    # A minus after a digit, letter or bracket subtracts or joins, it is no sign.
    r"(?P<sign>(?<![\w)\]}.])[-+]\s?)?(?:\\?[$€£]\s?)?"
    r"(?P<value>(?:\d+(?:,\d+)*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,9}(?!\w))?(?:/\d{1,300}(?![\d/]))?)",
    re.ASCII,
)
_ANCHOR = re.compile(r"####[ \t]*+(?=[-+]?[ \t]*+\\?[$€£]?[ \t]*+\.?\d)([^\n]*)")
_HEADING = re.compile(r"\d+[.):]\s+\S")
_HEDGE = re.compile(r"\W*\b(?:or|OR|oder|vs\.?|versus)\b\W*")
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d ,])", re.ASCII)
_LABEL = re.compile(r"\((?:step|steps|equation|eq\.?|part|note)\s*\d+\)", re.IGNORECASE)
_FRAC = re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}", re.ASCII)
_GLUE = re.compile(r"\{,\}|\\[!,;]")
_UPSTREAM_COMMA = re.compile(r"(\d),(\d)")
_UPSTREAM = re.compile(r"[-+]?(?:\d*\.\d+|\d+)")


def _value(match: re.Match[str]) -> Number | None:
    """Exact value of a number in a text; None where it is malformed, like 1,2,3."""
    return parse_number((match["sign"] or "").strip() + match["value"])


def _only_number(text: str) -> Number | None:
    """The number of a short answer; None where it holds none or several that differ."""
    if _SPACED.fullmatch(text.strip()):
        # 1 000 000 as it is written in much of Europe.
        text = text.replace(" ", "")
    values = [_value(match) for match in islice(_NUMBER.finditer(text), _SHORT)]
    first = values[0] if values else None
    if first is None or any(value is None or not same_number(value, first) for value in values[1:]):
        return None
    return first


def extract(completion: str) -> Number | None:
    """The number a completion gives as its answer, or None where it gives none or hedges between two."""
    text = plain(_GLUE.sub(",", after_thinking(completion)))
    text = _FRAC.sub(r"\1/\2", text)
    anchor = max(
        ((match.start(), match[1]) for match in _ANCHOR.finditer(text) if not _HEADING.match(match[1])),
        default=(-1, ""),
    )
    box = last_box(text)
    if box is not None and box.start > anchor[0]:
        return None if box.content is None else _only_number(box.content)
    if anchor[0] >= 0:
        return _only_number(anchor[1])
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
def _gold(text: str) -> Number | None:
    return parse_number(plain(text).rsplit("####", 1)[-1].strip().lstrip("$").removesuffix("%").strip())


def check(gold: object) -> None:
    """GoldError unless the ground truth is a number, or a GSM8K solution that ends in `#### N`."""
    text = gold_text(gold)
    if _gold(text) is None:
        raise GoldError(f"ground_truth {shorten(text)!r} is no number; gsm8k wants one such as 18, 1,234 or 3.5")


def strict(case: Case) -> Verdict:
    """1 where the answer's exact value is the gold's."""
    gold = _gold(str(case.gold))
    if gold is None:
        return Verdict(None, "error", f"ground_truth {shorten(str(case.gold))!r} is no number")
    answer = extract(case.completion)
    return right(answer is not None and same_number(answer, gold), _shown(answer))


def _shown(answer: Number | None) -> str:
    if answer is None:
        return "no single number"
    shown = f"{answer[0]}{answer[1] or 0}e{answer[2]}" if isinstance(answer, tuple) else str(answer)
    return shorten("answer " + shown.removesuffix("e0"))


def tulu3(case: Case) -> Verdict:
    """1 where the last number, as open-instruct cuts it out, is the label, as strings."""
    text = _UPSTREAM_COMMA.sub(r"\1\2", case.completion)
    numbers = _UPSTREAM.findall(text)
    answer = numbers[-1] if numbers else text
    return right(str(answer).lower() == str(case.gold).lower(), shorten(f"answer {answer}"))


GSM8K = Verifier(check=check, strict=strict, tulu3=tulu3, place="here")
