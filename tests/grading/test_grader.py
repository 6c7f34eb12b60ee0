import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tulu.errors import DataError, RecipeError
from tulu.grading.grader import Grader
from tulu.types import Problem, Verdict
from tulu.verifiers.contract import Case, grade_safely
from tulu.verifiers.registry import find

CUSTOM_VERIFIER = """
import os, signal, sys, time

MARK = __file__ + ".mark"

def score(completion, ground_truth):
    if completion == "slow":
        time.sleep(60)
    if completion == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if completion == "print":
        print("noise on standard output")
    if completion == "memory":
        return len(bytearray(1 << 34))
    if completion == "torch":
        return "torch" in sys.modules or "transformers" in sys.modules
    if "exit" in (completion, ground_truth):
        sys.exit(3)
    if "raise" in (completion, ground_truth):
        raise ValueError("no verdict")
    if "compute" in (completion, ground_truth):
        while True:
            pass
    while completion == "compute and catch":
        try:
            sum(range(1 << 20))
        except Exception:
            pass
    if ground_truth == "nothing":
        return None
    if completion == "machine once" and not os.path.exists(MARK):
        open(MARK, "w").close()
        raise OSError("busy")
    if completion == "pid":
        return os.getpid()
    return float(completion == ground_truth)
"""
SYMBOLIC = [
    (r"\boxed{e^{900}+\sqrt2-e^{900}}", r"\sqrt2", 1.0),
    (r"\boxed{e^{900}+\pi x-e^{900}}", r"\pi x", 1.0),
    (r"\boxed{e^{900}+\sqrt2-e^{900}}", r"\sqrt3", 0.0),
    ("5", "5", 1.0),
]
"""The first three need a precision that is computed with in a process only, the last does not."""

COSTLY = r"\boxed{" + "+".join(rf"\arctan(\ln {n})" for n in range(2, 28)) + r"+x\tan(\pi/2)}"
"""Whether the last term has a value stays open at every precision, and each costs more than the one before."""


def problem(gold: Any, *names: str, **row: Any) -> Problem:
    return Problem("rows.jsonl:1", [{"role": "user", "content": "how much?"}], [], gold, names, row)


@pytest.fixture
def grader() -> Iterator[Grader]:
    with Grader(2, deadline=6.0) as shared:
        yield shared


@pytest.fixture
def custom(tmp_path: Path) -> str:
    file = tmp_path / "custom.py"
    file.write_text(CUSTOM_VERIFIER)
    return f"{file}:score"


def scores(verdicts: list[Verdict]) -> list[float | None]:
    return [verdict.score for verdict in verdicts]


def test_cheap_verifiers_start_no_process(grader: Grader) -> None:
    items = [("18", problem("18", "gsm8k")), ("x", problem("x", "exact")), (r"\boxed{\frac12}", problem("0.5", "math"))]
    assert scores(grader.grade(items)) == [1, 1, 1]
    assert grader.pids() == []


def test_order_is_kept_and_repeats_are_computed_once(grader: Grader) -> None:
    items = [(completion, problem(gold, "math")) for completion, gold, _ in SYMBOLIC] * 50
    assert scores(grader.grade(items)) == [score for _, _, score in SYMBOLIC] * 50
    # Three symbolic answers went to a process and their repeats came from the cache; 5 = 5 never needed a process.
    assert len(grader.seconds) == 3 + 50


def test_everywhere_the_same(grader: Grader) -> None:
    items = [(completion, problem(gold, "math")) for completion, gold, _ in SYMBOLIC]
    expected = [score for _, _, score in SYMBOLIC]
    with ThreadPoolExecutor(4) as threads:
        assert [scores(verdicts) for verdicts in threads.map(grader.grade, [items] * 8)] == [expected] * 8

    async def both() -> list[list[Verdict]]:
        return list(await asyncio.gather(grader.grade_async(items), grader.grade_async(items)))

    assert [scores(verdicts) for verdicts in asyncio.run(both())] == [expected] * 2


def test_a_slow_verdict_is_killed_and_delays_nobody(custom: str) -> None:
    with Grader(2, deadline=1.0) as grader:
        grader.grade([("warm", problem("warm", custom)), ("warmer", problem("warmer", custom))])
        began = time.monotonic()
        verdicts = grader.grade([("slow", problem("x", custom))] + [(str(n), problem("7", custom)) for n in range(20)])
        assert time.monotonic() - began < 30.0
    assert verdicts[0].status == "timeout"
    assert scores(verdicts[1:]) == [float(n == 7) for n in range(20)]


def test_a_dying_worker_costs_its_own_verdict_only(grader: Grader, custom: str) -> None:
    verdicts = grader.grade([("die", problem("x", custom)), ("x", problem("x", custom)), ("print", problem("print", custom))])
    assert verdicts[0].status == "error"
    assert "died" in verdicts[0].detail
    assert scores(verdicts[1:]) == [1, 1]


@pytest.mark.parametrize("completion", ["memory", "exit", "raise", "machine once"])
def test_what_an_answer_causes_scores_0(grader: Grader, custom: str, completion: str) -> None:
    assert grader.grade([(completion, problem("x", custom))])[0].score == 0
    assert grader.grade([("x", problem("x", custom))])[0].score == 1


@pytest.mark.parametrize("gold", ["raise", "exit", "compute", "nothing"])
def test_what_the_gold_or_the_verifier_causes_is_masked(custom: str, gold: str) -> None:
    with Grader(2, deadline=2.0) as grader:
        assert {verdict.score for verdict in grader.grade([("x", problem(gold, custom)), ("y", problem(gold, custom))])} == {None}
        assert grader.grade([("x", problem("x", custom))])[0].score == 1


def test_an_answer_that_computes_without_end_scores_0_where_no_limit_is_named(custom: str) -> None:
    # A busy machine may not grant the seconds of CPU within a short deadline.
    with Grader(2, deadline=60.0) as grader:
        verdicts = grader.grade([("compute", problem("x", custom)), ("compute and catch", problem("x", custom))])
    assert scores(verdicts) == [0, 0]


def test_mode_tulu3_masks_what_open_instruct_fails_on(custom: str) -> None:
    assert grade_safely(find(custom).strict, Case("raise", "x")).score == 0
    assert grade_safely(find(custom).strict, Case("raise", "x"), traced=False).status == "error"


def test_a_worker_killed_from_outside_is_replaced(grader: Grader, custom: str) -> None:
    first = grader.grade([("pid", problem("x", custom))])[0].score
    assert first is not None
    os.kill(int(first), signal.SIGKILL)
    assert grader.grade([("x", problem("x", custom))])[0].score == 1


def test_a_stopped_worker_is_a_timeout(custom: str) -> None:
    with Grader(1, deadline=1.0) as grader:
        pid = grader.grade([("pid", problem("x", custom))])[0].score
        assert pid is not None
        os.kill(int(pid), signal.SIGSTOP)
        assert grader.grade([("x", problem("x", custom))])[0].status == "timeout"
        assert grader.grade([("x", problem("x", custom))])[0].score == 1


def test_workers_import_no_torch(grader: Grader, custom: str) -> None:
    assert grader.grade([("torch", problem("x", custom))])[0].score == 0


def test_an_answer_that_eats_cpu_scores_0() -> None:
    # A busy machine may not grant two seconds of CPU within six.
    with Grader(1, deadline=60.0) as grader:
        verdict = grader.grade([(COSTLY, problem("x+7", "math"))])[0]
    assert verdict.score == 0
    assert "CPU" in verdict.detail


def test_a_verdict_cut_short_spoils_none_after_it() -> None:
    right = [(rf"\boxed{{e^{{900}}+\sqrt{n}-e^{{900}}}}", problem(rf"\sqrt{n}", "math")) for n in range(2, 8)]
    costly = (COSTLY, problem("x+7", "math"))
    with Grader(1, deadline=60.0) as grader:
        verdicts = grader.grade([right[0], costly, *right[1:3], costly, *right[3:]])
    assert [verdict.status for verdict in verdicts] == ["ok"] * 8
    assert scores(verdicts) == [1, 0, 1, 1, 0, 1, 1, 1]


def test_several_verifiers_are_summed_with_their_weights(grader: Grader) -> None:
    both = problem(["18", "it is 18"], "gsm8k", "exact")
    assert grader.grade([("it is 18", both), ("18", both)]) == [
        Verdict(2.0, detail="gsm8k: answer 18; exact: answer it is 18"),
        Verdict(1.0, detail="gsm8k: answer 18; exact: answer 18"),
    ]
    weighted = problem(["18", "it is 18"], "gsm8k", "exact", weights=[1.0, 0.25])
    [verdict] = grader.grade([("it is 18", weighted)])
    assert verdict.score == 1.25
    assert [(name, part.score) for name, part in verdict.parts] == [("gsm8k", 1.0), ("exact", 1.0)], "each before its weight"


def test_thinking_is_graded_only_where_the_row_asks_for_it(grader: Grader) -> None:
    items = [("<think>18</think> so", problem("18", "gsm8k", **fields)) for fields in ({}, {"grade_thinking": True})]
    assert scores(grader.grade(items)) == [0, 1]


def test_one_verifier_that_cannot_judge_masks_the_sum(grader: Grader) -> None:
    [verdict] = grader.grade([("18", problem(["18", "no number"], "gsm8k", "gsm8k"))])
    assert verdict.status == "error"
    assert [part.score for _, part in verdict.parts] == [1.0, None]


def test_wrong_problems_are_told(grader: Grader) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:1: 2 verifiers"):
        grader.grade([("18", problem("18", "gsm8k", "exact"))])
    with pytest.raises(RecipeError, match="unknown"):
        grader.grade([("18", problem("18", "gsm9k"))])


def test_mode_tulu3_is_upstreams() -> None:
    with Grader(1, mode="tulu3") as grader:
        assert scores(grader.grade([("42.0", problem("42", "gsm8k")), (r"\boxed{x+1}", problem("1+x", "math"))])) == [0, 0]


def test_closing_leaves_no_process_and_no_caller_waiting(custom: str) -> None:
    grader = Grader(1, deadline=30.0)
    verdicts: list[Verdict] = []
    caller = threading.Thread(target=lambda: verdicts.extend(grader.grade([("slow", problem("x", custom))])))
    caller.start()
    while not grader.pids():
        time.sleep(0.01)
    pid = grader.pids()[0]
    grader.close()
    caller.join(60.0)
    assert verdicts[0].status == "error"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
