"""ifeval_old: the one constraint in each row of Tülu 3's first IF data, {"func_name": ..., and its arguments}.

Its 25 functions (open-instruct if_functions.py @ e6c3044) differ from IFEval's: counts are exact, a number of words can be
`around` another, and a title may be empty. tulu3 differs from strict where a constraint has no arguments, because open-instruct
grades the thinking there. tulu3-2024 is open-instruct @ 5bcd3b25: it removes no thinking, any text has enough placeholders (the
function returned a pair, which is always true), a choice is right where the *text* is part of an option, `!` ends no sentence,
and `around` N words in capitals means exactly N.
"""

import re
from functools import lru_cache
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Verifier, as_text, parse_literal, pass_or_fail
from tulu.verifiers.instructions.ifeval import Instruction, count_spans, is_json
from tulu.verifiers.instructions.registry import KINDS, check_arguments, stripped
from tulu.verifiers.languages import detect_at_start, is_language, warm
from tulu.verifiers.text import after_thinking, has_content, last_turn, remove_thinking_section, visible_text

_SENTENCE_END = re.compile(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=\.|\?|!)\s")
"""The space after `.`, `?` or `!`, but not after `e.g.` or `Dr.`."""


def _holds(count: int, quantifier: str, bound: int, tolerance: int) -> bool:
    if quantifier == "at least":
        return count >= bound
    return count <= bound if quantifier == "at most" else abs(count - bound) <= tolerance


def _tenth(number: int) -> int:
    """How far a count may be off where it is to be around a number: a tenth of it, but at least 1."""
    return max(round(number * 0.1), 1)


def paragraph_count(text: str, N: int) -> bool:
    parts = "\n".join(line.strip() for line in text.splitlines()).split("* * *")
    return len(parts) == N and all(part.strip() for part in parts)


def paragraphs(text: str, N: int, first_word: str, i: int) -> bool:
    parts = text.split("\n\n")
    return len(parts) == N and 1 <= i <= N and parts[i - 1].strip().startswith(first_word)


def postscript(text: str, postscript_marker: str) -> bool:
    start = text.find(postscript_marker)
    return start >= 0 and len(text[start:].strip()) > len(postscript_marker)


def sections(text: str, N: int, section_splitter: str) -> bool:
    parts = text.split(section_splitter)
    return len(parts if parts[0] else parts[1:]) == N


def two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    return len(parts) == 2 and parts[0] != parts[1]


FUNCTIONS: dict[str, Instruction] = {
    "verify_keywords": lambda text, keyword_list: all(keyword.lower() in text.lower() for keyword in keyword_list),
    "verify_keyword_frequency": lambda text, word, N: re.findall(r"\b\w+\b", text.lower()).count(word.lower()) == N,
    "validate_forbidden_words": lambda text, forbidden_words: not any(word.lower() in text.lower() for word in forbidden_words),
    "verify_letter_frequency": lambda text, letter, N: text.count(letter) == N,
    "validate_response_language": is_language,
    "verify_paragraph_count": paragraph_count,
    "validate_word_constraint": lambda text, N, quantifier: _holds(len(text.split()), quantifier, N, _tenth(N)),
    "verify_sentence_constraint": lambda text, N, quantifier: _holds(len(_SENTENCE_END.split(text)), quantifier, N, 1),
    "validate_paragraphs": paragraphs,
    "verify_postscript": postscript,
    "validate_placeholders": lambda text, N: count_spans(text, "[", "]") >= N,
    "verify_bullet_points": lambda text, N: sum(line.strip().startswith(("*", "-")) for line in text.split("\n")) == N,
    "validate_title": lambda text: count_spans(text, "<<", ">>") > 0,
    "validate_choice": lambda text, options: any(option in text for option in options),
    "validate_highlighted_sections": lambda text, N: count_spans(text, "*", "*") >= N,
    "validate_sections": sections,
    "validate_json_format": lambda text: is_json(text, constants=True),
    "validate_repeat_prompt": lambda text, original_prompt: text.startswith(original_prompt),
    "validate_two_responses": two_responses,
    "validate_uppercase": lambda text: text == text.upper(),
    "validate_lowercase": lambda text: text == text.lower(),
    "validate_frequency_capital_words": lambda text, N, quantifier: _holds(
        len(re.findall(r"\b[A-Z]+\b", text)), quantifier, N, _tenth(N)
    ),
    "validate_end": lambda text, end_phrase: text.endswith(end_phrase),
    "validate_quotation": lambda text: text.startswith('"') and text.endswith('"'),
    "validate_no_commas": lambda text: "," not in text,
}


UPSTREAM: dict[str, Instruction] = {"validate_response_language": lambda text, language: detect_at_start(text) == language}
"""The functions that mode tulu3 computes otherwise."""
_RELEASED_SENTENCE_END = re.compile(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=\.|\?)\s")
RELEASED: dict[str, Instruction] = {
    **UPSTREAM,
    "validate_placeholders": lambda text, N: True,
    "validate_choice": lambda text, options: any(text in option for option in options),
    "verify_sentence_constraint": lambda text, N, quantifier: _holds(len(_RELEASED_SENTENCE_END.split(text)), quantifier, N, 1),
    "validate_frequency_capital_words": lambda text, N, quantifier: _holds(
        len(re.findall(r"\b[A-Z]+\b", text)), quantifier, N, 0
    ),
}
"""The functions that mode tulu3-2024 computes otherwise."""


def parse(gold: Any) -> tuple[str, dict[str, Any]]:
    """The name of a constraint's function, and its arguments; GoldError where it cannot be used."""
    if isinstance(gold, str):
        gold = parse_literal(gold)
    if not isinstance(gold, dict) or "func_name" not in gold:
        raise GoldError("ground_truth must be an object with func_name")
    name = gold["func_name"]
    if not isinstance(name, str) or name not in FUNCTIONS:
        raise GoldError(f"func_name {name!r} is unknown; known are {', '.join(FUNCTIONS)}")
    arguments = {key: value for key, value in gold.items() if key != "func_name"}
    values = check_arguments(name, FUNCTIONS[name], arguments, {**KINDS, "options": list})
    if len(values.get("letter", "x")) != 1:
        raise GoldError(f"{name}: argument letter must be one character")
    return name, values


@lru_cache(maxsize=8192)
def _cached_parse(text: str) -> tuple[str, dict[str, Any]]:
    return parse(text)


def strict(case: Case) -> Verdict:
    """1 where the text after the thinking follows the constraint; a text that shows nothing follows none."""
    name, values = _cached_parse(as_text(case.gold))
    text = visible_text(remove_thinking_section(after_thinking(case.completion)))
    return pass_or_fail(has_content(text) and FUNCTIONS[name](text, **stripped(values)))


def tulu3(case: Case) -> Verdict:
    """As open-instruct's IFEvalVerifierOld."""
    name, values = _cached_parse(as_text(case.gold))
    fields = parse_literal(case.gold) if isinstance(case.gold, str) else case.gold
    # Open-instruct removes the thinking where there are fields beside func_name, also where they are null.
    text = remove_thinking_section(case.completion) if len(fields) > 1 else case.completion
    return pass_or_fail(UPSTREAM.get(name, FUNCTIONS[name])(text, **values))


def tulu3_2024(case: Case) -> Verdict:
    """As open-instruct's verify_ifeval_sample of December 2024."""
    name, values = _cached_parse(as_text(case.gold))
    return pass_or_fail(bool(RELEASED.get(name, FUNCTIONS[name])(last_turn(case.completion), **values)))


IFEVAL_OLD = Verifier(check=parse, strict=strict, tulu3=tulu3, tulu3_2024=tulu3_2024, needs=("langdetect",), warm=warm)
