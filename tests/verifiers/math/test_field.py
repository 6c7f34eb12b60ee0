"""Rows from the field that were once wrong, where the shared folder is there."""

import json
from pathlib import Path

import pytest

from tulu.verifiers.contract import Verifier
from tulu.verifiers.gsm8k import GSM8K
from tulu.verifiers.math.verifier import MATH, prove

VERIFIERS: dict[str, Verifier] = {"math": MATH, "gsm8k": GSM8K}


@pytest.mark.parametrize("name", ["verdicts", "attacks"])
def test_every_row_has_its_expected_score(shared_data: Path, name: str) -> None:
    file = shared_data.parent / "field" / f"{name}.jsonl"
    if not file.exists():
        pytest.skip("no rows from the field in the shared folder")
    rows = [json.loads(line) for line in file.open(encoding="utf-8")]
    rows = [row for row in rows if row["verifier"] in VERIFIERS]
    wrong = [row for row in rows if VERIFIERS[row["verifier"]](row["completion"], row["ground_truth"]).score != row["expected"]]
    assert rows
    assert not wrong


def test_every_gold_is_proven(shared_data: Path) -> None:
    for file in sorted((shared_data.parent / "field").glob("*.jsonl")):
        for line in file.open(encoding="utf-8"):
            row = json.loads(line)
            if row["verifier"] == "math":
                prove(row["ground_truth"])
