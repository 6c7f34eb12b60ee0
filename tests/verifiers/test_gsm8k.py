import json
import subprocess
import sys
from pathlib import Path

import pytest

from tulu.verifiers.contract import GoldError
from tulu.verifiers.gsm8k import GSM8K

# (completion, ground truth, strict, tulu3); the tulu3 column is open-instruct's own tests or its measured result.
CASES: list[tuple[str, str, float, float]] = [
    ("Therefore the answer is -3", "-3", 1, 1),
    ("The answer is 3", "-3", 0, 0),
    ("Final answer: -3.5", "-3.5", 1, 1),
    (r"\boxed{-3}", "-3", 1, 1),
    ("The answer is 1,234", "1234", 1, 1),
    ("1,000,000", "1000000", 1, 1),
    ("The answer is 42.", "42", 1, 1),
    ("She has $42.00", "42", 1, 0),
    ("3.50", "3.5", 1, 0),
    (".5", "0.5", 1, 0),
    ("+7", "7", 1, 0),
    ("42.0", "42", 1, 0),
    ("+42", "42", 1, 0),
    ("042", "42", 1, 0),
    ("4.2e1", "42", 1, 0),
    ("21/2", "10.5", 1, 0),
    ("10-3", "3", 1, 0),
    ("1,2,3", "3", 0, 1),
    ("<think>it is 18</think> I am not sure", "18", 0, 1),
    ("<think>it is 18", "18", 0, 1),
    ("<think>17</think> 18", "18", 1, 1),
    ("１８", "18", 1, 0),
    ("١٨", "18", 1, 0),
    ("−5", "-5", 1, 0),
    ("-5", "5", 0, 0),
    ("1.5", "15", 0, 0),
    ("It is 12 or 13", "13", 0, 1),
    ("#### 12 or 13", "12", 0, 0),
    ("#### 12 or 13", "13", 0, 1),
    ("6 + 12 = 18\n#### 18", "18", 1, 1),
    ("#### 18\nThat took 3 steps.", "18", 1, 0),
    ("#### Step 3: add\nIt is 18.", "18", 1, 1),
    ("#### 1. First\nIt is 18.", "18", 1, 1),
    (r"We get \boxed{18} after 2 steps", "18", 1, 0),
    (r"\boxed{17} \boxed{18}", "18", 1, 1),
    (r"\boxed{18", "18", 0, 1),
    ("-$5", "-5", 1, 0),
    (r"\frac{1}{2}", "0.5", 1, 0),
    ("5,000 dollars", "5000", 1, 1),
    ("1{,}234", "1234", 1, 0),
    ("no number", "7", 0, 0),
    ("", "7", 0, 0),
    ("9" * 5000, "9" * 5000, 1, 1),
    ("9" * 5000, "9" * 4999 + "8", 0, 0),
    ("1e999999999", "7", 0, 0),
]


CASES += [
    ("1 000 000", "1000000", 1, 0),
    ("#### 1 000 000", "1000000", 1, 0),
    ("#### 1 000 000", "0", 0, 0),
    ("12 13", "13", 1, 1),
    ("18 dollars. (step 2)", "18", 1, 0),
    ("It took 2 steps, step 2", "2", 1, 1),
]

READ_AS_MATHEMATICS: list[tuple[str, str, float]] = [
    (r"\boxed{\frac12}", "12", 0), (r"\boxed{\frac12}", "0.5", 1), (r"\boxed{\sqrt2}", "2", 0), (r"\boxed{\sqrt{4}}", "2", 1),
    (r"\boxed{5!}", "5", 0), (r"\boxed{5!}", "120", 1), (r"\boxed{5\text{ million}}", "5", 0), ("It is 5 million", "5", 0),
    ("It is 5 million.", "5000000", 1), (r"\boxed{5 million}", "5000000", 1), (r"\boxed{3*3}", "3", 0),
    (r"\boxed{3*3}", "9", 0), (r"\boxed{[0,100]}", "100", 0), ("It is in [0,100]", "100", 0), ("10 to 42", "42", 0),
    ("between 10 and 42", "42", 0), ("It is from 10 to 42.", "42", 0), (r"\boxed{10\text{ to }42}", "42", 0),
    (r"\boxed{3^3}", "3", 0), ("#### 3*3", "3", 0), ("#### 5!", "5", 0), (r"#### \frac12", "2", 0),
    (r"#### \frac{1}{2}", "0.5", 1), ("#### 5 million", "5", 0), ("#### [0,100]", "100", 0), (r"\boxed{5x}", "5", 0),
    (r"\boxed{x=5}", "5", 1), (r"\boxed{5\%}", "5", 1), (r"\boxed{\$5}", "5", 1), (r"\boxed{\$5.00}", "5", 1),
    ("The answer is $5$.", "5", 1), (r"The answer is $\frac{1}{2}$.", "0.5", 1), (r"The answer is $\frac{1}{2}$.", "2", 0),
    (r"The answer is \frac{1}{2}", "2", 0), (r"\sqrt2", "2", 0), (r"so it costs $5\pi$", "5", 0), ("3*3", "3", 0),
    ("She has 5 dozen eggs", "5", 0), ("She has 5 dozen eggs", "60", 1), ("x^2", "2", 0), ("The answer is 42!", "42", 1),
    ("The answer is 12, not 13", "13", 1), (r"\boxed{5,6}", "6", 0), (r"\boxed{5\pm1}", "5", 0),
    (r"\boxed{18\text{ eggs}}", "18", 1), (r"\boxed{18 eggs}", "18", 1), ("#### 18 eggs", "18", 1), ("#### **18**", "18", 1),
    ("#### 18.", "18", 1), ("**#### 18**", "18", 1), (r"\boxed{1,000}", "1000", 1), (r"\boxed{1{,}000}", "1000", 1),
    ("1{,}000 eggs in total", "1000", 1), (r"1\,000", "1000", 1), (r"\boxed{2\frac12}", "2.5", 1),
    (r"\boxed{\text{18}}", "18", 1), ('18\u200b', "18", 1), ('\u200b', "18", 0), ('```\n18\n```', "18", 1), ("$18$", "18", 1),
    (r"\[18\]", "18", 1), ("**18**", "18", 1), (r"\boxed{5 \text{ and } 6}", "6", 0), (r"\boxed{0.5}", "1/2", 1),
    (r"\boxed{10^3}", "1000", 1), (r"\boxed{\log 5}", "5", 0), (r"\boxed{5e}", "5", 0), (r"\boxed{5\circ}", "5", 1),
    ("12/4", "3", 1), ("12 / 4", "3", 1), (r"\boxed{\text{eighteen}}", "18", 1), ("#### 5 * 3", "3", 0),
    ("She sold 5-6 eggs", "6", 1), ("#### 20 - 2 = 18", "18", 1), ("The answer is 5²", "5", 0), ("5 thousand", "5000", 1),
]  # fmt: skip


@pytest.mark.parametrize(("completion", "gold", "score"), READ_AS_MATHEMATICS)
def test_a_number_in_an_expression_is_no_answer(completion: str, gold: str, score: float) -> None:
    assert GSM8K(completion, gold).score == score


@pytest.mark.parametrize(("completion", "gold", "strict", "tulu3"), CASES)
def test_both_modes(completion: str, gold: str, strict: float, tulu3: float) -> None:
    assert GSM8K(completion, gold).score == strict
    assert GSM8K(completion, gold, "tulu3").score == tulu3


def test_nan_is_no_answer_and_no_gold() -> None:
    assert GSM8K("nan", "nan", "tulu3").score == 1
    assert GSM8K("nan", "nan").status == "error"


@pytest.mark.parametrize("gold", ["", " ", "nan", "seven", None, True, [], "1,2,3", "12 apples"])
def test_unusable_golds_are_refused_when_data_is_loaded(gold: object) -> None:
    with pytest.raises(GoldError, match="ground_truth"):
        GSM8K.check(gold)


@pytest.mark.parametrize("gold", ["18", 18, 3.5, "1,234", "$5", "worked out\n#### 72", "-7", "1/2"])
def test_usable_golds(gold: object) -> None:
    GSM8K.check(gold)


def test_every_solution_of_gsm8k_earns_its_own_answer(shared_data: Path) -> None:
    rows = [json.loads(line) for file in sorted((shared_data / "gsm8k").glob("*.jsonl")) for line in file.open()]
    rows = [row for row in rows if "####" in row.get("answer", "")]
    if not rows:
        pytest.skip("no GSM8K rows in the shared data")
    wrong = []
    for row in rows:
        solution, gold = row["answer"], row["answer"].rsplit("####", 1)[1].strip()
        GSM8K.check(gold)
        if GSM8K(solution, gold).score != 1 or GSM8K(solution, solution).score != 1:
            wrong.append(gold)
    assert not wrong


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, tulu.verifiers.gsm8k; sys.exit(bool({'torch', 'transformers', 'sympy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
