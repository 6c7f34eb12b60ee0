"""Mode tulu3-2024 against the code that graded Tülu 3 and OLMo 2, row by row.

released_verdicts.jsonl holds what gsm8k, math and ifeval of open-instruct @ 5bcd3b25 (4 December 2024) return, computed by
running that code in the main thread, with the grammar of sympy 1.14. Its completions and ground truths were made for this test:
of a grid of 3,650 rows all in which that code differs from e6c3044, and more than as many in which it does not.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from tulu.errors import RecipeError
from tulu.grading.grader import Grader
from tulu.types import Problem
from tulu.verifiers.math.released import same_for_sympy
from tulu.verifiers.registry import check_name, find

ROWS = [json.loads(line) for line in Path(__file__).with_name("released_verdicts.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["gsm8k", "math", "ifeval"])
def test_every_row_is_graded_as_the_released_code_does(name: str) -> None:
    rows = [row for row in ROWS if row["verifier"] == name]
    wrong = [row for row in rows if find(name)(row["completion"], row["ground_truth"], "tulu3-2024").score != row["score"]]
    assert len(rows) >= 100
    assert wrong == []


def test_the_rows_tell_the_modes_apart() -> None:
    """Else the test above would pass with one mode under two names."""
    differ = Counter(
        row["verifier"]
        for row in ROWS
        if find(row["verifier"])(row["completion"], row["ground_truth"], "tulu3").score != row["score"]
    )
    assert differ == {"gsm8k": 15, "math": 135, "ifeval": 140}


@pytest.mark.parametrize(
    ("verifier", "completion", "gold", "then", "now"),
    [
        ("gsm8k", "It is -3.", "-3", 0, 1),
        ("gsm8k", "It is -3.", "3", 1, 0),
        ("gsm8k", "It is -3.5.", "-3.5", 1, 1),
        ("math", r"\boxed{x+1}", "1+x", 1, 0),
        ("math", r"\boxed{2\sqrt{3}}", r"\sqrt{12}", 1, 0),
        ("math", r"\boxed{0.333}", r"\frac{1}{3}", 0, 0),
        ("math", "12 points", "12 points", 0, 1),
        ("ifeval", "no brackets", {"func_name": "validate_placeholders", "N": 3}, 1, 0),
        ("ifeval", "My answer is yes.", {"func_name": "validate_choice", "options": ["yes", "no"]}, 0, 1),
        ("ifeval", "yes", {"func_name": "validate_choice", "options": ["it is yes", "no"]}, 1, 0),
        ("ifeval", "Wow! So!", {"func_name": "verify_sentence_constraint", "N": 2, "quantifier": "at least"}, 0, 1),
        ("ifeval", "A B C D", {"func_name": "validate_frequency_capital_words", "N": 5, "quantifier": "around"}, 0, 1),
    ],
)
def test_what_changed_since(verifier: str, completion: str, gold: object, then: int, now: int) -> None:
    assert find(verifier)(completion, gold, "tulu3-2024").score == then
    assert find(verifier)(completion, gold, "tulu3").score == now


def test_sympy_reads_with_the_installed_antlr(capsys: pytest.CaptureFixture[str]) -> None:
    """sympy's own parse_latex refuses antlr 4.13; the grammar is the same, and nothing is printed about it."""
    assert same_for_sympy(r"\frac{2}{4}", "0.5")
    assert not same_for_sympy("x", "y")
    assert not same_for_sympy(r"\frac{", "1")
    assert capsys.readouterr().out == ""


def test_graded_in_workers_too() -> None:
    problems = [Problem(str(index), (), (), row["ground_truth"], (row["verifier"],)) for index, row in enumerate(ROWS[::20])]
    with Grader(1, mode="tulu3-2024") as grader:
        verdicts = grader.grade([(row["completion"], problem) for row, problem in zip(ROWS[::20], problems, strict=True)])
    assert [verdict.score for verdict in verdicts] == [row["score"] for row in ROWS[::20]]


def test_verifiers_that_came_later_are_refused_and_newer_rows_are_masked() -> None:
    with pytest.raises(RecipeError, match="'code': mode tulu3-2024: open-instruct of December 2024 had no such verifier"):
        check_name("code", "tulu3-2024")
    verdict = find("ifeval")("text", [{"instruction_id": ["punctuation:no_comma"], "kwargs": [None]}], "tulu3-2024")
    assert (verdict.score, verdict.status) == (None, "error")
