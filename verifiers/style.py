"""Verifiers of how a completion is written, whatever it says: format, length, repetition, language, calmscore."""

import re
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, wraps
from typing import Any, Literal, get_args

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Grade, Verifier, is_finite, not_negative, pass_or_fail, shorten
from tulu.verifiers.languages import CODES, detect, is_language, warm
from tulu.verifiers.prose import regexp_words, sentences
from tulu.verifiers.text import after_thinking, has_content, visible_text, without_thinking_tags

Unit = Literal["words", "characters", "sentences", "tokens"]
_UPSTREAM_FORMAT = re.compile(r".*?</think>\s*<answer>.*?</answer>", re.DOTALL)
_UPSTREAM_SPAN = 32_768
"""Tokens of difference that cost open-instruct's length verifiers the whole score."""
_LEAST_SHARE = 0.1
"""Share of the shortest length below which a text is no answer."""
_CPU_SECONDS = 2.0
_GRAM, _TIMES = 20, 4
"""CaLMQA's rule: 20 words in a row that occur four times are repetition."""
_CHARACTERS_OF_WORD, _FEWEST_CHARACTERS = 5, 40
_UNSPACED = r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]"
"""A character of a script without spaces between words: kana, Chinese, Thai."""
_WORD = re.compile(rf"{_UNSPACED}|\w+?(?={_UNSPACED}|\b)")  # A word, or one character of a script without spaces


@lru_cache(maxsize=512)
def _compile(source: str) -> re.Pattern[str]:
    try:
        return re.compile(source, re.DOTALL)
    except re.error as fault:
        raise GoldError(f"ground_truth is no regular expression: {fault}") from fault


def format_pattern(gold: Any) -> re.Pattern[str] | None:
    """The regular expression of a ground truth; None where it is null, which asks for the tags of thinking and answer.

    GoldError where it is something else, or no regular expression.
    """
    source = gold.get("pattern") if isinstance(gold, dict) else gold
    if source is not None and not isinstance(source, str):
        raise GoldError("ground_truth must be null (think and answer tags) or {pattern: regular expression}")
    return _compile(visible_text(source)) if source else None


def has_think_and_answer(completion: str) -> bool:
    """Whether a completion is thinking and then one answer, both in tags, and nothing else.

    `<think>` may be missing, because chat templates can open it in the prompt.
    """
    text = visible_text(completion).strip().removeprefix("<think>")
    thinking, closing_tag, rest = text.partition("</think>")
    rest = rest.strip()
    answer = rest.removeprefix("<answer>").removesuffix("</answer>")
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    parts = (thinking, answer)
    no_further_tags = not any(tag in part for tag in tags for part in parts) and without_thinking_tags(answer) == answer
    tagged = len(rest) - len(answer) == len("<answer></answer>")
    return bool(closing_tag) and no_further_tags and tagged and all(map(has_content, parts))


def format_strict(case: Case) -> Verdict:
    """1 where the whole completion matches the pattern, or consists of the tags of thinking and answer; 0 without an answer.

    Invisible characters match nothing.
    """
    pattern = format_pattern(case.gold)
    if pattern is None:
        return pass_or_fail(has_think_and_answer(case.completion))
    text = visible_text(case.completion).strip()
    return pass_or_fail(has_content(after_thinking(text)) and pattern.fullmatch(text) is not None)


def format_tulu3(case: Case) -> Verdict:
    """open-instruct's soft_format_reward_func."""
    return pass_or_fail(_UPSTREAM_FORMAT.match(case.completion) is not None)


def length_bounds(gold: Any) -> tuple[float, float, Unit]:
    """Shortest and longest length, and their unit; GoldError unless the ground truth is a longest length, or {min, max, unit}."""
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


def _tokens(case: Case) -> int:
    count = case.row.get("completion_tokens")
    if not isinstance(count, int):
        # A text alone does not show how many tokens the policy's tokenizer makes of it.
        raise LookupError("lengths in tokens need the row's completion_tokens")
    return count


def _measure(case: Case, unit: Unit) -> int:
    """The length of what follows the thinking; invisible characters do not count, and white space in a row counts once."""
    if unit == "tokens":
        return _tokens(case)
    text = visible_text(after_thinking(case.completion))
    if unit == "characters":
        return len(" ".join(text.split()))
    return len(regexp_words(text) if unit == "words" else sentences(text))


def length(case: Case) -> Verdict:
    """1 within the bounds; outside, the score falls to 0 at twice the longest length, or towards length 0.

    Less than a tenth of the shortest length scores 0, as no answer does.
    """
    least, most, unit = length_bounds(case.gold)
    count = _measure(case, unit)
    if not has_content(after_thinking(case.completion)) or count < least * _LEAST_SHARE:
        return Verdict(0.0, detail=f"{count} {unit}")
    score = count / least if count < least else max(0.0, 2 - count / most) if most and count > most else float(count <= most)
    return Verdict(score, detail=f"{count} {unit}")


def check_number(gold: Any) -> None:
    """GoldError unless the ground truth is a number of tokens, or its digits."""
    with suppress(ValueError):
        if is_finite(float(gold) if isinstance(gold, str) else gold):
            return
    raise GoldError(f"ground_truth must be a number of tokens, got {shorten(repr(gold))}")


def _of_an_answer(grade: Grade) -> Grade:
    """A grading function whose scores are those of another one, but 0 where nothing follows the thinking, and never below 0."""

    @wraps(grade)
    def graded(case: Case) -> Verdict:
        verdict = not_negative(grade)(case)
        return verdict if verdict.score is None or has_content(after_thinking(case.completion)) else replace(verdict, score=0.0)

    return graded


def max_length_tulu3(case: Case) -> Verdict:
    """open-instruct's MaxLenVerifier: 1 - |tokens - ground truth| / 32768."""
    return Verdict(1 - abs(_tokens(case) - float(case.gold)) / _UPSTREAM_SPAN)


def up_to_max_length_tulu3(case: Case) -> Verdict:
    """open-instruct's UpToMaxLenVerifier: 1 where there are fewer tokens than the ground truth, else as MaxLenVerifier."""
    excess = _tokens(case) - float(case.gold)
    return Verdict(1.0 if excess < 0 else 1 - excess / _UPSTREAM_SPAN)


def gram_rule(gold: Any) -> tuple[int, int]:
    """Words in a row, and how often they must occur to be repetition; GoldError unless it is null or {size, times}."""
    fields = gold if isinstance(gold, dict) else {}
    size, times = fields.get("size", _GRAM), fields.get("times", _TIMES)
    if (gold is not None and not isinstance(gold, dict | str)) or set(fields) - {"size", "times", "language"}:
        raise GoldError("ground_truth must be null or {size, times}")
    if type(size) is not int or type(times) is not int or size < 1 or times < 2:
        raise GoldError("size must be at least 1 and times at least 2")
    return size, times


def repeats(text: str, size: int, times: int) -> bool:
    """Whether any `size` words in a row (characters, in scripts without spaces) occur `times` times or more.

    So do loops without spaces or words, such as `!!!!` or `abcabc`: five characters stand for a word there, and 40 or more count.
    """
    text = visible_text(text).lower()
    words, characters = _WORD.findall(text), "".join(text.split())
    # Hashes are counted in place of the words themselves, so that memory does not grow with `size`.
    counts = Counter(hash(tuple(words[start : start + size])) for start in range(len(words) - size + 1))
    width = max(_CHARACTERS_OF_WORD * size, _FEWEST_CHARACTERS)
    runs = Counter(hash(characters[start : start + width]) for start in range(len(characters) - width + 1))
    return any(count >= times for counter in (counts, runs) for count in counter.values())


def repetition(case: Case) -> Verdict:
    """1 where the answer does not repeat itself; 0 where it does, or shows nothing."""
    text = after_thinking(case.completion)
    return pass_or_fail(has_content(text) and not repeats(text, *gram_rule(case.gold)))


def language_code(gold: Any) -> str:
    """The code in lower case; GoldError unless the ground truth is a known one."""
    code = gold.get("language") if isinstance(gold, dict) else gold
    if not isinstance(code, str) or code.lower() not in CODES | {"zh"}:
        raise GoldError(f"ground_truth must be a language code of {', '.join(sorted(CODES))}; got {gold!r}")
    return code.lower()


def language(case: Case) -> Verdict:
    """1 where the text after the thinking is in the language; one of less than three words is in no language."""
    text = after_thinking(case.completion)
    return pass_or_fail(is_language(text, language_code(case.gold)), f"detected {detect(text)}")


def check_calmscore(gold: Any) -> None:
    """GoldError unless the ground truth is a language code, or {language, size, times}."""
    language_code(gold)
    gram_rule(gold)


def calmscore(case: Case) -> Verdict:
    """1 where the answer is in its question's language and does not repeat itself (CaLMQA, Arora et al. 2025)."""
    verdict, text = language(case), after_thinking(case.completion)
    repeated = repeats(text, *gram_rule(case.gold))
    return pass_or_fail(verdict.score == 1 and not repeated, verdict.detail + (", repetitive" if repeated else ""))


# A regular expression may backtrack without end on a text made for it, so a completion that costs too much scores 0.
FORMAT = Verifier(check=format_pattern, strict=format_strict, tulu3=format_tulu3, cpu_seconds=_CPU_SECONDS)
LENGTH = Verifier(check=length_bounds, strict=length)
MAX_LENGTH = Verifier(check=check_number, strict=_of_an_answer(max_length_tulu3), tulu3=max_length_tulu3, place="here")
UP_TO_MAX_LENGTH = Verifier(
    check=check_number, strict=_of_an_answer(up_to_max_length_tulu3), tulu3=up_to_max_length_tulu3, place="here"
)
REPETITION = Verifier(check=gram_rule, strict=repetition)
LANGUAGE = Verifier(check=language_code, strict=language, needs=("langdetect",), warm=warm)
CALMSCORE = Verifier(check=check_calmscore, strict=calmscore, needs=("langdetect",), warm=warm)
