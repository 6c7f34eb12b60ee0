# ruff: noqa: E501 (many short cases on a line)
"""Certified equality: what is decided, and that what is not decided is no equality."""

import random
from typing import Any

import pytest

from tulu.verifiers.math.compare import Comparison
from tulu.verifiers.math.read import read
from tulu.verifiers.math.verifier import MATH

CASES = [  # (answer, gold, whether they are equal)
    ("x+1", "1+x", True), ("(x+1)^2", "x^2+2x+1", True), ("(x+1)^2", "x^2+2x+2", False), (r"\frac{x+1}{2}", r"\frac{1}{2}x+\frac{1}{2}", True),
    (r"2\sqrt{3}", r"\sqrt{12}", True), (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}", True),
    (r"\sqrt{2}\cdot 10^{-30}", r"\sqrt{3}\cdot 10^{-30}", False), ("3.1415926", r"\pi", False), ("5x", "5y", False), ("-x^2", "(-x)^2", False),
    ("x^{-1}", r"\frac{1}{x}", True), ("x^{1/2}", r"\sqrt{x}", True), (r"\sqrt{x^2}", "x", False), ("x/2", r"\frac{x}{2}", True),
    ("1/2x", "x", False), ("x^10", "x^{10}", True), (r"2\frac{1}{2}", "2.5", True), ("i", "j", False), ("2+3i", "3i+2", True),
    ("2-3i", "2+3i", False), ("i^2", "-1", True), (r"\sin(x)", "x", False), (r"\sin(x)+1", r"1+\sin(x)", True), (r"\sin 2x", r"\sin(2x)", True),
    (r"\sin 2x", r"x\sin(2)", False), (r"\sin x\cos x", r"\cos(x)\sin(x)", True), (r"\sin^{2} x", r"1-\cos^2(x)", True),
    (r"\sin(x)^2", r"\sin(x^2)", False), (r"40\sin(39x)", r"39\cos(39x)", False), (r"\ln(-x)", r"\ln(x)", False), (r"\exp(9^9)", "1", False),
    ("(1,2)", "(1, 2)", True), ("(2,1)", "(1,2)", False), ("(1,2,3)", "(1,2)", False), ("[1,2)", "[1,2)", True), ("[1,2]", "(1,2)", False),
    (r"(1, \infty)", r"(1,+\infty)", True), (r"(1, \infty)", "(1,2)", False), (r"(-\infty,1)", r"(\infty,1)", False),
    (r"(1, 2\infty)", r"(1,\infty)", False), ("1,2", "2,1", True), (r"\{1,2\}", r"\{2,1\}", True), (r"2\sin x\cos x", r"\sin 2x", True),
    (r"3\sin\theta", r"\sin(\theta)\cdot 3", True), (r"3\sin\theta", r"3\sin\alpha", False), (r"\tan x", r"\frac{\sin x}{\cos x}", True),
    (r"4\arctan 1", r"\pi", True), (r"\ln 8", r"3\ln 2", True), (r"\exp(2)", "e^2", True), (r"\sin(\pi)", "0", False),
    (r"\tan\frac{\pi}{2}", r"2\tan\frac{\pi}{2}", None), (r"\sin(1000000007)", "1", False), (r"\sqrt[3]{16}", r"2\sqrt[3]{2}", True),
    (r"\sqrt[3]{-8}", "-2", True), (r"\{1,2\}", "2,1", True), (r"\{1,2\}", "1,3", False), ("1,2", "1,2,3", False), ("1,1,2", "1,2,2", False),
    ("1,1,2", "1,2", False), ("1,000,2", "2,1000", False), ("(1,2),(3,4)", "(3,4),(1,2)", True), ("(1,2),(3,4)", "(3,4),(2,1)", False),
    ("(1,2)", r"\{1,2\}", False), (r"\{1\}", "1", True), ("y=x+1", "y=1+x", True), ("y=x+1", "y=x+2", False), ("x+y=1", "y+x=1", True),
    ("x+y=1", "y=1-x", True), ("y=xy", "y=x", False), ("1/0", "1", False), ("9^{9^{9^{9}}}", "1", False), ("2^{-2011}", "2^{-2010}", False),
    ("4^{1005}", "2^{2010}", True), (r"\frac{3^{100}-1}{2\cdot3^{100}}", r"\frac12", False), ("e^{-900}", "e^{-800}", False),
    (r"\pi^{-2000}", r"\pi^{-2001}", False), (r"\sqrt{2}+10^{-60}", r"\sqrt2", False), (r"\sqrt{5+2\sqrt6}", r"\sqrt2+\sqrt3", True),
    (r"\tan(\pi/2)", r"\tan(\pi/2)+1", None), (r"e^{900}+\sqrt2-e^{900}", r"\sqrt2", True), (r"e^{900}+\sqrt2-e^{900}", r"\sqrt3", False),
    ("x+y=1", "2x+2y=2", True), ("x=x+1", "x=x+2", None), ("x=x+1", "y=1", False), ("1=1", "2=2", False), ("x^2+4=0", "x^2+121=0", False),
    ("e^x=0", "x^2=-1", False), (r"\frac{1}{\sqrt n}", r"\sqrt{1/n}", True), (r"\ln x^2", r"2\ln x", True), (r"2\ln x", r"\ln x^2", True),
    (r"\ln x", r"\ln|x|", False), (r"\ln|x|", r"\ln x", True), ("(-8)^{1/3}", "-2", True), (r"\sqrt{-4}", "2i", True),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "gold", "same"), CASES)
def test_what_is_equal(answer: str, gold: str, same: bool | None) -> None:
    results = {Comparison(deep=True).same(one, other) for one in read(answer) for other in read(gold)}
    assert (True in results, None in results) == (same is True, same is None)
    assert MATH(rf"\boxed{{{answer}}}", gold).score == (same is True)


@pytest.mark.parametrize("answer", ["(" * 2000, "", "9" * 600, r"\frac{" * 100])
def test_what_is_not_read_equals_nothing(answer: str) -> None:
    assert MATH(rf"\boxed{{{answer}}}", "1").score == 0


def _pairs(seed: int) -> tuple[str, list[str], list[str]]:
    """An expression, others that equal it by their making, and others that do not."""
    sympy = pytest.importorskip("sympy")
    draw, x = random.Random(seed), sympy.Symbol("x")

    def make(depth: int) -> Any:
        kind = draw.random()
        if not depth:
            return draw.choice(
                [x, sympy.Integer(draw.randrange(1, 9)), sympy.pi, sympy.sqrt(2), sympy.Rational(draw.randrange(1, 9), 7)]
            )
        if kind < 0.4:
            return make(depth - 1) + make(depth - 1)
        if kind < 0.7:
            return make(depth - 1) * make(depth - 1)
        if kind < 0.8:
            return make(depth - 1) / (make(depth - 1) ** 2 + 1)
        return draw.choice([sympy.sin, sympy.exp, sympy.atan, lambda e: sympy.sqrt(e**2 + 1)])(make(depth - 1))

    def spell(one: Any) -> str:
        return str(sympy.latex(one, ln_notation=True, inv_trig_style="full"))

    made = make(3)
    while len(spell(made)) > 200:
        made = make(3)
    equal = [spell(form(made)) for form in (sympy.expand, sympy.factor, sympy.together)]
    unequal = [
        spell(made + 1),
        spell(made + sympy.sqrt(2) / 10**30),
        spell(made * sympy.Rational(1001, 1000)),
        spell(2 * made + x**2 + 1),
    ]
    return spell(made), equal, unequal


@pytest.mark.parametrize("seed", range(60))
def test_expressions_of_sympy(seed: int) -> None:
    gold, equal, unequal = _pairs(seed)
    short = [answer for answer in equal if len(answer) < 400]
    assert [MATH(rf"\boxed{{{answer}}}", gold).score for answer in short] == [1] * len(short)
    assert not any(MATH(rf"\boxed{{{answer}}}", gold).score for answer in unequal)
