"""Problems that reasoning-gym generates, as rows with their verifier."""

import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest

from tests.environments.test_turns import turns
from tulu.config.parts import Source
from tulu.data.problems import load_problems
from tulu.data.sources import load_rows
from tulu.errors import DataError
from tulu.verifiers.registry import find


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real package where it is installed, else one of a single data set with the same functions."""
    try:
        import reasoning_gym  # noqa: F401
    except ImportError:
        made: Any = ModuleType("reasoning_gym")

        def create_dataset(name: str, seed: int, size: int = 500) -> list[dict[str, Any]]:
            assert size > 0, "size must be positive"
            numbers = [(seed * 31 + index) % 90 + 10 for index in range(size)]
            return [{"question": f"{one} + 1 = ?", "answer": str(one + 1), "metadata": {"n": one}} for one in numbers]

        @dataclass
        class Config:
            size: int = 500

        factory: Any = ModuleType("reasoning_gym.factory")
        factory.DATASETS = {"chain_sum": (None, Config)}
        monkeypatch.setitem(sys.modules, "reasoning_gym.factory", factory)
        made.__spec__ = ModuleSpec("reasoning_gym", None)
        made.create_dataset = create_dataset
        made.get_score_answer_fn = lambda name: lambda answer, entry: float(answer == entry["answer"])
        monkeypatch.setitem(sys.modules, "reasoning_gym", made)


@pytest.mark.usefixtures("package")
def test_rows_are_generated_with_their_verifier() -> None:
    rows = load_rows(Source(name="reasoning_gym:chain_sum", count=4), seed=3)
    again = load_rows(Source(name="reasoning_gym:chain_sum", count=4), seed=3)
    assert [row.columns for row in rows] == [row.columns for row in again]
    assert [row.id for row in rows] == [f"reasoning_gym:chain_sum:{index}" for index in range(4)]
    for row in rows:
        truth = row.columns["ground_truth"]
        assert row.columns["messages"][0]["content"] == truth["entry"]["question"]
        grade = find(row.columns["dataset"])
        assert grade(truth["entry"]["answer"], truth).score == 1.0
        assert grade("quite another answer", truth).score == 0.0


def test_they_are_problems_of_rlvr() -> None:
    # Ground truths are proven in processes of their own, which know no package that a test makes up.
    pytest.importorskip("reasoning_gym")
    problems = load_problems([Source(name="reasoning_gym:chain_sum", count=4)], turns().tokenizer, 200)
    assert [problem.verifiers for problem in problems] == [("reasoning_gym",)] * 4


@pytest.mark.usefixtures("package")
def test_a_data_set_that_is_not_there_is_named() -> None:
    for name, message in [("Chain_Sum", "no data set Chain_Sum; did you mean chain_sum"), ("", "without a name; it has ")]:
        with pytest.raises(
            DataError, match=rf"reasoning_gym:{name}: reasoning-gym has no data set.*{message.rpartition('set ')[2]}"
        ):
            load_rows(Source(name=f"reasoning_gym:{name}", count=4))


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(("options", "kind"), [({"size": -1}, "AssertionError"), ({"max_termz": 4}, "TypeError")])
def test_options_that_it_does_not_take_are_told_with_those_that_it_has(options: dict[str, Any], kind: str) -> None:
    with pytest.raises(
        DataError, match=rf"reasoning_gym:chain_sum: cannot be made with the options .*{kind}: .*of its own: .*size"
    ):
        load_rows(Source(name="reasoning_gym:chain_sum", fraction=1.0, options=options))
