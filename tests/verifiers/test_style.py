from typing import Any

import pytest

from tulu.grading.grader import Grader
from tulu.types import Problem
from tulu.verifiers.contract import Case, GoldError, grade_safely
from tulu.verifiers.registry import VERIFIERS

LOOP = " ".join(f"word{n}" for n in range(20)) + " "
GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund und geht dann nach Hause."


@pytest.mark.parametrize(
    ("completion", "strict", "tulu3"),
    [
        ("<think>so</think><answer>7</answer>", 1, 1),
        ("so</think>\n<answer>7</answer>\n", 1, 1),
        ("<think>so</think><answer>7</answer> and more", 0, 1),
        ("<think>so</think> well <answer>7</answer>", 0, 0),
        ("<think>so</think><answer></answer>", 0, 1),
        ("<think></think><answer>7</answer>", 0, 1),
        ("<think>a</think><answer>7</answer><answer>8</answer>", 0, 1),
        ("<answer>7</answer>", 0, 0),
        ("", 0, 0),
    ],
)
def test_format(completion: str, strict: float, tulu3: float) -> None:
    assert VERIFIERS["format"](completion, None).score == strict
    assert VERIFIERS["format"](completion, None, "tulu3").score == tulu3


def test_format_by_pattern() -> None:
    assert VERIFIERS["format"]("## A\n## B", {"pattern": r"## A\s+## B"}).score == 1
    assert VERIFIERS["format"]("x ## A\n## B", r"## A\s+## B").score == 0
    with pytest.raises(GoldError):
        VERIFIERS["format"].check("(")


@pytest.mark.parametrize(
    ("gold", "completion", "score"),
    [
        (4, "one two", 1),
        (4, "one two three four", 1),
        (4, "one two three four five six", 0.5),
        (4, "w " * 100, 0),
        ({"min": 4}, "one two", 0.5),
        ({"min": 4, "max": 5}, "one two three four", 1),
        ({"max": 3, "unit": "characters"}, "abc", 1),
        ({"max": 1, "unit": "sentences"}, "One. Two.", 0),
        (4, "<think>" + "w " * 100 + "</think> one", 1),
    ],
)
def test_length(gold: Any, completion: str, score: float) -> None:
    VERIFIERS["length"].check(gold)
    assert VERIFIERS["length"](completion, gold).score == pytest.approx(score)


def test_lengths_in_tokens_need_the_count() -> None:
    for name, tokens, gold, strict, tulu3 in [
        ("max_length", 100, "100", 1, 1),
        ("max_length", 100 + 8192, 100, 0.75, 0.75),
        ("max_length", 100 + 40960, 100, 0, -0.25),
        ("up_to_max_length", 1, 100, 1, 1),
        ("up_to_max_length", 100 + 8192, 100, 0.75, 0.75),
        ("up_to_max_length", 100 + 40960, 100, 0, -0.25),
    ]:
        case = Case("x", gold, row={"completion_tokens": tokens})
        assert grade_safely(VERIFIERS[name].grade("strict"), case).score == strict
        assert grade_safely(VERIFIERS[name].grade("tulu3"), case).score == tulu3
        assert VERIFIERS[name]("x", gold).status == "error"


def test_a_problem_is_told_how_many_tokens_its_completion_took() -> None:
    problem = Problem("x", [], (), 100, ("max_length",), {"source": "here"})
    with Grader(1) as grader:
        told = [grader.grade([("x", problem.with_tokens(count))])[0].score for count in (100, 100 + 32_768 // 2, 200_000)]
        assert told == [1.0, 0.5, 0.0]
        assert grader.grade([("x", problem)])[0].status == "error"
    assert problem.row == {"source": "here"}


def test_repetition() -> None:
    verifier = VERIFIERS["repetition"]
    assert verifier(LOOP * 3, None).score == 1
    assert verifier(LOOP * 4, None).score == 0
    assert verifier("a b a b a b", {"size": 2, "times": 3}).score == 0
    assert verifier("今天天气很好" * 40, None).score == 0
    assert verifier("", None).score == 0
    assert verifier("x" * 100_000, None).score == 0


def test_language() -> None:
    verifier = VERIFIERS["language"]
    assert verifier(GERMAN, "de").score == 1
    assert verifier(GERMAN, "en").score == 0
    assert verifier("<think>" + GERMAN + "</think>", "de").score == 0
    assert verifier("12345 !!!", "de").score == 0
    with pytest.raises(GoldError, match="klingon"):
        verifier.check("klingon")


def test_calmscore_is_language_and_no_repetition() -> None:
    verifier = VERIFIERS["calmscore"]
    assert verifier(GERMAN, "de").score == 1
    assert verifier(GERMAN, {"language": "fr"}).score == 0
    assert verifier(GERMAN * 20, "de").score == 0


@pytest.mark.parametrize(
    ("name", "gold"),
    [
        ("length", None),
        ("length", {"min": 3, "max": 2}),
        ("length", {"max": 3, "unit": "pages"}),
        ("max_length", "many"),
        ("repetition", {"size": 0}),
        ("repetition", 3),
        ("calmscore", {"language": "de", "times": 1}),
    ],
)
def test_unusable_golds(name: str, gold: Any) -> None:
    with pytest.raises(GoldError):
        VERIFIERS[name].check(gold)
