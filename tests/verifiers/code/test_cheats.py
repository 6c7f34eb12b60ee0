"""Programs that know nothing of the task earn no more than a constant does: on toy tasks, and on real ones."""

import ast
import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.verifiers.cheated_tests import AGREEABLE, HAND_MADE
from tests.verifiers.cheating_programs import cheats, constants
from tulu.grading.grader import Grader
from tulu.types import Problem
from tulu.verifiers.code.verifier import CODE

CHEATS = dict(cheats(["f"]))
ROWS_A_CHEAT = int(os.environ.get("TULU_CHEAT_ROWS", "3"))
"""Real rows that each cheat is tried on; all of them take a quarter of an hour."""
TOYS = [
    "assert f(1) == 41",
    "x = f(1)\nassert x == 41",
    "def check(candidate):\n    assert candidate(1) == 41\n    assert abs(candidate(2) - 42) < 1e-6\ncheck(f)",
    "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 41)",
    "from solution import f\ndef test_f():\n    assert f(1) in (41, 42)",
    "for n, want in zip([1, 2], map(f, [1, 2])):\n    assert want == n + 40",
]


@pytest.mark.parametrize("name", list(CHEATS))
def test_a_cheat_earns_nothing_on_toy_tasks(name: str) -> None:
    for test in TOYS:
        verdict = CODE(f"```python\n{CHEATS[name]}\n```", {"tests": [test], "time_limit": 2})
        assert (verdict.status, verdict.score) == ("ok", 0), (test, verdict)


@pytest.mark.parametrize("test", AGREEABLE)
def test_an_object_that_agrees_with_everything_passes_no_comparison(test: str) -> None:
    program = CHEATS["agrees with everything"]
    CODE.check([test])
    verdict = CODE(f"```python\n{program}\n```", {"tests": [test], "time_limit": 2})
    assert (verdict.status, verdict.score) == ("ok", 0), verdict


@pytest.mark.parametrize("name", list(HAND_MADE))
def test_a_cheat_made_for_its_test_earns_nothing(name: str) -> None:
    source, tests = HAND_MADE[name]
    for test in tests:
        verdict = CODE(f"```python\n{source}\n```", {"tests": [test], "time_limit": 2})
        assert (verdict.status, verdict.score) == ("ok", 0), (test, verdict)


def _rows(shared_data: Path) -> list[tuple[str, list[str], Any]]:
    """(id, names that the tests call, ground truth) of each row."""
    rows = list[tuple[str, list[str], Any]]()
    with gzip.open(shared_data / "humaneval" / "HumanEval.jsonl.gz", "rt") as file:
        for row in map(json.loads, file):
            gold = {"tests": [f"{row['test']}\ncheck({row['entry_point']})"], "time_limit": 2}
            rows.append((row["task_id"], [row["entry_point"]], gold))
    for number, row in enumerate(map(json.loads, (shared_data / "mbpp_sanitized" / "test.jsonl").open())):
        names = [node.name for node in ast.parse(row["code"]).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        gold = {"tests": row["test_list"], "imports": row["test_imports"], "time_limit": 2}
        rows.append((f"mbpp:{number}", names, gold))
    return rows


def test_a_cheat_earns_no_more_on_real_rows_than_a_constant(shared_data: Path) -> None:
    rows = _rows(shared_data)
    draw = random.Random(9)
    chosen = [(name, row) for name in CHEATS for row in draw.sample(rows, min(ROWS_A_CHEAT, len(rows)))]
    # These rows use helpers of the prompt, so that a program could make its own judge.
    special = [row for row in rows if row[0] in ("HumanEval/32", "HumanEval/38", "HumanEval/50")]
    chosen += [(name, row) for name in CHEATS if "helper" in name or "agrees" in name for row in special]

    def item(program: str, row: tuple[str, list[str], Any]) -> tuple[str, Problem]:
        return f"```python\n{program}\n```", Problem(row[0], [], (), row[2], ("code",))

    with Grader(2) as grader:
        verdicts = grader.grade([item(dict(cheats(row[1]))[name], row) for name, row in chosen])
        paid = [(name, row, verdict) for (name, row), verdict in zip(chosen, verdicts, strict=True) if verdict.score != 0]
        for name, row, verdict in paid:
            plain = grader.grade([item(program, row) for program in constants(row[1])])
            best = max(constant.score or 0 for constant in plain)
            assert verdict.status == "ok"
            assert (verdict.score or 0) <= best, (name, row[0], verdict, best)
