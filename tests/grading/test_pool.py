"""Cases that share a message: one that hangs or dies amid quick ones is the only one without a score."""

import os
import signal
import subprocess
import sys
import time
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
        began = time.monotonic()
        grade(grader, name, ["7"] * 300 + ["hang"] + ["7"] * 300)
        assert len(grader.seconds) == 601
        took, latencies = time.monotonic() - began, sorted(grader.seconds)
    assert latencies[300] < 0.05
    assert latencies[-1] > 0.9
    # One process graded one after the other.
    assert sum(latencies) <= took


STOPPED = """
import sys
from tulu import deadlines
from tulu.grading.grader import Grader
from tulu.types import Problem
deadlines.STILL_SECONDS, deadlines.LOOK_SECONDS = 1.0, 0.1
with Grader(2, deadline=1.5) as grader:
    problems = [Problem(f"p{number}", (), (), "x", (sys.argv[1],)) for number in range(6)]
    # The first verdict of a process has time to load its verifier.
    grader.grade([("first", problem) for problem in problems])
    print("under way", flush=True)
    for verdict in grader.grade([(f"answer {number}", problem) for number, problem in enumerate(problems)]):
        print(verdict.status, verdict.score, flush=True)
"""


def test_what_stood_still_with_its_graders_goes_on_and_no_verdict_is_late(tmp_path: Path) -> None:
    """As Ctrl-Z and fg do, or a container that is frozen: for the graders no time has passed either."""
    (file := tmp_path / "slow.py").write_text("import time\ndef score(completion, gold):\n    time.sleep(0.5)\n    return 1.0\n")
    group = subprocess.Popen(
        [sys.executable, "-c", STOPPED, f"{file}:score"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert group.stdout is not None
        assert group.stdout.readline() == "under way\n"
        time.sleep(0.3)
        os.killpg(group.pid, signal.SIGSTOP)
        time.sleep(3.0)
        os.killpg(group.pid, signal.SIGCONT)
        assert group.stdout.read().splitlines() == ["ok 1.0"] * 6
    finally:
        os.killpg(group.pid, signal.SIGKILL)
        group.wait()
