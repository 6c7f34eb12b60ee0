"""The 25 instructions of IFEval (Zhou et al. 2023; google-research instruction_following_eval @ 1963839).

Mode strict takes keywords as literal text. Mode tulu3 takes them for regular expressions, as the table UPSTREAM says.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from tulu.verifiers.languages import by_statistics, is_language
from tulu.verifiers.prose import Cut, regexp_words, sentences, tokens, upstream_sentences

Instruction = Callable[..., bool]
"""Takes a text, and the arguments of an instruction by the names of the data; returns whether the text follows it."""
_DIVIDER = re.compile(r"\s?\*\*\*\s?")  # What parts paragraphs: `***`
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
_WORD_END = re.compile(r"[.,?!'\"]")
_MARKS = "*_#>`~.,;:?!'\"“”‘’«»()[]-—"
"""Marks that may stand around a word and are no part of it."""
_HIGHLIGHTS = (re.compile(r"\*[^\n*]*\*"), re.compile(r"\*\*[^\n*]*\*\*"))  # `*important*`, `**important**`
_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_FENCES = ("```json", "```Json", "```JSON", "```")
_POSTSCRIPTS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}


def holds(count: int, relation: str, bound: int) -> bool:
    """Whether a count is `less than` or `at least` a bound."""
    return count < bound if relation == "less than" else count >= bound


def count_whole_words(text: str, word: str) -> int:
    """How often a word or phrase occurs and is no part of a longer word; case does not count."""
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def count_matches(text: str, pattern: str) -> int:
    """How often a regular expression matches, inside words too; case does not count."""
    return len(re.findall(pattern, text, re.IGNORECASE))


def every(items: Sequence[Any], fits: Callable[[Any], object]) -> bool:
    """Whether there are items, and all of them fit."""
    return bool(items) and all(map(fits, items))


def every_two(items: Sequence[Any], fit: Callable[[Any, Any], object]) -> bool:
    """Whether there are items, and each fits together with the one after it."""
    return bool(items) and all(map(fit, items, items[1:]))


def letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return holds(text.lower().count(letter.lower()), let_relation, let_frequency)


def starred_paragraphs(text: str, count: int) -> list[str] | None:
    """So many paragraphs between `***` dividers, without an empty first or last one; None where there are more or fewer, or
    another one is empty.
    """
    parts = [part.strip() for part in _DIVIDER.split(text)]
    paragraphs = [part for part in parts if part]
    return paragraphs if all(parts[1:-1]) and len(paragraphs) == count else None


def nth_paragraph_first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Whether there are so many paragraphs, with blank lines between them, and the n-th begins with a word."""
    parts = [part for part in _BLANK_LINES.split(text) if part.strip()]
    if len(parts) != num_paragraphs or not 1 <= nth_paragraph <= num_paragraphs:
        return False
    word, expected = _first_word(parts[nth_paragraph - 1]), _first_word(first_word)
    return bool(word) and expected in (word, _WORD_END.split(word, maxsplit=1)[0])


def _first_word(text: str) -> str:
    """The first word of a text, in lower case and without the marks around it: `then` of `**"Then,**`."""
    words = (word.lower().strip(_MARKS) for word in text.split(maxsplit=8))
    return next((word for word in words if word), "")


def upstream_nth_paragraph(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = text.split("\n\n")
    if len([part for part in parts if part.strip()]) != num_paragraphs or not 1 <= nth_paragraph <= num_paragraphs:
        return False
    words = parts[nth_paragraph - 1].split()
    return bool(words) and re.split(r"[.,?!'\"]", words[0].lstrip("'\"").lower(), maxsplit=1)[0] == first_word.lower()


def number_sentences(text: str, num_sentences: int, relation: str, cut: Cut = sentences) -> bool:
    return holds(len(cut(text)), relation, num_sentences)


def count_spans(text: str, opening: str, closing: str) -> int:
    """How many spans from an opening to a closing mark there are on one line each, without overlap: `[x] and [y]` has 2."""
    count = 0
    for line in text.split("\n"):
        start = line.find(opening)
        while start >= 0:
            end = line.find(closing, start + len(opening))
            if end < 0:
                break
            count += 1
            start = line.find(opening, end + len(closing))
    return count


def postscript(text: str, postscript_marker: str) -> bool:
    pattern = _POSTSCRIPTS.get(postscript_marker, re.escape(postscript_marker.lower()))
    return re.search(pattern, text.lower()) is not None


def _is_bullet(line: str) -> bool:
    return line.startswith("-") or (line.startswith("*") and len(line) > 1 and line[1] != "*")


def number_highlighted_sections(text: str, num_highlights: int) -> bool:
    spans = [span for pattern in _HIGHLIGHTS for span in pattern.findall(text)]
    return sum(bool(span.strip("*").strip()) for span in spans) >= num_highlights


def without_fence(text: str) -> str:
    """A text without the Markdown fence around it."""
    text = text.strip()
    for fence in _FENCES:
        text = text.removeprefix(fence)
    return text.removesuffix("```").strip()


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def is_json(text: str, *, constants: bool, faults: tuple[type[Exception], ...] = (ValueError, RecursionError)) -> bool:
    """Whether all of a text is JSON; with `constants`, NaN and the infinities are JSON too, as they are for Python."""
    try:
        json.loads(text, parse_constant=None if constants else _refuse_constant)
    except faults:
        return False
    return True


def title(text: str) -> bool:
    """Whether a line has a title that is not empty: `<<A Title>>`."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


def two_responses(text: str) -> bool:
    """Whether there are two different responses, with `******` between them."""
    parts = [part.strip() for part in text.split("******")]
    responses = [part for part in parts if part]
    return all(parts[1:-1]) and len(responses) == 2 and responses[0] != responses[1]


def quotation(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text.startswith('"') and text.endswith('"')


INSTRUCTIONS: dict[str, Instruction] = {
    "keywords:existence": lambda text, keywords: all(keyword.lower() in text.lower() for keyword in keywords),
    "keywords:frequency": lambda text, keyword, frequency, relation: holds(
        text.lower().count(keyword.lower()), relation, frequency
    ),
    "keywords:forbidden_words": lambda text, forbidden_words: not any(count_whole_words(text, word) for word in forbidden_words),
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": is_language,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": lambda text, num_paragraphs: starred_paragraphs(text, num_paragraphs) is not None,
    "length_constraints:number_words": lambda text, num_words, relation: holds(len(regexp_words(text)), relation, num_words),
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": lambda text, num_placeholders: count_spans(text, "[", "]") >= num_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": lambda text, num_bullets: (
        sum(_is_bullet(line.lstrip()) for line in text.split("\n")) == num_bullets
    ),
    "detectable_format:constrained_response": lambda text: any(option in text for option in _CONSTRAINED),
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    # Headings such as `Section 1`.
    "detectable_format:multiple_sections": lambda text, section_spliter, num_sections: (
        len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections
    ),
    "detectable_format:json_format": lambda text: is_json(without_fence(text), constants=False),
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": lambda text, prompt_to_repeat: text.strip().lower().startswith(prompt_to_repeat.strip().lower()),
    "startend:end_checker": lambda text, end_phrase: text.strip().strip('"').lower().endswith(end_phrase.strip().lower()),
    "change_case:capital_word_frequency": lambda text, capital_frequency, capital_relation: holds(
        sum(token.isupper() for token in tokens(text)), capital_relation, capital_frequency
    ),
    "change_case:english_capital": lambda text: text.isupper() and is_language(text, "en"),
    "change_case:english_lowercase": lambda text: text.islower() and is_language(text, "en"),
    "punctuation:no_comma": lambda text: "," not in text,
    "startend:quotation": quotation,
}

UPSTREAM: dict[str, Instruction] = {
    "keywords:existence": lambda text, keywords: all(re.search(keyword, text, re.IGNORECASE) for keyword in keywords),
    "keywords:frequency": lambda text, keyword, frequency, relation: holds(count_matches(text, keyword), relation, frequency),
    "keywords:forbidden_words": lambda text, forbidden_words: (
        not any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in forbidden_words)
    ),
    "length_constraints:number_sentences": partial(number_sentences, cut=upstream_sentences),
    "length_constraints:nth_paragraph_first_word": upstream_nth_paragraph,
    # A text without letters is in every language.
    "language:response_language": lambda text, language: by_statistics(text) in (language, None),
    "change_case:english_capital": lambda text: text.isupper() and by_statistics(text) in ("en", None),
    "change_case:english_lowercase": lambda text: text.islower() and by_statistics(text) in ("en", None),
    "detectable_format:json_format": lambda text: is_json(without_fence(text), constants=True, faults=(ValueError,)),
}
"""The instructions that mode tulu3 computes otherwise."""
