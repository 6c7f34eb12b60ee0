# ruff: noqa: E501 (many short cases on a line)
"""Answers that mean the gold in another spelling, and answers that only look like it."""

import pytest

from tulu.verifiers.math.verifier import MATH

SAME = [
    # Decimals, fractions, separators, percentages.
    (".5", "0.5"), ("0.5", ".5"), ("-.75", r"-\frac34"), ("1 / 3", r"\frac{1}{3}"), ("(3/4)", r"\frac34"), (r"{\frac{3}{4}}", "0.75"),
    (r"5 \frac{1}{2}", "5.5"), (r"\frac{1.5}{2}", "0.75"), ("{3 \\over 4}", "0.75"), (r"12\,345", "12345"), ("12{,}345", "12345"),
    ("1,234,567.89", "1234567.89"), ("100 000", "100000"), (r"5\%", "0.05"), ("5 percent", r"5\%"), (r"0.\overline3", r"\frac13"),
    (r"0.\dot{3}", r"\frac13"), (r"32\times10^3", r"3.2\times10^4"), ("3.2E4", "32000"),
    # Units, currencies, scales.
    (r"\pounds 5", "5"), ("€5", "5"), ("5€", "5"), (r"5\,\mathrm{m/s^2}", "5"), (r"5\text{ m}^{2}", "5"), ("72^o", "72"), (r"25^\circ C", "25"),
    (r"25^\circ\text{C}", "25"), ("5 apples", "5"), (r"\text{5 red apples}", "5"), (r"5\text{ million}", "5000000"), ("2.5 thousand", "2500"),
    # Symbols beyond ASCII.
    ("2√3", r"\sqrt{12}"), ("√12", r"2\sqrt3"), ("x²", "x^2"), ("x^2", "x²"), ("5²", "25"), ("½", "0.5"), ("1½", "1.5"), ("1⁄2", r"\frac12"),
    ("(−∞, 3]", r"(-\infty,3]"), ("±3", r"\pm3"), ("4π", r"4\pi"),
    # Dress.
    (r"\textcolor{blue}{5}", "5"), (r"\color{red}{5}", "5"), (r"\underline{5}", "5"), (r"{\bf 5}", "5"), (r"\Large 5", "5"), (r"\phantom{-}5", "5"),
    (r"\hspace{1cm}5", "5"), (r"\ensuremath{5}", "5"), (r"\mathsf{A}", "A"), ("**5**", "5"),
    # Intervals, vectors, lists.
    (r"x \le 5", r"(-\infty,5]"), (r"3\le x\le 5", "[3,5]"), ("3<x<5", "(3,5)"), (r"x>\frac12", r"(\frac12,\infty)"), (r"\langle 1,2\rangle", "(1,2)"),
    ("(x,y)=(1,2)", "(1,2)"), (r"x=1\text{ or }x=2", "1,2"), (r"\{(1,2),(3,4)\}", "(3,4),(1,2)"),
    (r"\left[\begin{array}{ll}1&2\\3&4\end{array}\right]", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    # Options.
    (r"\textbf{(A) }5", "A"), (r"\textbf{(A)}\ 5", "A"), (r"\text{Option A}", "A"), ("choice A", r"\text{(A)}"),
]  # fmt: skip
OTHER = [
    (".5", "5"), ("5", ".5"), ("-.5", "-5"), ("5", "-.5"), ("1.0", "10"), ("05.5", "5"),
    (r"5\text{ or something}", "5"), (r"5\text{ and a half}", "5"), ("5 or six", "5"), ("5 dozen", "5"), ("2 theta", "2"), (r"5\text{ million}", "5"),
    # The problem restated, where a number is asked for.
    ("(2)(2.5)", "5"), ("2(2.5)", "5"), (r"\log_{2}32", "5"), (r"\ln e^5", "5"), (r"\frac{d}{dx}5x", "5"), (r"\det\begin{pmatrix}5\end{pmatrix}", "5"),
    (r"12\bmod 7", "5"), (r"\text{lcm}(1,5)", "5"), ("|5|+0", "5"), (r"\cos\frac{\pi}{3}", r"\frac12"), (r"\lfloor 5.3\rfloor", "5"),
    # A fault of sympy's is the answer's fault where the gold is sound.
    (r"5\mod 7", "x"), (r"\{x\mid x>5\}", "5"),
    (r"x+1\le 5", r"(-\infty,4]"), (r"3<x\le5", "(3,5)"), ("x<5", r"(5,\infty)"), ("3<x<y", "(3,5)"),
    ("(A)(B)", "B"), ("(A) or B", "A"), ("(B) 5", "A"), (r"\text{Option A or B}", "A"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "gold"), SAME)
def test_another_spelling_is_right(answer: str, gold: str) -> None:
    MATH.check(gold)
    assert MATH(rf"\boxed{{{answer}}}", gold).score == 1


@pytest.mark.parametrize(("answer", "gold"), OTHER)
def test_another_meaning_is_wrong(answer: str, gold: str) -> None:
    MATH.check(gold)
    assert MATH(rf"\boxed{{{answer}}}", gold).score == 0
