"""Cases that share a message: one that hangs or dies amid quick ones is the only one without a score."""

from pathlib import Path

import pytest

from tulu.grading.grader import Grader
from tulu.types import Problem, Verdict

CUSTOM_VERIFIER = """
import os, time
def score(completion, ground_truth):
    if completion == "hang":
        time.sleep(60)
    if completion == "die":
        os._exit(3)
    return completion == ground_truth
"""


@pytest.fixture
def name(tmp_path: Path) -> str:
    path = tmp_path / "custom.py"
    path.write_text(CUSTOM_VERIFIER)
    return f"{path}:score"


def grade(grader: Grader, name: str, completions: list[str]) -> list[Verdict]:
    return grader.grade([(completion, Problem(completion, [], (), "7", (name,))) for completion in completions])


@pytest.mark.parametrize(("fault", "status", "score"), [("hang", "timeout", None), ("die", "ok", 0.0)])
def test_only_the_case_at_fault_pays(name: str, fault: str, status: str, score: float | None) -> None:
    completions = [str(number % 10) for number in range(2000)]
    places = (3, 777, 778, 1500)
    for place in places:
        completions[place] = fault
    with Grader(2, deadline=1.0) as grader:
        # Quick cases come first, so that many cases share a message.
        grade(grader, name, ["7"] * 500)
        verdicts = grade(grader, name, completions)
    assert {(verdicts[place].status, verdicts[place].score) for place in places} == {(status, score)}
    others = [(completion, verdict) for completion, verdict in zip(completions, verdicts, strict=True) if completion != fault]
    assert [verdict.score for _, verdict in others] == [float(completion == "7") for completion, _ in others]


def test_latencies_are_of_each_verdict(name: str) -> None:
    with Grader(1, deadline=1.0) as grader:
        grade(grader, name, ["7"] * 500)
        grader.seconds.clear()
        grade(grader, name, ["7"] * 300 + ["hang"] + ["7"] * 300)
        assert len(grader.seconds) == 601
        latencies = sorted(grader.seconds)
    assert latencies[300] < 0.05
    assert 0.9 < latencies[-1] < 1.5
