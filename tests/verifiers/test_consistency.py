# ruff: noqa: E501 (many short answers on a line)
"""One answer has one verdict, however it is spelled: spaces, dollars, boxes, emphasis, full stops, the invisible, fences."""

from collections.abc import Iterator

import pytest

from tests.verifiers.families import FAMILIES, PROGRAMS, problem
from tulu.errors import RecipeError
from tulu.grading.grader import Grader
from tulu.types import Problem
from tulu.verifiers.attacks.respelling import FORMS, respelled_completions, respellings
from tulu.verifiers.code import sandbox

ANSWERS: dict[str, list[tuple[str, str, str]]] = {
    "gsm8k": [("18", "18", "17"), ("-3.5", "-3.5", "3.5"), ("1200", "1,200", "1,201")],
    "math": [("42", "42", "43"), ("\\frac{3}{4}", "\\frac{3}{4}", "\\frac{4}{3}"), ("(1,2)", "(1, 2)", "(2, 1)"), ("x^2+1", "x^2+1", "x^2-1")],
    "multiple_choice": [("B", "B", "C")],
}  # fmt: skip
"""(gold, an answer that is right, one that is wrong) of the verifiers that are not asked for a city."""
COMPLETIONS = {**FAMILIES, **PROGRAMS}


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(2, deadline=30.0) as shared:
        yield shared


@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_short_answer_has_one_verdict(name: str, grader: Grader) -> None:
    wrong: dict[str, float | None] = {}
    for gold, right, other in ANSWERS.get(name, ANSWERS["math"] if name == "strict_math" else [("Paris", "Paris", "Rome")]):
        for answer, score in ((right, 1.0), (other, 0.0)):
            texts = list(respellings(name, answer))
            row = Problem("row", (), (), gold, (name,))
            verdicts = grader.grade([(text, row) for text in texts])
            # The wrong answer keeps the credit for its form.
            floor = 0.1 if name == "re_search_f1" and not score else score
            wrong |= {
                ascii(text): verdict.score
                for text, verdict in zip(texts, verdicts, strict=True)
                if verdict.score not in (score, floor)
            }
    assert wrong == {}


@pytest.mark.parametrize("name", sorted(set(COMPLETIONS) - set(FORMS)))
def test_a_completion_has_one_verdict(name: str, grader: Grader) -> None:
    if name in PROGRAMS:
        try:
            sandbox.require()
        except RecipeError as fault:
            pytest.skip(f"no sandbox here: {fault}")
    if name == "format":
        pytest.skip("format reads the tags of thinking themselves")
    for completion in COMPLETIONS[name][1:]:
        texts = list(respelled_completions(name, completion))
        verdicts = grader.grade([(text, problem(name)) for text in texts])
        assert {ascii(text): verdict.score for text, verdict in zip(texts, verdicts, strict=True)} == dict.fromkeys(
            map(ascii, texts), verdicts[0].score
        )


def test_there_are_forty_spellings() -> None:
    assert len(set(respellings("puzzle", "Paris"))) >= 40
