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
    # Golds of text books.
    (r"$y=\frac{1}{2} x-3$", "y = 0.5x - 3"), (r"$(-\infty,-4) \cup(3, \infty)$", r"x<-4 \text{ or } x>3"),
    (r"$\left\{x \mid x>-\frac{1}{2}\right\}$", r"\left(-\frac12,\infty\right)"), ("$x=2, y=3$", "(2,3)"),
    (r"$\frac{3}{4} \mathrm{hr}$", r"\frac{3}{4}\text{ hours}"), (r"$\frac{3}{4} \mathrm{hr}$", r"45\text{ minutes}"),
    (r"$f^{-1}(x)=\frac{x-3}{2}$", r"\frac{x-3}{2}"), (r"$f^{-1}(x)=\frac{x-3}{2}$", r"f^{-1}(x)=\frac{x}{2}-\frac32"), (r"$\$ 23.50$", "23.5"),
    (r"$2 \sqrt{3}+4 i$", r"4i+2\sqrt3"), (r"$\mathrm{x}=4$", "4"), (r"$x=-2 \pm \sqrt{3}$", r"-2+\sqrt3, -2-\sqrt3"),
    (r"$\left[\begin{array}{cc}1 & 2 \\ 3 & 4\end{array}\right]$", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"$\frac{d y}{d x}=\frac{y}{x}$", r"\frac{dy}{dx}=\frac yx"), (r"$\frac{d y}{d x}=\frac{y}{x}$", r"\frac yx"),
    (r"$\mathbf{i}+2 \mathbf{j}$", r"\mathbf{i}+2\mathbf{j}"), (r"$3 \vec{i}-2\vec{j}$", r"-2\vec{j}+3\vec{i}"), (r"$4.5 \times 10^{5}$", "450000"),
    ("$x(x+3)(x-2)$", "x^3+x^2-6x"), ("all real numbers", r"\text{All real numbers}"), ("all real numbers", r"(-\infty,\infty)"),
    ("all real numbers", r"\mathbb{R}"), (r"$y^{\prime}=2x$", "y'=2x"), (r"$y^{\prime}=2x$", "2x"),
    ("$f_{x}=2 x y, f_{y}=x^{2}$", r"f_x=2xy,\ f_y=x^2"), ("$x=c_{1} e^{t}+c_{2} e^{-t}$", "c_1e^t+c_2e^{-t}"),
    (r"$\frac{\partial z}{\partial x}=2x$", "2x"), (r"$\sec ^{2} x$", r"\frac{1}{\cos^2 x}"), (r"$15^{\circ} 30^{\prime}$", r"15^\circ30'"),
    ("$P(x)=x^2$", "x^2"), ("$5: 3$", "5:3"), ("$3 / 5$", "0.6"), (r"$-\frac{1}{x^{2}}+C$", "C-x^{-2}"), (r"$\ln |\sec x|+C$", r"-\ln|\cos x|+C"),
    ("$I=10 e^{-0.5 t}$", "10e^{-t/2}"), (r"$\log _{2} 8=3$", r"\log_2 8=3"), (r"$x \approx 2.32$", "2.32"), (r"$\approx 3.14$", "3.14"),
    (r"$20 \mathrm{ft}$", r"20\text{ feet}"), (r"$20 \mathrm{ft}^2$", r"20\text{ square feet}"),
    (r"$9.8 \mathrm{~m} / \mathrm{s}^{2}$", r"9.8\text{ m/s}^2"), ("$x>3$ or $x<-3$", r"(-\infty,-3)\cup(3,\infty)"),
    (r"$x \geq-2$ and $x \neq 3$", r"[-2,3)\cup(3,\infty)"), (r"$-3<x \leqslant 4$", "(-3,4]"), (r"$\frac{1}{3} \pi r^{2} h$", r"\frac{\pi r^2h}{3}"),
    (r"$5 \cdot 10^{-3}$", "0.005"), (r"$\left(\frac{1}{2}, \frac{\sqrt{3}}{2}\right)$", r"(0.5, \sqrt3/2)"), (r"$\sqrt[4]{x^3}$", "x^{3/4}"),
    ("$a b c$", "abc"), ("$x^{3} y^{2}$", "y^2x^3"), (r"$\frac{x+3}{x-2}, x \neq 2$", r"\frac{x+3}{x-2}"),
    (r"$\{(x,y): x+y=1\}$", r"\{(x,y): x+y=1\}"), (r"\left\{\frac{1}{2},3\right\}", r"\{3,0.5\}"),
    (r"$\frac{\pi}{6}, \frac{5 \pi}{6}$", r"\frac{5\pi}6, \frac\pi6"), (r"$30^{\circ}, 150^{\circ}$", r"30^\circ, 150^\circ"),
    (r"$x=\frac{\pi}{4}$", r"45^\circ"), (r"$\frac{3}{5}$", r"\dfrac{3}{5}"), ("$(2,3),(4,5)$", "(4,5),(2,3)"), ("$p=2, q=-1$", "q=-1, p=2"),
    ("$p=2, q=-1$", "(2,-1)"), (r"$\text{\$}5$", "5"), (r"$5\text{th}$", "5"), (r"$5^{\text{th}}$", "5"), (r"$2^{\mathrm{nd}}$", "2"),
    (r"\text{increasing}", "increasing"), (r"\text{Neither}", "neither"), (r"$y=e^{x}(c_1\cos x+c_2\sin x)$", r"e^x(c_2\sin x+c_1\cos x)"),
    ("$n=2k+1$", "2k+1"), (r"$\overline{AB}$", r"\overline{AB}"), ("$AB=5$", "5"), (r"$12\frac{1}{2}\%$", r"12.5\%"), (r"$12\frac{1}{2}\%$", "0.125"),
    ("1/2", "0.50"), ("$10^{-3}$", "0.001"), ("$2:3:4$", "2:3:4"), (r"$\frac{2}{3}$ or $\frac32$", r"\frac32,\frac23"),
    (r"$\frac{x^{2}}{9}+\frac{y^{2}}{4}=1$", "4x^2+9y^2=36"), ("$(x-3)^{2}+(y+1)^{2}=16$", "x^2+y^2-6x+2y-6=0"),
    ("$3 x-4 y=12$", r"y=\frac{3}{4}x-3"), (r"$x+y \leq 5$", r"5\ge x+y"), (r"$\sqrt{x}, x\ge0$", r"\sqrt{x}"),
    (r"$1.2 \times 10^{6} \mathrm{~J}$", r"1.2\times10^6"), (r"$0.25 \mathrm{~mol} / \mathrm{L}$", "0.25"),
    (r"$6.02\times10^{23}\text{ mol}^{-1}$", r"6.02\times10^{23}"), (r"$-40^{\circ} \mathrm{F}$", "-40"), (r"$37^\circ\mathrm{C}$", r"37^\circ C"),
    (r"$5 \Omega$", "5"), (r"$5 \mathrm{~k} \Omega$", "5"), (r"$25 \mu \mathrm{m}$", "25"), ("€5", "5"), ("¥500", "500"), ("₹500", "500"),
    ("500", "500 USD"), ("500", "USD 500"), ("500", "500 yuan"), ("5", "5 kg"), ("5", "5 Stunden"), ("5", r"5\text{ mi}"), ("5", "5 cubic meters"),
    ("5", "5 m³"), ("5", r"5\text{ L}"), ("5", r"5\,\text{kN/m}^2"), ("5", r"5\ \text{units}"), ("5", r"5\text{ sq. ft.}"), ("5", r"5\text{ in}^2"),
    ("5", r"5\text{ in.}"), ("5", r"5\text{ people}"), ("5", r"\text{5 students}"), ("5", r"5 \text{ (meters)}"),
    ("5", r"5\;\text{meters per second}"), ("5", r"5\text{ meters/second}"), ("5", r"5\text{ 米}"), ("5", "5 km/h"), ("50000", "5万"),
    ("-5", r"\text{minus }5"), ("-5", r"\text{negative }5"), ("0.05", r"5\text{ hundredths}"), (r"1:30\text{ PM}", "1:30 p.m."), ("10:05", "10{:}05"),
    ("f(x+1)", "f(1+x)"), (r"\sin(x+y)", r"\sin x\cos y+\cos x\sin y"), (r"\sin^2 20^\circ+\cos^2 70^\circ", r"2\sin^2 20^\circ"),
    (r"\arcsin\frac12", r"30^\circ"), (r"\log 100", r"\log_{10}100"), (r"\log_2 x", r"\frac{\log x}{\log 2}"), (r"\lg x", r"\log_{10}x"),
    (r"x\ln x-x+C", r"x(\ln x-1)+C_1"), (r"e^{2\pi i/3}", r"-\frac12+\frac{\sqrt3}{2}i"), (r"2e^{i\theta}", r"2(\cos\theta+i\sin\theta)"),
    ("-1", "i^2"), (r"\frac{1}{i}", "-i"), ("|3+4i|", r"\sqrt{25}"),
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
    ("$5: 3$", "3:5"), (r"$9.8 \mathrm{~m} / \mathrm{s}^{2}$", r"9.8\text{ m/s}"), (r"$x+y \leq 5$", "x+y<5"), (r"$x+y \leq 5$", r"x+y\ge5"),
    (r"$37^\circ\mathrm{C}$", r"37^\circ F"), ("5", r"5\text{ tens}"), ("5", r"5\text{ pi}"), ("5", r"5\text{ hundred}"), ("5", r"5\text{ half}"),
    ("5", r"5\text{ cubed}"), ("5", r"5\text{ factorial}"), ("5", r"5\text{ minus one}"), ("5", r"5\text{ over two}"),
    ("5", r"5\text{ divided by 3}"), ("5", r"5\text{ double}"), ("5", r"5\mathrm{x}"), ("5", r"5\mathrm{B}"), ("5", r"5\mathrm{C}"),
    ("5", r"5\mathrm{k}"), ("5", r"5\text{x}"), ("5", "5万"), ("5", r"5\text{ тысяч}"), ("5", r"\text{minus }5"), ("23", "2 3"), ("23", r"2\;3"),
    ("23", "2~3"), ("12", r"1\quad2"), ("1234", "12 34"), (r"\frac12", r"\frac{1}{2}\cdot\frac{2}{2}"), ("2", r"1\to2"), ("2", r"1\approx2"),
    ("2", r"1\sim 2"), ("2", r"1,\ldots,2"), ("5", "5=5"), ("5", "4<5"), ("5", r"x\ne5"), ("5", "-5<x<5"), ("5", r"5\text{ if }x>0"),
    ("5", r"\{5,\ldots\}"), ("5", "[5,5.1]"), ("5", "5?"), ("3:1", "3"), ("12:30", "12"), ("12:30", "0.4"), (r"1:30\text{ PM}", "2:30 p.m."),
    ("f(2)", "2f"), ("g(3)", "3g"), ("y(0)", "0"), ("f(x+1)", "f(x)+f(1)"), ("x^2-1=0", r"\{1,-1\}"), (r"\{1,-1\}", "x^2-1=0"),
    ("x=1,y=2", "x=1,z=2"), ("(1,2)", "z=1,w=2,v=3"), (r"\sin x", r"\sin"), (r"\sin(x)\cos(x)", r"\sin(2x)"), (r"\tan 45", "1"),
    (r"\sin 30", r"\frac12"), (r"\log_2 x", r"\log_3 x"), (r"x\ln x-x+C", r"x\ln x+C"), ("x^2+C", "x^2"), ("x^2", "x^2+C"),
    (r"e^{2\pi i/3}", r"-\frac12-\frac{\sqrt3}{2}i"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), SAME)
def test_the_same_in_other_words(gold: str, answer: str) -> None:
    prove(gold)
    assert MATH(rf"So \boxed{{{answer}}}.", gold).score == 1


@pytest.mark.parametrize(("gold", "answer"), OTHER)
def test_something_else(gold: str, answer: str) -> None:
    prove(gold)
    assert MATH(rf"So \boxed{{{answer}}}.", gold).score == 0
