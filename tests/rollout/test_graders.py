"""Graders on the nodes of a Ray cluster: they say what those of this machine say, and whatever becomes of them costs no verdict.

The cluster is real: two nodes on this machine, with one core each as far as Ray is told.
"""

import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="ray is not installed")

import ray
from ray.cluster_utils import Cluster

from tulu.grading.actor import GradingNode
from tulu.grading.grader import Grader
from tulu.rollout import graders
from tulu.rollout.grader_member import GraderLimits
from tulu.rollout.graders import RayWorkers
from tulu.types import Problem, Verdict

SOON = 150.0
LIMITS = GraderLimits(start=300, answer=100, verdict=100)
CUSTOM = """
import os, time
def score(completion, ground_truth):
    with open(os.path.join(os.path.dirname(__file__), "graded"), "a") as log:
        log.write(completion + "\\n")
    word, _, seconds = completion.partition(" ")
    time.sleep(float(seconds or 0))
    return word == ground_truth
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes, to which RAY_ADDRESS points."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = made.address
    ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
    yield made
    ray.shutdown()
    made.shutdown()
    if before is None:
        del os.environ["RAY_ADDRESS"]
    else:
        os.environ["RAY_ADDRESS"] = before


@pytest.fixture(scope="module")
def pool(cluster: Cluster) -> Iterator[RayWorkers]:
    made = RayWorkers(2, deadline=2.0, limits=LIMITS)
    until(lambda: len(made.pids()) == 2)
    yield made
    made.close()


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A verifier in a file of the user, named by its place below the working folder."""
    (tmp_path / "mine.py").write_text(CUSTOM)
    monkeypatch.chdir(tmp_path)
    return "mine.py:score"


def until(reached: Any) -> None:
    deadline = time.monotonic() + SOON
    while not reached():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def grade(pool: RayWorkers, name: str, completions: list[str]) -> list[Verdict]:
    """By a grader without a cache of earlier tests."""
    problems = [Problem(f"p{place}", [], (), "7", (name,)) for place in range(len(completions))]
    return Grader(pool=pool).grade(list(zip(completions, problems, strict=True)))


def beside(pool: RayWorkers, name: str, completions: list[str]) -> tuple[threading.Thread, list[Verdict]]:
    """Grade in a thread."""
    verdicts: list[Verdict] = []
    thread = threading.Thread(target=lambda: verdicts.extend(grade(pool, name, completions)))
    thread.start()
    return thread, verdicts


def nodes(pool: RayWorkers) -> list[str]:
    """On which node each grader is."""
    calls = [m._actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for m in pool.members]
    return list(ray.get(calls, timeout=SOON))


def test_graders_on_two_nodes_say_what_this_machine_says(pool: RayWorkers, name: str) -> None:
    assert len(set(nodes(pool))) == 2
    answers = [rf"\boxed{{\frac{{{n}}}{{2}}+x}}" for n in range(8)]
    items = [(text, Problem(str(n), [], (), r"\frac{3}{2}+x", ("math",))) for n, text in enumerate(answers)]
    items += [(word, Problem(word, [], (), "7", (name,))) for word in ("7", "8")]
    items += [("it is 18", Problem("sum", [], (), "18", ("gsm8k",)))]
    with Grader(2, deadline=60.0) as here:
        expected = here.grade(items)
    assert [verdict.score for verdict in expected].count(1.0) == 3
    assert Grader(pool=pool).grade(items) == expected


def test_what_hangs_while_it_is_graded_is_masked_alone(pool: RayWorkers, name: str) -> None:
    completions = [str(n % 10) for n in range(60)]
    completions[17] = "7 60"
    verdicts = grade(pool, name, completions)
    assert (verdicts[17].status, verdicts[17].detail) == ("timeout", "no verdict within 2 s")
    others = [verdict.score for place, verdict in enumerate(verdicts) if place != 17]
    assert others == [float(word == "7") for word in completions if word != "7 60"]


def test_what_a_killed_grader_had_is_graded_again_and_nothing_counts_twice(
    pool: RayWorkers, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    completions = [f"{7 if n % 3 else 8}{'x' * (n % 2 + n)} 0.15" for n in range(20)] + ["7 0.15"]
    thread, verdicts = beside(pool, name, completions)
    until(lambda: (tmp_path / "graded").exists() and len((tmp_path / "graded").read_text().splitlines()) > 4)
    owed = len(pool.members[0].held)
    os.kill(pool.pids()[0], signal.SIGKILL)
    thread.join(SOON)
    assert [verdict.score for verdict in verdicts] == [0.0] * 20 + [1.0]
    assert "grader-1 failed: its process died" in caplog.text
    times = Counter((tmp_path / "graded").read_text().splitlines())
    assert set(times) == set(completions)
    assert sum(count - 1 for count in times.values()) <= owed, "only what it had not answered"
    until(lambda: len(pool.pids()) == 2)


def test_a_grader_that_hangs_is_told_by_name_and_what_it_had_is_masked(
    pool: RayWorkers, name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    member, stopped = pool.members[0], pool.pids()[0]
    asked = member._ear
    monkeypatch.setattr(member, "limits", replace(LIMITS, answer=3))
    # What it was asked before still has the time of then.
    until(lambda: member._ear is not asked)
    os.kill(stopped, signal.SIGSTOP)
    began = time.monotonic()
    verdicts = grade(pool, name, [f"7{'y' * n} 0.05" for n in range(40)])
    assert time.monotonic() - began < LIMITS.answer / 2
    masked = [verdict for verdict in verdicts if verdict.score is None]
    assert 0 < len(masked) < 20, "what it was given in advance, and not half of all"
    assert {verdict.status for verdict in masked} == {"timeout"}
    assert all(verdict.detail.startswith("grader-1: it hangs: it has been ") for verdict in masked)
    assert f"its {len(masked)} cases are masked" in caplog.text
    until(lambda: len(pool.pids()) == 2 and stopped not in pool.pids())
    assert {verdict.score for verdict in grade(pool, name, ["7"] * 8)} == {1.0}


def test_graders_that_cannot_start_are_told_with_every_verdict(
    cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unlucky(GradingNode):
        async def start(self) -> int:
            raise OSError("no libraries on this node")

    monkeypatch.setattr("tulu.rollout.grader_member.MOST_FAILURES", 0)
    monkeypatch.delenv("RAY_ADDRESS")
    made = RayWorkers(1, limits=LIMITS, actor=Unlucky)
    try:
        (verdict,) = grade(made, name, ["7"])
    finally:
        made.close()
    assert verdict.status == "error"
    assert "no grader is left (grader-1: it failed (OSError: " in verdict.detail
    assert "no libraries on this node" in verdict.detail


def test_a_case_that_kills_graders_is_given_up(cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fragile(GradingNode):
        async def submit(self, cases: Any) -> None:
            if any(one.case.completion == "poison" for one in cases):
                os._exit(1)
            await super().submit(cases)

    monkeypatch.setattr(graders, "MOST_DEATHS", 2)
    monkeypatch.setattr(graders, "AHEAD_SECONDS", 0.0)
    monkeypatch.delenv("RAY_ADDRESS")
    made = RayWorkers(1, limits=LIMITS, actor=Fragile)
    try:
        poisoned, right = grade(made, name, ["poison"])[0], grade(made, name, ["7"])[0]
    finally:
        made.close()
    assert poisoned.detail.startswith("2 graders died with it (grader-1: its process died")
    assert right.score == 1.0


def test_closing_leaves_no_caller_waiting(cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    made = RayWorkers(1, limits=LIMITS)
    thread, verdicts = beside(made, name, ["7 1.5"])
    until(lambda: made.members[0].held)
    pid = made.pids()[0]
    made.close()
    thread.join(SOON)
    assert [verdict.detail for verdict in verdicts] == ["the grader was closed"]
    until(lambda: not Path(f"/proc/{pid}").exists())
