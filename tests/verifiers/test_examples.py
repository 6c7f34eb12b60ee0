"""Every verifier has an example, and the answer that it shows as right is right."""

from pathlib import Path

import pytest

from tulu.verifiers.contract import Case, grade_safely
from tulu.verifiers.examples import EXAMPLES, SAME, example_of
from tulu.verifiers.registry import VERIFIERS, check_gold, find

ASKS_A_MODEL = {"llm_judge", "rubric", "reward_model", "general-quality", "general-quality_ref"}


def test_the_table_names_every_verifier_and_nothing_else() -> None:
    assert EXAMPLES.keys() | SAME.keys() == VERIFIERS.keys()
    for name, other in SAME.items():
        assert name not in EXAMPLES
        assert other in EXAMPLES


@pytest.mark.parametrize("name", sorted(VERIFIERS))
def test_an_example_s_ground_truth_can_be_used_and_its_answer_is_right(name: str) -> None:
    if name == "reasoning_gym":
        pytest.importorskip("reasoning_gym")
    example = example_of(name)
    check_gold(name, example.gold)
    if name in ASKS_A_MODEL:
        return
    row = {"completion_tokens": 100, "ground_truth": example.gold}
    verdict = grade_safely(find(name).strict, Case(example.answer, example.gold, "", row))
    if verdict.status == "error" and "sandbox" in verdict.detail:
        pytest.skip(verdict.detail)
    assert (verdict.status, verdict.score) == ("ok", 1.0), verdict.detail


def test_the_documentation_names_every_verifier() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "verifiers.md").read_text()
    assert [name for name in VERIFIERS if f"`{name}`" not in page] == []
