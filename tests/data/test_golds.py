"""Golds prove themselves: those of every family and of the real data do, and what cannot be proven is told with its reason."""

import gzip
import json
from pathlib import Path

import pytest

from tests.verifiers.families import FAMILIES
from tulu.data.golds import faults, is_provable, stop_over_limit
from tulu.errors import DataError
from tulu.types import Verdict
from tulu.verifiers.proof import STATED, Proof, fault_of, proof_of

RIGHT, WRONG, LOST = Verdict(1.0), Verdict(0.0), Verdict(None, "error", "cannot be parsed")


def test_the_golds_of_every_family_grade_themselves() -> None:
    pairs = [(name, gold) for name, (gold, *_) in FAMILIES.items()]
    assert dict(zip(FAMILIES, faults(pairs), strict=True)) == dict.fromkeys(FAMILIES)
    assert {name for name, gold in pairs if is_provable(name, gold)} == set(FAMILIES) & set(STATED)


def test_real_golds_grade_themselves(shared_data: Path) -> None:
    lines = (shared_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    with gzip.open(shared_data / "gsm8k" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        lines += file.read().splitlines()
    solutions = [json.loads(line)["answer"] for line in lines]
    numbers = [solution.rsplit("####", 1)[1].strip() for solution in solutions]
    pairs = [("gsm8k", solution) for solution in solutions] + [("math", number) for number in numbers]
    assert [(pair, fault) for pair, fault in zip(pairs, faults(pairs), strict=True) if fault] == []


def test_what_cannot_be_used_is_told_with_the_reason() -> None:
    found = faults([("gsm8k", "seven"), ("math", "\\frac{1}{"), ("gsm8k", "7"), ("ifeval", {"instruction_id": ["no:such"]})])
    assert "is no number" in str(found[0])
    assert "unbalanced braces" in str(found[1])
    assert found[2] is None
    assert "unknown" in str(found[3])


@pytest.mark.parametrize(
    ("verdicts", "fault"),
    [
        ([RIGHT, WRONG, WRONG, WRONG], None),
        ([RIGHT, WRONG, WRONG, RIGHT], None),
        ([WRONG, WRONG, WRONG, WRONG], "the gold itself, 'right', scores 0"),
        ([Verdict(0.5), WRONG, WRONG, WRONG], "the gold itself, 'right', scores 0.5"),
        ([LOST, WRONG, WRONG, WRONG], "the gold itself, 'right', has no verdict (cannot be parsed)"),
        ([RIGHT, LOST, WRONG, WRONG], "another answer, 'wrong', has no verdict (cannot be parsed)"),
        ([RIGHT, WRONG, LOST, WRONG], "another answer, '6', has no verdict (cannot be parsed)"),
        ([RIGHT, RIGHT, WRONG, WRONG], "another answer, 'wrong', scores 1"),
        ([RIGHT, WRONG, RIGHT, RIGHT], "another answer, '6', scores 1"),
    ],
)
def test_what_a_proof_needs(verdicts: list[Verdict], fault: str | None) -> None:
    assert fault_of(Proof(("right",), ("wrong",), ("6", "7")), verdicts) == fault


@pytest.mark.parametrize(
    ("name", "gold", "changed"),
    [
        ("math", "x^2+15", ("\\boxed{x^3+15}", "\\boxed{x^2+16}")),
        ("math", "Step 1 gives \\boxed{9}.", ("Step 1 gives \\boxed{1}.",)),
        ("math", "\\pi", ()),
        ("math", ["5", "6"], ()),
        ("exact", "<h1>7</h1>", ("<answer><h1>8</h1></answer>",)),
        ("gsm8k", "2+2 is <<2+2=4>>4\n#### 4", ("#### 5",)),
        ("sql", {"sql": "select 1", "schema": ""}, ()),
    ],
)
def test_a_digit_is_changed(name: str, gold: object, changed: tuple[str, ...]) -> None:
    proof = proof_of(name, gold)
    assert proof is not None
    assert proof.changed == changed


def test_the_run_stops_over_one_percent() -> None:
    stop_over_limit("rows", 100, [("rows:7", "is no number")])
    with pytest.raises(DataError, match=r"(?s)rows: 2 of 100 rows \(2.0%\).*rows:7: is no number.*rows:9: x.*bad_golds: skip"):
        stop_over_limit("rows", 100, [("rows:7", "is no number"), ("rows:9", "x")])
