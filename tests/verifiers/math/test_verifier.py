from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tulu.verifiers.contract import UNDECIDED, Case, GoldError
from tulu.verifiers.math.verifier import MATH, prove, quick

MINERVA = "Final Answer: The final answer is {}. I hope it is correct."
CASES: list[tuple[str, str, float]] = [
    (r"\boxed{\frac{1}{2}}", "0.5", 1),
    (r"\boxed{\frac{1}{2}}", "1/2", 1),
    (r"\boxed{\dfrac{3}{4}}", r"\frac{3}{4}", 1),
    (r"\boxed{(1,2)}", "(1, 2)", 1),
    (r"\boxed{90^\circ}", "90", 1),
    (r"\boxed{50\%}", "50", 1),
    (r"\boxed{50\%}", "0.5", 1),
    (r"\boxed{x=5}", "5", 1),
    (r"\boxed{\$12}", "12", 1),
    (r"\boxed{\boxed{5}}", "5", 1),
    (r"\boxed 7$", "7", 1),
    (MINERVA.format("$5$"), "5", 1),
    ("the result is $10$ dollars", "10", 1),
    (r"first \boxed{3} then \boxed{4}", "3", 0),
    (r"\boxed{", "5", 0),
    ("", "5", 0),
    (r"\boxed{0.333}", r"\frac{1}{3}", 0),
    # Lost upstream, where the symbolic check never runs.
    (r"\boxed{1,000}", "1000", 1),
    (r"\boxed{2\sqrt{3}}", r"\sqrt{12}", 1),
    (r"\boxed{x+1}", "1+x", 1),
    (r"\boxed{3.0}", "3", 1),
    (r"\boxed{10^{3}}", "1000", 1),
    (r"\boxed{\frac{2}{4}}", r"\frac12", 1),
    (r"\boxed{\text{(B)}}", "(B)", 1),
    (r"\boxed{\{1,2\}}", r"\{2,1\}", 1),
    ("The answer is 7", "7", 1),
    # The reward-hack table.
    (r"\boxed{11} \boxed{12}", "12", 1),
    (r"\boxed{12} \boxed{11}", "12", 0),
    (r"\boxed{11} " + MINERVA.format("$12$"), "12", 0),
    ("It could be 12 or 13", "12", 0),
    ("The answer is $12$ or $13$", "12", 0),
    ("The answer is $12$ or $13$", "13", 0),
    (r"\boxed{12 \text{ or } 13}", "12", 0),
    (r"<think>\boxed{12}</think> not sure", "12", 0),
    (r"<think>\boxed{12}", "12", 0),
    (r"\boxed{\sum_{k=1}^3 k}", "6", 0),
    (r"\boxed{17 \times 23}", "391", 0),
    (r"\boxed{}", "12", 0),
    (r"\boxed{0.0000002}", "0.0000001", 0),
    (r"\boxed{\sqrt{2}\cdot 10^{-30}}", r"\sqrt{3}\cdot 10^{-30}", 0),
    (r"\boxed{1+1/\mathrm e}", r"1-1/\mathrm e", 0),
    (r"\boxed{1+1/\mathrm e}", r"1+1/\mathrm{e}", 1),
    (r"\boxed{１２}", "12", 1),
    (r"\boxed{١٢}", "12", 1),
    ("\\boxed{\u22125}", "-5", 1),
    (r"\boxed{5²}", "52", 0),
    (r"\boxed{" + "7" * 5000 + "}", "7" * 5000, 1),
    (r"\boxed{" + "7" * 5000 + "}", "7" * 4999 + "8", 0),
    # A value that is not finite equals nothing but the same value of the gold.
    *[
        (rf"\boxed{{{answer}}}", gold, 0)
        for answer in (r"0^{-1}", r"\infty^{2}\pi", r"\infty", r"\frac{1}{0}", r"0^{-1}x", r"\{0^{-1}\}", r"\ln 0", r"x=0^{-1}")
        for gold in ("5", r"\frac{1}{2}", r"2\pi", "x+1", "(1,2)", r"\{3\}", "x=4")
    ],
    (r"\boxed{\infty}", r"\infty", 1),
    (r"\boxed{(0,\infty)}", r"(0,\infty)", 1),
    # What must not be computed.
    (r"\boxed{9^9^9^9}", "5", 0),
    (r"\boxed{9^{9^{9^{9}}}}", "5", 0),
    (r"\boxed{10^{10^{10}}}", "5", 0),
    (r"\boxed{3^{100000000}}", "5", 0),
    (r"\boxed{999999999!}", "5", 0),
    (r"\boxed{9!!!!!}", "5", 0),
    (r"\boxed{\binom{1000000}{500000}}", "5", 0),
    (r"\boxed{" + r"\frac{1}{" * 50 + "1" + "}" * 51, "5", 0),
    # Mathematics.
    (r"\boxed{5x}", "5y", 0),
    (r"\boxed{\frac{x+1}{2}}", r"\frac{1}{2}x+\frac12", 1),
    (r"\boxed{x^2+2x+1}", "(x+1)^2", 1),
    (r"\boxed{5\text{ cm}}", "5", 1),
    (r"\boxed{10\sqrt{3}\text{ cm}^2}", r"10\sqrt3", 1),
    (r"\boxed{-\frac{1}{2}}", "-0.5", 1),
    (r"\boxed{3\frac12}", "3.5", 1),
    (r"\boxed{1.5\times10^{3}}", "1500", 1),
    (r"\boxed{\text{12 dollars}}", "12", 1),
    (r"\boxed{0.1\overline{6}}", r"\frac16", 1),
    (r"\boxed{0.\overline{3}}", "0.333", 0),
    (r"\boxed{\text{East}}", r"\text{east}", 1),
    (r"\boxed{\text{west}}", r"\text{east}", 0),
    (r"\boxed{A}", "B", 0),
    (r"\boxed{x \in [1,2)}", "[1,2)", 1),
    (r"\boxed{[1,2]}", "(1,2)", 0),
    (r"\boxed{(2,1)}", "(1,2)", 0),
    (r"\boxed{2,1}", "1,2", 1),
    (r"\boxed{12, 13}", "12", 0),
    (r"\boxed{12_3}", "12_4", 0),
    (r"\boxed{12_{3}}", "12", 1),
    (r"\boxed{x=11}", "y=11", 0),
    (r"\boxed{11=12}", "12", 0),
    (r"\boxed{2x+1=y}", "y=2x+1", 1),
    (r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", r"\begin{pmatrix}1\\2\end{pmatrix}", 1),
    (r"\boxed{\infty}", r"-\infty", 0),
    (r"\boxed{\frac{\sqrt{3}}{3}}", r"\frac{1}{\sqrt3}", 1),
]


@pytest.mark.parametrize(("completion", "gold", "score"), CASES)
def test_strict(completion: str, gold: str, score: float) -> None:
    MATH.check(gold)
    assert MATH(completion, gold).score == score


def test_a_worker_thread_sees_the_same_equality() -> None:
    with ThreadPoolExecutor(1) as thread:
        for completion, gold in [
            (r"\boxed{2\sqrt{3}}", r"\sqrt{12}"),
            (r"\boxed{x+1}", "1+x"),
            (r"\boxed{\frac{2}{4}}", r"\frac12"),
        ]:
            assert thread.submit(MATH, completion, gold).result().score == 1


@pytest.mark.parametrize("gold", ["12", "1/2", "-3.5", r"\frac{1}{2}", "1,000", r"\text{(B)}", "east"])
def test_plain_answers_need_no_process(gold: str) -> None:
    for answer in (gold, "5", "-7/3", "42"):
        assert quick(Case(rf"\boxed{{{answer}}}", gold)) is not UNDECIDED


@pytest.mark.parametrize("gold", ["", "  ", "$$", r"\frac{1}{2", None, 1.5j, []])
def test_unusable_golds(gold: object) -> None:
    with pytest.raises(GoldError):
        MATH.check(gold)


@pytest.mark.parametrize("gold", ["", r"\boxed{}", r"\frac{1}{2", r"\mystery{x}+1", r"5\frac{x}", "{}"])
def test_a_gold_that_cannot_be_proven_is_refused(gold: str) -> None:
    with pytest.raises(GoldError):
        prove(gold)


@pytest.mark.parametrize(
    "answer", ["0^{-1}", "1=1", "0=1", "x=x", "x=x+1", r"\emptyset", r"\infty", r"\{\}", "0:0", r"\pm\infty", r"\frac00", "{}"]
)
def test_an_answer_that_knows_nothing_earns_nothing(answer: str) -> None:
    for gold in (
        "7",
        r"\frac12",
        r"2\sqrt3",
        "(3,4)",
        r"\{3,4\}",
        "x^2+y^2=-1",
        "y=2x+1",
        "3:1",
        r"\log(0.01)=-2",
        "x+1",
        "[1,2)",
        "east",
        "x>3",
    ):
        assert MATH(rf"\boxed{{{answer}}}", gold).score == 0


def test_a_gold_that_is_a_gsm8k_solution_is_its_last_number() -> None:
    solution = "She sold 48/2 = <<48/2=24>>24 clips in May, and 48+24 = <<48+24=72>>72 in all.\n#### 72"
    assert MATH(r"\boxed{72}", solution).score == 1.0
    assert MATH(r"\boxed{24}", solution).score == 0.0


@pytest.mark.parametrize("gold", [r"\frac{1}{2}{3}^^4", r"x \oplus", r"\sqrt[", [r"3", r"3 \pm \pm"]])
def test_a_gold_that_cannot_be_read_is_refused_when_data_is_loaded(gold: Any) -> None:
    with pytest.raises(GoldError, match="cannot be read as a formula; write it as plain LaTeX"):
        MATH.check(gold)
