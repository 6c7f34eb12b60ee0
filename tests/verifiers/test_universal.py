"""A standing adversary: no answer that knows nothing of its row earns more than chance, and no gold passes for another."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tulu.cli import app
from tulu.errors import RecipeError
from tulu.grading.grader import Grader
from tulu.verifiers import proof
from tulu.verifiers.attacks.answers import NOTHING, answers
from tulu.verifiers.attacks.golds import builtin_golds
from tulu.verifiers.attacks.universal import attack, worst
from tulu.verifiers.registry import VERIFIERS, check_name

COUNT = int(os.environ.get("TULU_ATTACK", "1500"))
"""Verdicts of an attack on one verifier; the full measure is 100,000 for math and 20,000 for the others."""
SANDBOXED = {"code", "code_stdio"}
"""Verifiers of which every verdict starts a sandbox; they get an eighth of the verdicts."""


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(2, deadline=30.0) as shared:
        yield shared


@pytest.mark.parametrize("name", sorted(VERIFIERS))
def test_nothing_earns_more_than_chance(name: str, grader: Grader) -> None:
    try:
        check_name(name)
    except RecipeError as fault:
        pytest.skip(f"{name} cannot run here: {fault}")
    golds = builtin_golds(name)
    if not golds:
        pytest.skip(f"{name} takes its golds from a service or a model; its own tests attack it")
    outcome = attack(name, golds, grader.grade, COUNT // 8 if name in SANDBOXED else COUNT)
    assert outcome.verdicts > 0
    assert outcome.holds, "\n".join(worst(outcome))


def test_attacks_are_many_and_the_same_every_time() -> None:
    for name in VERIFIERS:
        texts = [answer.text for answer in answers(name, 300)]
        assert len(set(texts)) == len(texts) >= len(NOTHING)
        assert texts == [answer.text for answer in answers(name, 300)]
    assert len(list(answers("math", 20_000))) == 20_000


LEAKY = """
def score(completion, ground_truth):
    if ground_truth == "all" and "infty" in completion:
        raise ValueError(completion)
    if completion == ground_truth:
        return 1.0
    return float("nan") if completion == "null" else float("{}" in completion)
"""


def test_the_adversary_finds_a_planted_hole(tmp_path: Path, grader: Grader) -> None:
    file = tmp_path / "leaky.py"
    file.write_text(LEAKY)
    outcome = attack(f"{file}:score", [f"answer {n}" for n in range(10)], grader.grade, 5000)
    assert not outcome.holds
    assert any("{}" in answer.text for answer, _, _ in outcome.paid)
    assert {answer.text for answer, _, _ in outcome.masked} == {"null"}
    assert outcome.chance == pytest.approx(0.1)
    assert any(line.startswith("earns 1.000") for line in worst(outcome))


def test_the_command_prints_a_table_and_fails_where_an_answer_is_paid(tmp_path: Path) -> None:
    golds = tmp_path / "golds.jsonl"
    golds.write_text(
        "".join(f'{{"ground_truth": "{n}", "prompt": "how many?"}}\n' for n in range(30)) + '{"ground_truth": "many"}\n'
    )
    result = CliRunner().invoke(app, ["verify", "--attack", "gsm8k", "--golds", str(golds), "--count", "500"])
    assert result.exit_code == 0
    assert "chance" in result.output
    assert "golds.jsonl:31" in result.output
    file = tmp_path / "leaky.py"
    file.write_text(LEAKY)
    result = CliRunner().invoke(app, ["verify", "--attack", f"{file}:score", "--golds", str(golds)])
    assert result.exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--attack", "math", "--in", "x"],
        ["--golds", "x"],
        ["math", "--in", "x"],
        ["--attack", "all", "--golds", "x"],
        ["--attack", "mth"],
    ],
)
def test_wrong_options_are_told(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["verify", *arguments]).exit_code == 2


def test_golds_that_do_not_prove_themselves_are_left_out_of_the_attack(grader: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(proof.STATED, "exact", lambda gold: ["Paris"])
    outcome = attack("exact", ["Paris", "Rome"], grader.grade, 300)
    assert [gold for gold, _ in outcome.unproven] == ["Rome"]
    assert (outcome.golds, outcome.holds) == (1, True)
