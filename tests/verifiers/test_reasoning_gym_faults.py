"""What a scorer of reasoning-gym that fails means, shown with a stand-in for the package."""

import sys
from types import ModuleType
from typing import Any

import pytest

from tulu.verifiers.contract import GoldError
from tulu.verifiers.reasoning_gym import REASONING_GYM


def scorer(name: str) -> Any:
    def score_answer(answer: str, entry: dict[str, Any]) -> Any:
        if name == "broken" or (name == "picky" and not answer.isdecimal()):
            raise ZeroDivisionError(answer)
        if name == "odd":
            return None
        entry.clear()
        return 1.0 if name == "generous" else float(answer == "7")

    return score_answer


@pytest.fixture(autouse=True)
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("reasoning_gym")
    package.get_score_answer_fn = scorer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reasoning_gym", package)


def gold(name: str) -> dict[str, Any]:
    return {"dataset": name, "entry": {"answer": "7"}}


def test_an_exception_is_the_answers_fault_where_the_right_answer_raises_none() -> None:
    REASONING_GYM.check(gold("picky"))
    assert [REASONING_GYM(text, gold("picky")).score for text in ("7", "x", "8")] == [1, 0, 0]
    verdict = REASONING_GYM("x", gold("broken"))
    assert (verdict.score, verdict.status) == (None, "error")


@pytest.mark.parametrize("name", ["broken", "odd", "generous"])
def test_entries_that_cannot_be_used(name: str) -> None:
    with pytest.raises(GoldError):
        REASONING_GYM.check(gold(name))


def test_nothing_is_no_answer_and_what_is_not_finite_is_no_number() -> None:
    for text in ("", " ", "\u200b", "<think>7</think>", "nan", "inf", "1e999"):
        assert REASONING_GYM(text, gold("generous")).score == 0
