"""The 25 instructions of IFEval (Zhou et al. 2023; google-research instruction_following_eval @ 1963839).

Each function returns whether a text follows one instruction; its keyword arguments are those of the data. Mode strict takes
keywords as literal text; the functions at the end are what mode tulu3 computes otherwise.
"""

import json
import re
from typing import Literal

from tulu.verifiers.languages import by_statistics, is_english, is_language
from tulu.verifiers.prose import regexp_words, sentences, tokens

Relation = Literal["less than", "at least"]
_DIVIDER = re.compile(r"\s?\*\*\*\s?")  # What parts paragraphs: `***`
_HIGHLIGHT = re.compile(r"\*[^\n*]*\*")
_DOUBLE_HIGHLIGHT = re.compile(r"\*\*[^\n*]*\*\*")
_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_FENCES = ("```json", "```Json", "```JSON", "```")


def holds(count: int, relation: Relation, bound: int) -> bool:
    """Whether a count is `less than` or `at least` a bound."""
    return count < bound if relation == "less than" else count >= bound


def count_whole_words(text: str, word: str) -> int:
    """How often a word or phrase occurs and is no part of a longer word; case does not count."""
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def existence(text: str, *, keywords: list[str]) -> bool:
    return all(keyword.lower() in text.lower() for keyword in keywords)


def frequency(text: str, *, keyword: str, frequency: int, relation: Relation) -> bool:
    return holds(text.lower().count(keyword.lower()), relation, frequency)


def forbidden_words(text: str, *, forbidden_words: list[str]) -> bool:
    return not any(count_whole_words(text, word) for word in forbidden_words)


def letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: Relation) -> bool:
    return holds(text.lower().count(letter.lower()), let_relation, let_frequency)


def response_language(text: str, *, language: str) -> bool:
    return is_language(text, language)


def number_sentences(text: str, *, num_sentences: int, relation: Relation) -> bool:
    return holds(len(sentences(text)), relation, num_sentences)


def starred_paragraphs(text: str) -> list[str] | None:
    """The paragraphs between `***` dividers, without an empty first or last one; None where another one is empty."""
    parts = [part.strip() for part in _DIVIDER.split(text)]
    if any(not part for part in parts[1:-1]):
        return None
    return [part for part in parts if part]


def number_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    parts = starred_paragraphs(text)
    return parts is not None and len(parts) == num_paragraphs


def number_words(text: str, *, num_words: int, relation: Relation) -> bool:
    return holds(len(regexp_words(text)), relation, num_words)


def nth_paragraph_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Whether there are so many paragraphs, with a blank line between them, and the n-th begins with a word."""
    parts = text.split("\n\n")
    if len([part for part in parts if part.strip()]) != num_paragraphs or not 1 <= nth_paragraph <= num_paragraphs:
        return False
    words = parts[nth_paragraph - 1].split() if nth_paragraph <= len(parts) else []
    if not words:
        return False
    return re.split(r"[.,?!'\"]", words[0].lstrip("'\"").lower(), maxsplit=1)[0] == first_word.lower()


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


def number_placeholders(text: str, *, num_placeholders: int) -> bool:
    return count_spans(text, "[", "]") >= num_placeholders


def postscript(text: str, *, postscript_marker: str) -> bool:
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(patterns.get(postscript_marker, re.escape(postscript_marker.lower())), text.lower()) is not None


def _is_bullet(line: str) -> bool:
    return line.startswith("-") or (line.startswith("*") and len(line) > 1 and line[1] != "*")


def number_bullet_lists(text: str, *, num_bullets: int) -> bool:
    return sum(_is_bullet(line.lstrip()) for line in text.split("\n")) == num_bullets


def constrained_response(text: str) -> bool:
    return any(option in text for option in _CONSTRAINED)


def number_highlighted_sections(text: str, *, num_highlights: int) -> bool:
    single = sum(bool(span.strip("*").strip()) for span in _HIGHLIGHT.findall(text))
    double = sum(bool(span.strip("*").strip()) for span in _DOUBLE_HIGHLIGHT.findall(text))
    return single + double >= num_highlights


def multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    """Counts headings such as `Section 1`."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections


def without_fence(text: str) -> str:
    """A text without the Markdown fence around it."""
    text = text.strip()
    for fence in _FENCES:
        text = text.removeprefix(fence)
    return text.removesuffix("```").strip()


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def json_format(text: str) -> bool:
    try:
        json.loads(without_fence(text), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
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


def repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(text: str, *, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def capital_word_frequency(text: str, *, capital_frequency: int, capital_relation: Relation) -> bool:
    return holds(sum(token.isupper() for token in tokens(text)), capital_relation, capital_frequency)


def english_capital(text: str) -> bool:
    return text.isupper() and is_english(text)


def english_lowercase(text: str) -> bool:
    return text.islower() and is_english(text)


def no_comma(text: str) -> bool:
    return "," not in text


def quotation(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text.startswith('"') and text.endswith('"')


# What mode tulu3 computes otherwise: keywords are regular expressions, and a text without letters is in every language.


def upstream_existence(text: str, *, keywords: list[str]) -> bool:
    return all(re.search(keyword, text, re.IGNORECASE) for keyword in keywords)


def upstream_frequency(text: str, *, keyword: str, frequency: int, relation: Relation) -> bool:
    return holds(len(re.findall(keyword, text, re.IGNORECASE)), relation, frequency)


def upstream_forbidden_words(text: str, *, forbidden_words: list[str]) -> bool:
    return not any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in forbidden_words)


def upstream_response_language(text: str, *, language: str) -> bool:
    detected = by_statistics(text)
    return detected is None or detected == language


def upstream_english_capital(text: str) -> bool:
    return text.isupper() and by_statistics(text) in ("en", None)


def upstream_english_lowercase(text: str) -> bool:
    return text.islower() and by_statistics(text) in ("en", None)


def upstream_json_format(text: str) -> bool:
    try:
        json.loads(without_fence(text))
    except ValueError:
        return False
    return True
