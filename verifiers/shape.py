"""How a completion is written, whatever it says: format, length, repetition, language, calmscore."""

import re
from collections import Counter
from functools import lru_cache
from typing import Any, Literal, get_args

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Verifier, is_finite, right, shorten
from tulu.verifiers.languages import CODES, detect, is_language, warm
from tulu.verifiers.prose import regexp_words, sentences
from tulu.verifiers.text import after_thinking

Unit = Literal["words", "characters", "sentences", "tokens"]
_UPSTREAM_FORMAT = re.compile(r".*?</think>\s*<answer>.*?</answer>", re.DOTALL)
_UPSTREAM_SPAN = 32_768
"""Tokens of difference that cost open-instruct's length verifiers the whole score."""
_CPU_SECONDS = 2.0
_GRAM = 20
_TIMES = 4
"""CaLMQA's rule: a 20-gram that occurs four times is repetition."""
_CHARACTER_SCRIPTS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]|\w+?(?=[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]|\b)")


@lru_cache(maxsize=512)
def _pattern(source: str) -> re.Pattern[str]:
    try:
        return re.compile(source, re.DOTALL)
    except re.error as fault:
        raise GoldError(f"ground_truth is no regular expression: {fault}") from fault


def _format_source(gold: Any) -> str | None:
    source = gold.get("pattern") if isinstance(gold, dict) else gold
    if source is not None and not isinstance(source, str):
        raise GoldError("ground_truth must be null (think and answer tags) or {pattern: regular expression}")
    return source or None


def check_format(gold: Any) -> None:
    """GoldError unless the ground truth is null or holds a regular expression that compiles."""
    source = _format_source(gold)
    if source is not None:
        _pattern(source)


def think_answer(completion: str) -> bool:
    """Whether a completion is thinking, then one answer in tags, and nothing else; the template may have opened `<think>`."""
    text = completion.strip().removeprefix("<think>")
    thought, closed, rest = text.partition("</think>")
    rest = rest.strip()
    inner = rest.removeprefix("<answer>").removesuffix("</answer>")
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    clean = not any(tag in part for tag in tags for part in (thought, inner))
    tagged = len(rest) - len(inner) == len("<answer></answer>")
    return bool(closed) and clean and tagged and bool(thought.strip()) and bool(inner.strip())


def format_strict(case: Case) -> Verdict:
    """1 where the whole completion matches the pattern, or has exactly the think and answer tags."""
    source = _format_source(case.gold)
    if source is None:
        return right(think_answer(case.completion))
    return right(_pattern(source).fullmatch(case.completion.strip()) is not None)


def format_tulu3(case: Case) -> Verdict:
    """open-instruct's soft_format_reward_func."""
    return right(_UPSTREAM_FORMAT.match(case.completion) is not None)


def _bounds(gold: Any) -> tuple[float, float, Unit]:
    """Least and most length, and its unit."""
    fields = gold if isinstance(gold, dict) else {"max": gold}
    unit = fields.get("unit", "words")
    try:
        least, most = float(fields.get("min", 0)), float(fields.get("max", "inf"))
    except (TypeError, ValueError, OverflowError) as fault:
        raise GoldError(f"ground_truth must be a number, or {{min, max, unit}}: {fault}") from fault
    if (
        unit not in get_args(Unit)
        or set(fields) - {"min", "max", "unit"}
        or not 0 <= least <= most
        or (least, most) == (0, float("inf"))
    ):
        raise GoldError(f"ground_truth needs min <= max and a unit of {', '.join(get_args(Unit))}; got {gold!r}")
    return least, most, unit


def check_length(gold: Any) -> None:
    """GoldError unless the ground truth bounds a length."""
    _bounds(gold)


def _tokens(case: Case) -> int:
    count = case.row.get("completion_tokens")
    if not isinstance(count, int):
        # The text alone does not say how the policy's tokenizer cut it.
        raise LookupError("lengths in tokens need the row's completion_tokens")
    return count


def _measure(case: Case, unit: Unit) -> int:
    text = after_thinking(case.completion).strip()
    if unit == "tokens":
        return _tokens(case)
    if unit == "characters":
        return len(text)
    return len(regexp_words(text) if unit == "words" else sentences(text))


def length(case: Case) -> Verdict:
    """1 within the bounds, falling to 0 as the length reaches none, or twice the most."""
    least, most, unit = _bounds(case.gold)
    found = _measure(case, unit)
    score = found / least if found < least else max(0.0, 2 - found / most) if most and found > most else float(found <= most)
    return Verdict(score, detail=f"{found} {unit}")


def check_number(gold: Any) -> None:
    """GoldError unless the ground truth is a number of tokens, or its digits."""
    try:
        usable = is_finite(float(gold) if isinstance(gold, str) else gold)
    except ValueError:
        usable = False
    if not usable:
        raise GoldError(f"ground_truth must be a number of tokens, got {shorten(repr(gold))}")


def max_length(case: Case) -> Verdict:
    """open-instruct's MaxLenVerifier: 1 - |tokens - wanted| / 32768; strict keeps it at 0 or above."""
    return Verdict(max(0.0, max_length_tulu3(case).score or 0.0))


def max_length_tulu3(case: Case) -> Verdict:
    return Verdict(1 - abs(_tokens(case) - float(case.gold)) / _UPSTREAM_SPAN)


def up_to_max_length(case: Case) -> Verdict:
    """As max_length, but shorter is right."""
    return Verdict(max(0.0, up_to_max_length_tulu3(case).score or 0.0))


def up_to_max_length_tulu3(case: Case) -> Verdict:
    excess = _tokens(case) - float(case.gold)
    return Verdict(1.0 if excess < 0 else 1 - excess / _UPSTREAM_SPAN)


def _grams(gold: Any) -> tuple[int, int]:
    fields = gold if isinstance(gold, dict) else {}
    size, times = fields.get("size", _GRAM), fields.get("times", _TIMES)
    if (gold is not None and not isinstance(gold, dict | str)) or set(fields) - {"size", "times", "language"}:
        raise GoldError("ground_truth must be null or {size, times}")
    if type(size) is not int or type(times) is not int or size < 1 or times < 2:
        raise GoldError("size must be at least 1 and times at least 2")
    return size, times


def check_repetition(gold: Any) -> None:
    """GoldError unless the ground truth is null or {size, times}."""
    _grams(gold)


def repeats(text: str, size: int, times: int) -> bool:
    """Whether any run of `size` words (characters, where a script has no spaces) occurs `times` times or more."""
    words = _CHARACTER_SCRIPTS.findall(text.lower())
    # A hash per run instead of the run: linear in the text, whatever the size.
    counts = Counter(hash(tuple(words[at : at + size])) for at in range(len(words) - size + 1))
    return any(count >= times for count in counts.values())


def repetition(case: Case) -> Verdict:
    """1 where the completion does not repeat itself, 0 where it does or is empty."""
    text = after_thinking(case.completion)
    return right(bool(text.strip()) and not repeats(text, *_grams(case.gold)))


def _language(gold: Any) -> str:
    code = gold.get("language") if isinstance(gold, dict) else gold
    if not isinstance(code, str) or code.lower() not in CODES | {"zh"}:
        raise GoldError(f"ground_truth must be a language code of {', '.join(sorted(CODES))}; got {gold!r}")
    return code.lower()


def check_language(gold: Any) -> None:
    """GoldError unless the ground truth is a known language code."""
    _language(gold)


def language(case: Case) -> Verdict:
    """1 where the text after the thinking is in the language; a text without letters is in none."""
    text = after_thinking(case.completion)
    return right(is_language(text, _language(case.gold)), f"detected {detect(text)}")


def check_calmscore(gold: Any) -> None:
    """GoldError unless the ground truth is a language code, or {language, size, times}."""
    _language(gold)
    _grams(gold)


def calmscore(case: Case) -> Verdict:
    """1 where the answer is in its question's language and does not repeat itself (CaLMQA, Arora et al. 2025)."""
    spoken, text = language(case), after_thinking(case.completion)
    repeated = repeats(text, *_grams(case.gold))
    return right(spoken.score == 1 and not repeated, spoken.detail + (", repetitive" if repeated else ""))


# A pattern of the data's may backtrack without end on a text made for it: that is the completion's own cost.
FORMAT = Verifier(check=check_format, strict=format_strict, tulu3=format_tulu3, cpu_seconds=_CPU_SECONDS)
LENGTH = Verifier(check=check_length, strict=length)
MAX_LENGTH = Verifier(check=check_number, strict=max_length, tulu3=max_length_tulu3, place="here")
UP_TO_MAX_LENGTH = Verifier(check=check_number, strict=up_to_max_length, tulu3=up_to_max_length_tulu3, place="here")
REPETITION = Verifier(check=check_repetition, strict=repetition)
LANGUAGE = Verifier(check=check_language, strict=language, needs=("langdetect",), warm=warm)
CALMSCORE = Verifier(check=check_calmscore, strict=calmscore, needs=("langdetect",), warm=warm)
