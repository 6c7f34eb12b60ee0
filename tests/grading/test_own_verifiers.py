"""Verifiers of the user's in grading processes: what one leaves behind, forks or edits changes no verdict of another case."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tulu.grading.grader import Grader
from tulu.types import Problem, Verdict

SCORE = "def score(completion, ground_truth):\n    return {}\n"


def own(folder: Path, text: str) -> str:
    (folder / "mine.py").write_text(text)
    return f"{folder}/mine.py:score"


def problem(name: str, gold: object = "g", **row: object) -> Problem:
    return Problem("p", [{"role": "user", "content": "q"}], (), gold, (name,), row)


def test_a_gold_and_a_row_that_one_case_changes_are_whole_for_the_next(tmp_path: Path) -> None:
    """Answers to one prompt travel in one message, in which they would share the gold and the row."""
    text = """
def score(completion, ground_truth, row):
    whole = ground_truth == ["x"] and row["notes"] == {"a": [1]}
    ground_truth.clear(); row["notes"]["a"].append(2)
    return whole
"""
    asked = problem(own(tmp_path, text), ["x"], notes={"a": [1]})
    with Grader(1) as grader:
        assert [one.score for one in grader.grade([(str(n), asked) for n in range(100)])] == [1.0] * 100


@pytest.mark.parametrize("where", ["while it is imported", "while it grades"])
def test_code_that_forks_answers_once(tmp_path: Path, where: str) -> None:
    text = "import os\n" + (
        "os.fork()\n" + SCORE.format("completion == '7'")
        if where == "while it is imported"
        else "def score(completion, ground_truth):\n    os.fork()\n    return completion == '7'\n"
    )
    with Grader(1) as grader:
        verdicts = grader.grade([(str(n), problem(own(tmp_path, text))) for n in range(12)])
        assert [one.score for one in verdicts] == [float(n == 7) for n in range(12)]


def test_what_is_no_message_is_the_end_of_a_process_and_not_of_the_pool(tmp_path: Path) -> None:
    """A verifier may write into any descriptor that its process has."""
    text = """
import os, stat
def score(completion, ground_truth):
    if completion == "write":
        for number in range(3, 1024):
            try:
                if stat.S_ISSOCK(os.fstat(number).st_mode): os.write(number, (9).to_bytes(4, "little") + b"no pickle")
            except OSError: pass
    return 1
"""
    name = own(tmp_path, text)
    with Grader(1) as grader:
        assert grader.grade([("write", problem(name))])[0] == Verdict(
            0.0, detail="the grading process died twice (exit code None)"
        )
        assert grader.grade([("x", problem(name))])[0].score == 1


def test_what_a_verifier_started_ends_with_its_process(tmp_path: Path) -> None:
    text = f"""
import subprocess
def score(completion, ground_truth):
    with subprocess.Popen(["sleep", "3600"]) as process:
        open({str(tmp_path / "pid")!r}, "w").write(str(process.pid))
"""
    with Grader(1, deadline=4.0) as grader:
        assert grader.grade([("x", problem(own(tmp_path, text)))])[0].status == "timeout"
    ends = time.monotonic() + 60
    while psutil.pid_exists(pid := int((tmp_path / "pid").read_text())) and psutil.Process(pid).status() != "zombie":
        assert time.monotonic() < ends, "the program that hung goes on without its verifier"
        time.sleep(0.05)


def test_one_grader_grades_by_one_content(tmp_path: Path) -> None:
    """Grading processes are replaced as a run goes on; one that began later would grade by what was edited meanwhile."""
    name = own(tmp_path, "from odd_limit_of_grader import LIMIT\n" + SCORE.format("LIMIT"))
    helper = tmp_path / "odd_limit_of_grader.py"
    helper.write_text("LIMIT = 1")
    with Grader(1) as grader:
        assert grader.grade([("x", problem(name))])[0].score == 1
        helper.write_text("LIMIT = 2")
        assert grader.grade([("x", problem(name))])[0].score == 1, "what is imported already stays"
        os.kill(grader.pids()[0], signal.SIGKILL)
        verdict = grader.grade([("x", problem(name))])[0]
        assert (verdict.score, verdict.status) == (None, "error")
        assert "mine.py, or a file that it imports, is not what it was when grading began; put it back" in verdict.detail
    with Grader(1) as grader:
        assert grader.grade([("x", problem(name))])[0].score == 2, "another grader begins anew"


def test_two_functions_of_one_file_share_what_it_keeps(tmp_path: Path) -> None:
    text = "seen = []\ndef score(c, g):\n    seen.append(c)\n    return len(seen)\ndef other(c, g): return score(c, g)\n"
    name = own(tmp_path, text)
    with Grader(1) as grader:
        assert [grader.grade([("x", problem(one))])[0].score for one in (name, name.replace(":score", ":other"))] == [1, 2]
