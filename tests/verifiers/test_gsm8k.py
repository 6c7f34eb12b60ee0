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
