# ruff: noqa: E501 (many short cases on a line)
"""What an answer says, by type: pairs of an answer and a gold that mean the same, and pairs that do not.

Every gold and every right answer must also be proven as a gold.
"""

import pytest

from tulu.verifiers.math.verifier import MATH, prove

SAME = [  # (gold, answer)
    (r"2\mathrm{~km}", r"2"), (r"81 \mathrm{~km} / \mathrm{hr}", r"81"), (r"81 \mathrm{~km} / \mathrm{hr}", r"81\text{ km/h}"),
    (r"5\text{ km}", r"5000\text{ m}"), (r"60", r"5\text{ dozen}"), (r"5000000", r"5\text{ million}"), (r"5000000", r"\$5 million"),
    (r"\text{4:30 p.m.}", r"4:30\text{ PM}"), (r"\text{4:30 p.m.}", r"4:30"), (r"x\leqslant 5", r"(-\infty,5]"), (r"x\le5", r"x\leqslant5"),
    (r"\{x\mid x>5\}", r"(5,\infty)"), (r"\{x : x \ge 5\}", r"x\ge 5"), (r"\{x \in \mathbb{R} \mid x>5\}", r"x>5"), (r"\{x|x\neq 2\}", r"x\ne 2"),
    (r"(-\infty,2)\cup(2,\infty)", r"x\neq2"), (r"\mathbb{R}\setminus\{2\}", r"(-\infty, 2) \cup (2, \infty)"),
    (r"(-\infty,-1)\cup(1,\infty)", r"x<-1 \text{ or } x>1"), (r"(-\infty,-1)\cup(1,\infty)", r"(1,\infty)\cup(-\infty,-1)"),
    (r"\pm 3", r"x=3\text{ or }x=-3"), (r"\pm 3", r"3,-3"), (r"1\pm\sqrt2", r"1+\sqrt2, 1-\sqrt2"),
    (r"\frac{-1\pm\sqrt5}{2}", r"\left\{\frac{-1+\sqrt5}{2},\frac{-1-\sqrt5}{2}\right\}"), (r"x_1=1, x_2=2", r"1,2"), (r"x_1=1, x_2=2", r"2,1"),
    (r"a_{n}=2n+1", r"2n+1"), (r"a_n = 2n+1", r"a_{n} = 1+2n"), (r"x_{1}", r"x_1"), (r"S_{10}=55", r"55"), (r"y=2x+1", r"2x-y+1=0"),
    (r"2x-y+1=0", r"y=2x+1"), (r"2x-y+1=0", r"4x-2y+2=0"), (r"x^2+y^2=1", r"2x^2+2y^2=2"), (r"(x-1)^2+y^2=4", r"x^2-2x+y^2=3"), (r"5:1", r"10:2"),
    (r"1:2:3", r"2:4:6"), (r"3 cats", r"3"), (r"3 cats", r"3\text{ cats}"), (r"3", r"3 \text{ cats}"), (r"50\%", r"50"), (r"50\%", r"0.5"),
    (r"50\%", r"50 percent"), (r"90^\circ", r"90"), (r"90^\circ", r"90\text{ degrees}"), (r"90^\circ", r"\frac{\pi}{2}"),
    (r"\cos 20^\circ", r"\sin 70^\circ"), (r"\sin\frac{\pi}{6}", r"\sin 30^\circ"), (r"36\pi\text{ cm}^3", r"36\pi\text{ cubic centimeters}"),
    (r"I(0)e^{-t/RC}", r"I(0) e^{-\frac{t}{RC}}"), (r"I(0)e^{-t/RC}", r"e^{-t/(RC)}I(0)"), (r"x\equiv 3\pmod 7", r"x\equiv 10 \pmod{7}"),
    (r"2i", r"2\mathrm{i}"), (r"5", r"x=2+3=5"), (r"5", r"2+3=5"), (r"(2,500)", r"(2, 500)"), (r"2500", r"2,500"), (r"\{1,2\}", r"\{2,1\}"),
    (r"\{1,2\}", r"1,2"), (r"(1,2)", r"x=1,y=2"), (r"(1,2)", r"y=2,x=1"), (r"x=1,y=2", r"(x,y)=(1,2)"), (r"f(x)=x^2", r"x^2"),
    (r"f(x)=x^2", r"f(t)=t^2"), (r"f(x)=x^2", r"y=x^2"), (r"\frac{1}{2}x", r"x/2"), (r"x/2", r"1/2x"), (r"2^{2010}", r"4^{1005}"),
    (r"\emptyset", r"\{\}"), (r"\emptyset", r"\varnothing"), (r"\infty", r"+\infty"), (r"\text{no solution}", r"\text{No solution}"),
    (r"\text{Monday}", r"Monday"), (r"\begin{pmatrix}1\\2\end{pmatrix}", r"(1,2)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"), (r"x^2+2x+1", r"(x+1)^2"), (r"\frac{x^2-1}{x-1}", r"x+1"),
    (r"|x|", r"\sqrt{x^2}"), (r"n!", r"n(n-1)!"), (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"), (r"(-1)^n", r"(-1)^{n+2}"), (r"2^n", r"2\cdot 2^{n-1}"),
    (r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}"), (r"\sqrt[3]{16}", r"2\sqrt[3]{2}"), (r"\log_2 3", r"\frac{\ln 3}{\ln 2}"), (r"\ln 2", r"\log 2"),
    (r"e^x\sin x+C", r"e^x \sin x + K"), (r"\frac12\sin^2x+C", r"-\frac12\cos^2 x+C"), (r"\tan^{-1}x", r"\arctan x"),
    (r"\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", r"\frac{\pi}{4}+k\pi"), (r"x=\frac{\pi}{4}+k\pi,\ k\in\mathbb{Z}", r"x=\frac{\pi}{4}+\pi k"),
    (r"\text{(B)}", r"B"), (r"B", r"\text{B}"), (r"B", r"(B) 12"), (r"12", r"(A) 12"), (r"12", r"A. 12"), (r"0.\overline{36}", r"\frac{4}{11}"),
    (r"2\frac{3}{4}", r"2.75"), (r"2\frac{3}{4}", r"\frac{11}{4}"), (r"1.5\times10^{-3}", r"0.0015"), (r"1.5\times10^{-3}\text{ m}", r"0.0015"),
    (r"12\text{ m}^2", r"12 m²"), (r"12\text{ m}^2", r"12\text{ square meters}"), (r"\$12.50", r"12.5"), (r"\$12.50", r"12.50\text{ dollars}"),
    (r"5", r"\text{five}"), (r"\text{The answer is } 5", r"5"), (r"The set is $\{1,2\}$.", r"\{1,2\}"), (r"There are $12$ ways to do it", r"12"),
    (r"$x=3$ and $y=4$", r"(3,4)"), (r"\frac\pi4", r"45^\circ"), (r"\frac ab", r"a/b"), (r"\sqrt{3}+\sqrt{2}", r"\sqrt{5+2\sqrt{6}}"),
    (r"1<x\le 2<3", r"1<x\le2<3"), (r"a<b<c", r"a<b<c"), (r"\begin{cases}x+y=1\\x-y=3\end{cases}", r"x+y=1, x-y=3"), (r"x = 1", r"1 = x"),
    (r"[1,2]", r"1\le x\le2"), (r"]1,2[", r"(1,2)"), (r"x\in(1,2)", r"(1,2)"), (r"30^\circ C", r"30"), (r"5.00", r"5"),
    (r"-\frac{3}{4}", r"\frac{-3}{4}"), (r"\frac{3}{-4}", r"-0.75"), (r"1 + 2i", r"2i+1"), (r"e^{i\pi/3}", r"\frac12+\frac{\sqrt3}{2}i"),
    (r"3\cdot 2^{n-1}", r"\frac32 2^n"), (r"1/(2x)", r"\frac1{2x}"), (r"A=\pi r^2", r"\pi r^2"), (r"2\times 2", r"2\times 2"),
    (r"\text{East}", r"east"), (r"12_3", r"12_{3}"), (r"5\frac12\text{ hours}", r"5.5"), (r"5\text{ hours}", r"300\text{ minutes}"),
    (r"(3, \frac\pi2)", r"\left(3,\frac{\pi}{2}\right)"), (r"\text{Yes}", r"yes"), (r"\frac{2}{3}\text{ of the cake}", r"\frac23"),
    (r"\angle ABC = 30^\circ", r"30"), (r"\triangle ABC", r"\triangle ABC"), (r"\overrightarrow{AB}", r"\vec{AB}"),
    (r"\int_0^1 f(x)\,dx", r"\int_0^1 f(x) dx"), (r"1, 2, \ldots, n", r"1,2,\dots,n"), (r"x^{2}+5 x-6", r"x^2 + 5x - 6"), (r"t = 2\text{ s}", r"2"),
    (r"v=5\,\mathrm{m/s}", r"5"), (r"5\,\frac{\mathrm{m}}{\mathrm{s}^2}", r"5 m/s^2"),
]  # fmt: skip
OTHER = [
    (r"81 \mathrm{~km} / \mathrm{hr}", r"81\text{ m/s}"), (r"5\text{ km}", r"5\text{ m}"), (r"5", r"5\text{ dozen}"), (r"5", r"5\text{ score}"),
    (r"\text{4:30 p.m.}", r"4:30\text{ AM}"), (r"(-\infty,-1)\cup(1,\infty)", r"(-1,1)"), (r"(-\infty,-1)\cup(1,\infty)", r"x<-1 \text{ and } x>1"),
    (r"\pm 3", r"3"), (r"3", r"\pm 3"), (r"x_1", r"x_2"), (r"x_1", r"x"), (r"2x-y+1=0", r"0=0"), (r"2x-y+1=0", r"x=x"), (r"2x-y+1=0", r"0=1"),
    (r"x^2+y^2=1", r"x^2+y^2=2"), (r"5:1", r"1:5"), (r"5", r"5:1"), (r"3 cats", r"3 dogs"), (r"3 cats", r"3 tacs"), (r"90", r"\frac\pi2"),
    (r"\cos 20", r"\sin 70^\circ"), (r"\frac12", r"\sin 30^\circ"), (r"36\pi\text{ cm}^3", r"36\pi\text{ cm}^2"), (r"I(0)e^{-t/RC}", r"I(0)"),
    (r"2", r"1\equiv 2"), (r"x\equiv 3\pmod 7", r"x\equiv 3 \pmod{8}"), (r"x\equiv 3\pmod 7", r"3"), (r"2", r"2\mathrm{i}"), (r"3", r"x=1=2=3"),
    (r"5", r"2+3=6"), (r"5", r"5=6"), (r"35", r"3\quad 5"), (r"2500", r"(2, 500)"), (r"2500", r"(2,500)"), (r"\{1,2\}", r"(1,2)"),
    (r"(1,2)", r"\{1,2\}"), (r"(1,2)", r"y=1,x=2"), (r"(1,2)", r"(2,1)"), (r"x=1,y=2", r"x=2,y=1"), (r"f(x)=x^2", r"g(x)=x^2"),
    (r"2^{-2010}", r"2^{-2011}"), (r"\frac12", r"\frac{3^{100}-1}{2\cdot3^{100}}"), (r"\emptyset", r"0"), (r"0", r"\emptyset"),
    (r"\emptyset", r"\{0\}"), (r"\infty", r"2\infty"), (r"\infty", r"-\infty"), (r"\infty", r"\frac10"), (r"\text{Monday}", r"\text{Tuesday}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"), (r"x", r"\sqrt{x^2}"), (r"(-1)^n", r"(-1)^{n+1}"),
    (r"\frac12\sin^2x+C", r"\frac12\cos^2 x+C"), (r"B", r"(A) 12"), (r"\$12.50", r"12.50\text{ cents}"), (r"5", r"5\text{ or so}"),
    (r"5", r"\text{at least }5"), (r"5", r"\text{not }5"), (r"5", r"5\text{ or }6"), (r"5", r"\{5,6\}"), (r"5", r"5+x"), (r"5", r"\ge5"),
    (r"5", r"\text{about }5"), (r"5", r"4.999999999999999999999999"), (r"5", r"5.0000000000000000000000000000000000000001"),
    (r"\sqrt{3}+\sqrt{2}", r"\sqrt{5+2\sqrt{6}}+10^{-40}"), (r"a<b<c", r"a<c<b"), (r"1+2i", r"1-2i"), (r"\int_0^1 f(x)\,dx", r"\int_0^2 f(x) dx"),
    (r"6", r"\sum_{k=1}^3 k"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), SAME)
def test_the_same_in_other_words(gold: str, answer: str) -> None:
    prove(gold)
    assert MATH(rf"So \boxed{{{answer}}}.", gold).score == 1


@pytest.mark.parametrize(("gold", "answer"), OTHER)
def test_something_else(gold: str, answer: str) -> None:
    prove(gold)
    assert MATH(rf"So \boxed{{{answer}}}.", gold).score == 0
