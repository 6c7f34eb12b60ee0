"""ifeval_old: the one constraint in each row of Tülu 3's first IF data, {"func_name": ..., and its arguments}.

Its 25 functions (open-instruct if_functions.py @ e6c3044) differ from IFEval's: counts are exact, a number of words can be
`around` another, and a title may be empty. tulu3 differs from strict where a constraint has no arguments, because open-instruct
grades the thinking there.
"""

import json
import re
from functools import lru_cache
from typing import Any, Literal

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Verifier, parse_literal, pass_or_fail
from tulu.verifiers.instructions.ifeval import count_spans
from tulu.verifiers.instructions.registry import Instruction, check_arguments
from tulu.verifiers.languages import detect, warm
from tulu.verifiers.text import after_thinking, remove_thinking_section

Quantifier = Literal["at least", "around", "at most"]
_SENTENCE_END = re.compile(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=\.|\?|!)\s")
"""The space after `.`, `?` or `!`, but not after `e.g.` or `Dr.`."""


def _holds(count: int, quantifier: Quantifier, bound: int, tolerance: int) -> bool:
    if quantifier == "at least":
        return count >= bound
    return count <= bound if quantifier == "at most" else abs(count - bound) <= tolerance


def _tenth(number: int) -> int:
    """How far a count may be off where it is to be around a number: a tenth of it, but at least 1."""
    return max(round(number * 0.1), 1)


def keywords(text: str, *, keyword_list: list[str]) -> bool:
    return all(keyword.lower() in text.lower() for keyword in keyword_list)


def keyword_frequency(text: str, *, word: str, N: int) -> bool:
    return re.findall(r"\b\w+\b", text.lower()).count(word.lower()) == N


def no_forbidden_words(text: str, *, forbidden_words: list[str]) -> bool:
    return not any(word.lower() in text.lower() for word in forbidden_words)


def letter_frequency(text: str, *, letter: str, N: int) -> bool:
    return text.count(letter) == N


def response_language(text: str, *, language: str) -> bool:
    return detect(text) == language


def paragraph_count(text: str, *, N: int) -> bool:
    parts = "\n".join(line.strip() for line in text.splitlines()).split("* * *")
    return len(parts) == N and all(part.strip() for part in parts)


def word_constraint(text: str, *, N: int, quantifier: Quantifier) -> bool:
    return _holds(len(text.split()), quantifier, N, _tenth(N))


def sentence_constraint(text: str, *, N: int, quantifier: Quantifier) -> bool:
    return _holds(len(_SENTENCE_END.split(text)), quantifier, N, 1)


def paragraphs(text: str, *, N: int, first_word: str, i: int) -> bool:
    parts = text.split("\n\n")
    return len(parts) == N and 1 <= i <= N and parts[i - 1].strip().startswith(first_word)


def postscript(text: str, *, postscript_marker: str) -> bool:
    start = text.find(postscript_marker)
    return start >= 0 and len(text[start:].strip()) > len(postscript_marker)


def placeholders(text: str, *, N: int) -> bool:
    return count_spans(text, "[", "]") >= N


def bullet_points(text: str, *, N: int) -> bool:
    return sum(line.strip().startswith(("*", "-")) for line in text.split("\n")) == N


def title(text: str) -> bool:
    return count_spans(text, "<<", ">>") > 0


def choice(text: str, *, options: list[str]) -> bool:
    return any(option in text for option in options)


def highlighted_sections(text: str, *, N: int) -> bool:
    return count_spans(text, "*", "*") >= N


def sections(text: str, *, N: int, section_splitter: str) -> bool:
    parts = text.split(section_splitter)
    return len(parts if parts[0] else parts[1:]) == N


def json_format(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def repeat_prompt(text: str, *, original_prompt: str) -> bool:
    return text.startswith(original_prompt)


def two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    return len(parts) == 2 and parts[0] != parts[1]


def uppercase(text: str) -> bool:
    return text == text.upper()


def lowercase(text: str) -> bool:
    return text == text.lower()


def frequency_capital_words(text: str, *, N: int, quantifier: Quantifier) -> bool:
    return _holds(len(re.findall(r"\b[A-Z]+\b", text)), quantifier, N, _tenth(N))


def end(text: str, *, end_phrase: str) -> bool:
    return text.endswith(end_phrase)


def quotation(text: str) -> bool:
    return text.startswith('"') and text.endswith('"')


def no_commas(text: str) -> bool:
    return "," not in text


FUNCTIONS: dict[str, Instruction] = {
    "verify_keywords": keywords,
    "verify_keyword_frequency": keyword_frequency,
    "validate_forbidden_words": no_forbidden_words,
    "verify_letter_frequency": letter_frequency,
    "validate_response_language": response_language,
    "verify_paragraph_count": paragraph_count,
    "validate_word_constraint": word_constraint,
    "verify_sentence_constraint": sentence_constraint,
    "validate_paragraphs": paragraphs,
    "verify_postscript": postscript,
    "validate_placeholders": placeholders,
    "verify_bullet_points": bullet_points,
    "validate_title": title,
    "validate_choice": choice,
    "validate_highlighted_sections": highlighted_sections,
    "validate_sections": sections,
    "validate_json_format": json_format,
    "validate_repeat_prompt": repeat_prompt,
    "validate_two_responses": two_responses,
    "validate_uppercase": uppercase,
    "validate_lowercase": lowercase,
    "validate_frequency_capital_words": frequency_capital_words,
    "validate_end": end,
    "validate_quotation": quotation,
    "validate_no_commas": no_commas,
}


def parse(gold: Any) -> tuple[Instruction, dict[str, Any]]:
    """The function of a constraint, and its arguments; GoldError where it cannot be used."""
    if isinstance(gold, str):
        gold = parse_literal(gold)
    if not isinstance(gold, dict) or "func_name" not in gold:
        raise GoldError("ground_truth must be an object with func_name")
    name = gold["func_name"]
    if not isinstance(name, str) or name not in FUNCTIONS:
        raise GoldError(f"func_name {name!r} is unknown; known are {', '.join(FUNCTIONS)}")
    values = check_arguments(name, FUNCTIONS[name], {key: value for key, value in gold.items() if key != "func_name"})
    if len(values.get("letter", "x")) != 1:
        raise GoldError(f"{name}: argument letter must be one character")
    return FUNCTIONS[name], values


@lru_cache(maxsize=8192)
def _cached_parse(text: str) -> tuple[Instruction, dict[str, Any]]:
    return parse(text)


def check(gold: Any) -> None:
    """GoldError unless the constraint is known and has its arguments."""
    parse(gold)


def strict(case: Case) -> Verdict:
    """1 where the text after the thinking follows the constraint; an empty text follows none."""
    function, values = _cached_parse(case.gold if isinstance(case.gold, str) else json.dumps(case.gold))
    text = remove_thinking_section(after_thinking(case.completion))
    return pass_or_fail(bool(text) and function(text, **values))


def tulu3(case: Case) -> Verdict:
    """As open-instruct's IFEvalVerifierOld."""
    function, values = _cached_parse(case.gold if isinstance(case.gold, str) else json.dumps(case.gold))
    fields = parse_literal(case.gold) if isinstance(case.gold, str) else case.gold
    # Open-instruct removes the thinking where there are fields beside func_name, also where they are null.
    text = remove_thinking_section(case.completion) if len(fields) > 1 else case.completion
    return pass_or_fail(function(text, **values))


IFEVAL_OLD = Verifier(check=check, strict=strict, tulu3=tulu3, needs=("langdetect",), warm=warm)
