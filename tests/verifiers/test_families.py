"""What holds for every family: the same verdict everywhere, and nothing that a completion says brings it down."""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.verifiers.families import FAMILIES, PROGRAMS, hostile, hostile_program, problem
from tulu.errors import RecipeError
from tulu.grading.grader import Grader
from tulu.types import Verdict
from tulu.verifiers.code import sandbox
from tulu.verifiers.registry import VERIFIERS

COUNT = int(os.environ.get("TULU_FUZZ", "300"))
"""Completions per family; the full measure is 20,000."""
PROGRAM_COUNT = int(os.environ.get("TULU_FUZZ_PROGRAMS", COUNT // 10))
"""The same for the two families that start a sandbox for each completion, and have to wait for endless loops."""
VERDICTS = int(os.environ.get("TULU_FUZZ_MEMORY", "3000"))
"""Verdicts over which memory must stay flat; the full measure is 100,000."""
PROGRAM_SECONDS = 60.0
"""What a verdict on a program may take with 0.1 s of CPU per test: four starts of a sandbox on a busy machine, and its limits."""
DEADLINE = 20.0
"""Longer than a grader's own, so that a machine busy with other tests is not taken for a slow verifier."""
ELSEWHERE = {"llm_judge", "rubric", "general-quality", "general-quality_ref", "reward_model", "reasoning_gym", "max_length"}
ELSEWHERE |= {"up_to_max_length", "string_matcher"}
"""Families that wait on a service, need another package or a token count, or are a second name: tested in files of their own."""


def families() -> list[str]:
    try:
        sandbox.require()
    except RecipeError:
        return list(FAMILIES)
    return [*FAMILIES, *PROGRAMS]


def items() -> list[tuple[str, str]]:
    known = {**FAMILIES, **PROGRAMS}
    return [(name, completion) for name in families() for completion in known[name][1:]]


def scores(grader: Grader) -> list[Verdict]:
    return grader.grade([(completion, problem(name)) for name, completion in items()])


def test_every_family_takes_part() -> None:
    assert set(FAMILIES) | set(PROGRAMS) | ELSEWHERE == set(VERIFIERS)


@pytest.fixture(scope="module")
def expected() -> list[Verdict]:
    verdicts = []
    for name, completion in items():
        gold = problem(name).ground_truth
        VERIFIERS[name].check(gold)
        verdicts.append(VERIFIERS[name](completion, gold, prompt="?"))
    assert [verdict.score for verdict in verdicts[::2]] == [1.0] * (len(verdicts) // 2)
    assert all((verdict.score or 0.0) < 1 for verdict in verdicts[1::2])
    return verdicts


def test_main_thread_pool_and_event_loop_agree(expected: list[Verdict]) -> None:
    with Grader(2) as grader:
        assert scores(grader) == expected
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(lambda _: scores(grader), range(4))) == [expected] * 4

        async def twice() -> list[list[Verdict]]:
            batch = [(completion, problem(name)) for name, completion in items()]
            return list(await asyncio.gather(grader.grade_async(batch), grader.grade_async(batch)))

        assert asyncio.run(twice()) == [expected] * 2


def test_ray_tasks_and_actors_agree(expected: list[Verdict], tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    root = str(Path(__file__).parents[2])
    # A test before this one may have left a Ray of other settings behind.
    ray.shutdown()
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": root}}
    )
    try:

        def graded() -> list[Verdict]:
            with Grader(1) as grader:
                return scores(grader)

        class Actor:
            def __init__(self) -> None:
                self.grader = Grader(1)

            def graded(self) -> list[Verdict]:
                return scores(self.grader)

        assert ray.get(ray.remote(graded).remote()) == expected
        actor = ray.remote(max_concurrency=2)(Actor).remote()
        assert ray.get([actor.graded.remote(), actor.graded.remote()]) == [expected] * 2
    finally:
        ray.shutdown()


@pytest.mark.parametrize("name", list(FAMILIES))
def test_nothing_brings_it_down(name: str) -> None:
    case = problem(name)
    with Grader(2, deadline=DEADLINE) as grader:
        grader.grade([("x", case)])
        for start in range(0, COUNT, 100):
            batch = [(hostile(seed), case) for seed in range(start, min(COUNT, start + 100))]
            began = time.monotonic()
            verdicts = grader.grade(batch)
            assert len(verdicts) == len(batch)
            assert all(verdict.status == "ok" for verdict in verdicts), [
                (seed, verdict) for seed, verdict in zip(range(start, COUNT), verdicts, strict=False) if verdict.status != "ok"
            ]
            assert max(grader.seconds) < 2 * DEADLINE
            assert time.monotonic() - began < 100 * DEADLINE
        assert max(verdict.score or 0.0 for verdict in verdicts) <= 1.0


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_no_program_brings_it_down(name: str) -> None:
    if name not in families():
        pytest.skip("no sandbox here")
    case = problem(name)
    case = replace(case, ground_truth={"tests": case.ground_truth, "time_limit": 0.1})
    with Grader(2) as grader:
        for start in range(0, PROGRAM_COUNT, 100):
            seeds = range(start, min(PROGRAM_COUNT, start + 100))
            verdicts = grader.grade([(hostile_program(seed), case) for seed in seeds])
            assert [(seed, verdict) for seed, verdict in zip(seeds, verdicts, strict=True) if verdict.status != "ok"] == []
            assert max(grader.seconds) < PROGRAM_SECONDS


def resident(pids: list[int]) -> int:
    """Kilobytes held by this process and its workers."""
    total = 0
    for pid in [os.getpid(), *pids]:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            total += int(line.split()[1]) if line.startswith("VmRSS") else 0
    return total


def test_memory_stays_flat() -> None:
    names = [name for name in FAMILIES if name not in ("sql", "calmscore")]
    with Grader(1) as grader:

        def run(start: int, count: int) -> None:
            for first in range(start, start + count, 500):
                seeds = range(first, min(start + count, first + 500))
                grader.grade([(hostile(seed % 997) + str(seed), problem(names[seed % len(names)])) for seed in seeds])

        run(0, VERDICTS // 2)
        before = resident(grader.pids())
        run(VERDICTS // 2, VERDICTS // 2)
        assert resident(grader.pids()) - before < 60_000
