"""What waits in one message: a case that hangs or dies in the midst of quick ones is the only one to pay."""

from pathlib import Path

import pytest

from tulu.grading.grader import Grader
from tulu.types import Problem, Verdict

OWN = """
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
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return f"{path}:score"


def graded(grader: Grader, name: str, completions: list[str]) -> list[Verdict]:
    return grader.grade([(completion, Problem(completion, [], (), "7", (name,))) for completion in completions])


@pytest.mark.parametrize(("fault", "status"), [("hang", "timeout"), ("die", "error")])
def test_only_the_case_at_fault_pays(name: str, fault: str, status: str) -> None:
    completions = [str(number % 10) for number in range(2000)]
    places = (3, 777, 778, 1500)
    for place in places:
        completions[place] = fault
    with Grader(2, deadline=1.0) as grader:
        # Quick ones first, so that many go in one message.
        graded(grader, name, ["7"] * 500)
        verdicts = graded(grader, name, completions)
    assert [at for at, verdict in enumerate(verdicts) if verdict.status != "ok"] == list(places)
    assert {verdicts[place].status for place in places} == {status}
    wanted = [float(completion == "7") for completion in completions if completion != fault]
    assert [verdict.score for verdict in verdicts if verdict.status == "ok"] == wanted


def test_latencies_are_of_each_verdict(name: str) -> None:
    with Grader(1, deadline=1.0) as grader:
        graded(grader, name, ["7"] * 500)
        grader.seconds.clear()
        graded(grader, name, ["7"] * 300 + ["hang"] + ["7"] * 300)
        assert len(grader.seconds) == 601
        found = sorted(grader.seconds)
    assert found[300] < 0.05
    assert 0.9 < found[-1] < 1.5
