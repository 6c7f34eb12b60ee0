import json
from typing import Any

import pytest

from tulu.verifiers.contract import GoldError
from tulu.verifiers.instructions.ifeval_old import FUNCTIONS, IFEVAL_OLD
from tulu.verifiers.instructions.verifier import IFEVAL

# (function, arguments, text that follows, text that breaks)
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("verify_keywords", {"keyword_list": ["fox", "Dog"]}, "dogs and FOXES", "a fox"),
    ("verify_keyword_frequency", {"word": "cat", "N": 2}, "Cat, cats, cat.", "cat cat cat"),
    ("validate_forbidden_words", {"forbidden_words": ["bad"]}, "good", "badly"),
    ("verify_letter_frequency", {"letter": "l", "N": 3}, "hello world", "HELLO world"),
    ("validate_response_language", {"language": "en"}, "This is a plain English sentence.", "Das ist ein deutscher Satz."),
    ("verify_paragraph_count", {"N": 2}, "one\n* * *\ntwo", "one\n* * *\n"),
    ("validate_word_constraint", {"N": 20, "quantifier": "around"}, "w " * 18, "w " * 17),
    ("verify_sentence_constraint", {"N": 3, "quantifier": "around"}, "One. Two.", "One."),
    ("validate_paragraphs", {"N": 2, "first_word": "Two", "i": 2}, "One\n\nTwo it is", "Two\n\nOne"),
    ("verify_postscript", {"postscript_marker": "P.S."}, "x P.S. more", "x P.S."),
    ("validate_placeholders", {"N": 2}, "Hello [name], [item] []", "Hello [name]"),
    ("verify_bullet_points", {"N": 2}, "* a\n - b\nc", "* a"),
    ("validate_title", {}, "<<>>", "<title>"),
    ("validate_choice", {"options": ["A", "B", "C"]}, "I believe the answer is B", "none of them"),
    ("validate_highlighted_sections", {"N": 2}, "*a* **b", "*a*"),
    ("validate_sections", {"N": 2, "section_splitter": "Section"}, "Section 1 a Section 2 b", "Section 1 a"),
    ("validate_json_format", {}, '{"a": 1}', "```json\n{}\n```"),
    ("validate_repeat_prompt", {"original_prompt": "Say hi"}, "Say hi. Hi!", "say hi"),
    ("validate_two_responses", {}, "a******b", "a******a"),
    ("validate_uppercase", {}, "ALL 1 !", "Not all"),
    ("validate_lowercase", {}, "all 1 !", "Not all"),
    ("validate_frequency_capital_words", {"N": 5, "quantifier": "around"}, "AAA BBB CCC DDD", "AAA BBB"),
    ("validate_end", {"end_phrase": "the end"}, "this is the end", "the end."),
    ("validate_quotation", {}, '"all"', '"some" of it'),
    ("validate_no_commas", {}, "none", "a, b"),
]


def test_every_function_has_a_case() -> None:
    assert {name for name, *_ in CASES} == set(FUNCTIONS)
    assert len(FUNCTIONS) == 25


@pytest.mark.parametrize(("name", "values", "followed", "broken"), CASES)
def test_both_modes(name: str, values: dict[str, Any], followed: str, broken: str) -> None:
    # Rows of the released data hold every argument of every function, null where it does not apply.
    truth = json.dumps({"func_name": name, **values, "unused": None})
    IFEVAL_OLD.check(truth)
    # The released rows name the verifier that came later.
    IFEVAL.check(truth)
    assert IFEVAL(followed, truth).score == IFEVAL(followed, truth, "tulu3").score == 1
    assert IFEVAL(broken, truth).score == 0
    for mode in ("strict", "tulu3"):
        assert IFEVAL_OLD("<think>x, y</think>" + followed, truth, mode).score == 1
        assert IFEVAL_OLD(broken, truth, mode).score == 0


def test_upstream_grades_the_thinking_of_a_constraint_without_arguments() -> None:
    truth = {"func_name": "validate_no_commas"}
    assert IFEVAL_OLD("<think>a, b</think>none", truth).score == 1
    assert IFEVAL_OLD("<think>a, b</think>none", truth, "tulu3").score == 0


@pytest.mark.parametrize(
    "truth",
    [
        "{",
        {},
        {"func_name": "nothing"},
        {"func_name": "verify_letter_frequency", "letter": "ab", "N": 1},
        {"func_name": "verify_bullet_points"},
    ],
)
def test_bad_truths_are_refused(truth: Any) -> None:
    with pytest.raises(GoldError):
        IFEVAL_OLD.check(truth)
