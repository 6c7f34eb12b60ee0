import subprocess
import sys
from pathlib import Path

import pytest

from tulu.errors import RecipeError
from tulu.verifiers import registry
from tulu.verifiers.contract import GoldError
from tulu.verifiers.registry import VERIFIERS, check_gold, check_name, find

OWN = """
from tulu.types import Verdict

def score(completion, ground_truth, prompt):
    return completion == ground_truth + prompt

def unsure(completion, ground_truth):
    return None

def broken(completion, ground_truth):
    raise KeyError("x")

def three(completion, ground_truth, third):
    return 1

def check(ground_truth):
    assert isinstance(ground_truth, str), "must be text"
"""


def test_a_mistyped_name_is_told_its_nearest() -> None:
    with pytest.raises(RecipeError, match="gsm8k"):
        check_name("gsm8")
    with pytest.raises(RecipeError, match="known are"):
        check_name("???")


def test_upper_case_is_the_same_name() -> None:
    assert find("GSM8K") is VERIFIERS["gsm8k"]


def test_what_is_missing_is_told_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_spec", lambda module: None)
    with pytest.raises(RecipeError, match=r"needs reasoning_gym: pip install 'tulu\[environments\]'"):
        find("reasoning_gym")
    with pytest.raises(RecipeError, match=r"needs jsonschema: pip install 'tulu\[verifiers\]'"):
        find("json_schema")


def test_golds_are_checked_by_name() -> None:
    check_gold("gsm8k", "18")
    with pytest.raises(GoldError):
        check_gold("gsm8k", "eighteen")


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    verifier = find(f"{file}:score")
    assert verifier("ab", "a", prompt="b").score == 1
    assert verifier("ab", "a", prompt="c").score == 0
    assert find(f"{file}:unsure")("ab", "a").status == "error"
    assert find(f"{file}:broken")("ab", "a").detail.startswith("KeyError")
    with pytest.raises(GoldError, match="must be text"):
        verifier.check(3)


@pytest.mark.parametrize(
    ("name", "told"),
    [("nowhere.py:score", "no file"), ("{mine}:scor", "it has"), ("{mine}:three", "must take"), ("{bad}:f", "imported")],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, told: str) -> None:
    mine, bad = tmp_path / "mine.py", tmp_path / "bad.py"
    mine.write_text(OWN)
    bad.write_text("1/0")
    with pytest.raises(RecipeError, match=told):
        check_name(name.format(mine=mine, bad=bad))


RETURNS = """
import sys
from enum import StrEnum
from tulu.types import Verdict
class Why(StrEnum):
    FINE = "fine"
VALUES = {
    "nan": float("nan"), "huge": 1e300, "text": "1.0", "dict": {"score": 1}, "true": True,
    "verdict": Verdict(0.5, detail=Why.FINE), "nan verdict": Verdict(float("nan")),
    "late": Verdict(None, "timeout", Why.FINE), "none": None,
}
def score(completion, ground_truth):
    return sys.exit("no licence") if ground_truth == "exit" else VALUES[ground_truth]
def on_some(completion, ground_truth):
    return sys.exit(0) if completion == "exit" else 1.0
"""


def test_what_a_function_of_the_users_own_returns_is_a_number_of_usual_size_or_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(RETURNS)
    found = {gold: find(f"{tmp_path}/mine.py:score")("x", gold) for gold in ("true", "verdict", "late", "none")}
    assert {gold: (one.score, one.status, one.detail) for gold, one in found.items()} == {
        "true": (1.0, "ok", ""),
        "verdict": (0.5, "ok", "fine"),
        "late": (None, "timeout", "fine"),
        "none": (None, "error", "the verifier returned None"),
    }
    assert {type(one.detail) for one in found.values()} == {str}, "another process reads it"
    for gold, told in [("nan", "nan"), ("huge", "1e+300"), ("text", "'1.0'"), ("dict", "{'score': 1}"), ("nan verdict", "nan")]:
        verdict = find(f"{tmp_path}/mine.py:score")("x", gold)
        assert (verdict.score, verdict.status) == (None, "error")
        assert f"the verifier returned {told}; return a number of at most 1e+09, or None" in verdict.detail
    assert find(f"{tmp_path}/mine.py:score")("x", "exit").detail == "SystemExit: no licence"
    # What only an answer brings about is its fault, and scores 0.
    assert find(f"{tmp_path}/mine.py:on_some")("exit", "y").score == 0.0


def test_a_file_that_exits_ends_nothing_but_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import sys\nsys.exit(0)")
    with pytest.raises(RecipeError, match=r"mine\.py cannot be imported: SystemExit: 0"):
        check_name(f"{tmp_path}/mine.py:score")


def test_the_registry_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "sympy", "math_verify", "ray", "datasets", "pydantic"}
    code = "import sys, tulu.verifiers.registry, tulu.grading.grader; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not heavy & set(done.stdout.split())
