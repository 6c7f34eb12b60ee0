import pytest

from tulu.verifiers.math.upstream import normalise_final, strip_string
from tulu.verifiers.math.verifier import MATH, STRICT_MATH


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        (r"\frac 1 2", r"\frac{1}{2}"),
        (r"\left(\frac{1}{2}\right)", r"(\frac{1}{2})"),
        (r"50\%", "50"),
        ("0.5", r"\frac{1}{2}"),
        (r"\tfrac{3}{4}", r"\frac{3}{4}"),
        (r"\sqrt2", r"\sqrt{2}"),
        ("1 + 2", "1+2"),
        ("3/4", r"\frac{3}{4}"),
        ("x=5", "5"),
        ("abc=5", "abc=5"),
        (".5", r"\frac{1}{2}"),
        (r"5\text{ cm}", "5"),
    ],
)
def test_strip_string(text: str, stripped: str) -> None:
    assert strip_string(text) == stripped


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("x = 1,000 dollars", "1000"),
        ("$\\text{Evelyn}$", "Evelyn"),
        ("the \\frac12", "the\\frac{1}{2}"),
        ("a $5$ b", "5"),
        ("\\sqrt3", "\\sqrt{3}"),
        ("x $1$\ny $2$ z $3$", "1\n2"),
    ],
)
def test_normalise_final(text: str, normal: str) -> None:
    assert normalise_final(text) == normal


@pytest.mark.parametrize(
    ("completion", "gold", "score"),
    [
        (r"\boxed{\frac{1}{2}}", "0.5", 1),
        (r"\boxed{\frac{1}{2}}", "1/2", 1),
        (r"\boxed{50\%}", "50", 1),
        (r"\boxed{x=5}", "5", 1),
        (r"\boxed 7$", "7", 1),
        ("Final Answer: The final answer is $5$. I hope it is correct.", "5", 1),
        ("the result is $10$ dollars", "10", 1),
        # What strict does otherwise: two candidates, thinking graded, empty equals empty.
        (r"\boxed{11} Final Answer: The final answer is $12$. I hope it is correct.", "12", 1),
        (r"\boxed{11} Final Answer: The final answer is $12$. I hope it is correct.", "11", 1),
        (r"<think>\boxed{12}</think> not sure", "12", 1),
        (r"\boxed{}", "", 1),
        # In training open-instruct compares strings only, so none of these is right there.
        (r"\boxed{1,000}", "1000", 0),
        (r"\boxed{2\sqrt{3}}", r"\sqrt{12}", 0),
        (r"\boxed{x+1}", "1+x", 0),
        (r"\boxed{3.0}", "3", 0),
        (r"\boxed{10^{3}}", "1000", 0),
        (r"\boxed{\frac{2}{4}}", r"\frac12", 0),
        (r"\boxed{\text{(B)}}", "(B)", 0),
        (r"\boxed{\{1,2\}}", r"\{2,1\}", 0),
        ("The answer is 7", "7", 0),
        ("7", "7", 1),
    ],
)
def test_tulu3_is_string_equality(completion: str, gold: str, score: float) -> None:
    assert MATH(completion, gold, "tulu3").score == score


def test_strict_math_reads_minervas_sentence_only() -> None:
    assert STRICT_MATH(r"\boxed{5}", "5", "tulu3").score == 1
    assert STRICT_MATH(r"so \boxed{5}", "5", "tulu3").score == 0
    assert STRICT_MATH("x. Final Answer: The final answer is $5$. I hope it is correct.", "5", "tulu3").score == 1
