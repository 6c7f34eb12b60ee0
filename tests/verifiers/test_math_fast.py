import pytest

from tulu.verifiers.math_fast import equal


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("x+1", "1+x", True),
        ("(x+1)^2", "x^2+2x+1", True),
        ("(x+1)^2", "x^2+2x+2", False),
        (r"\frac{x+1}{2}", r"\frac{1}{2}x+\frac{1}{2}", True),
        (r"2\sqrt{3}", r"\sqrt{12}", True),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}", True),
        (r"\sqrt{2}\cdot 10^{-30}", r"\sqrt{3}\cdot 10^{-30}", False),
        ("3.1415926", r"\pi", False),
        ("5x", "5y", False),
        ("-x^2", "(-x)^2", False),
        ("x^{-1}", r"\frac{1}{x}", True),
        ("x^{1/2}", r"\sqrt{x}", None),
        (r"\sqrt{x^2}", "x", False),
        ("x/2", r"\frac{x}{2}", True),
        ("1/2x", "x", None),
        ("x^10", "x^{10}", None),
        (r"2\frac{1}{2}", "2.5", None),
        ("i", "j", None),
        (r"\sin(x)", "x", None),
        ("(1,2)", "(1, 2)", True),
        ("(2,1)", "(1,2)", False),
        ("(1,2,3)", "(1,2)", False),
        ("[1,2)", "[1,2)", True),
        ("[1,2]", "(1,2)", None),
        ("1,2", "2,1", None),
        (r"\{1,2\}", r"\{2,1\}", None),
        ("1/0", "1", None),
        ("(" * 2000, "1", None),
        ("9^{9^{9^{9}}}", "1", None),
        ("", "1", None),
    ],
)
def test_what_it_tells_and_what_it_leaves(answer: str, gold: str, same: bool | None) -> None:
    assert equal(answer, gold) is same
