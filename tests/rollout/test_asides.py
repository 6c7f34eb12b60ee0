"""Answers of the run's engines beside the rollouts: neither is taken for the other, and what no engine ends is given up."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from tests.rollout.fakes import FakeFleet, heavy_tailed, rlvr_stage
from tests.rollout.scripted import ScriptedEngine
from tests.rollout.test_stream import WEIGHTS, streaming, until
from tulu.rollout.fleet import Request
from tulu.rollout.local_fleet import LocalFleet
from tulu.rollout.stream import Stream
from tulu.types import Completion, Problem, SamplingParams

GREEDY = SamplingParams(32, 0.0)
ASKED = [Problem(f"a{place}", (), [100 + place], "7", ("gsm8k",)) for place in range(5)]


def is_aside(request: Request) -> bool:
    return request.key.startswith("aside")


def trained(stream: Stream, steps: int, look: bool) -> tuple[list[Any], list[list[Completion | None]]]:
    """What so many steps train on, and what was answered after each."""
    found: list[Any] = []
    answers: list[list[Completion | None]] = []
    for _ in range(steps):
        step = stream.take()
        found.append([(one.problem.id, [list(part.tokens) for part in one.group.completions]) for one in step.trained])
        stream.sync(iter(WEIGHTS), stream.queue.step + 1)
        if look:
            answers.append(stream.answer(ASKED, GREEDY))
    return found, answers


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_rollouts_that_run_ahead_and_answers_are_never_mixed(max_staleness: int, tmp_path: Path) -> None:
    fleet = FakeFleet(heavy_tailed, engines=2, slots=3, token_seconds=2e-4)
    stage = rlvr_stage(max_staleness=max_staleness, refill=False)
    with streaming(fleet, tmp_path, stage, 6) as stream:
        found, answers = trained(stream, 6, look=True)
        versions = [{version for one in step if one is not None for _, version in one.versions} for step in answers]
    assert versions == [{step} for step in range(1, 7)], "each with the weights of its step alone"
    assert all(one is not None and len(one.tokens) <= 32 for step in answers for one in step)
    names = [name for step in found for name, _ in step]
    assert len(names) == len(set(names)) == 24
    assert all(name.startswith("p") for name in names)
    asides = [request for request in fleet.submitted if is_aside(request)]
    assert [request.problem_id for request in asides] == [problem.id for problem in ASKED] * 6
    assert len({request.key for request in fleet.submitted}) == len(fleet.submitted)
    if max_staleness == 0:
        with streaming(FakeFleet(heavy_tailed, 2, 3, 2e-4), tmp_path / "plain", stage, 6) as stream:
            assert trained(stream, 6, look=False)[0] == found, "what is trained is what it was without"


def test_an_engine_of_this_process_answers_in_a_call_of_its_own(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda problem, _: "r" if problem.id.startswith("a") else "rw")
    fleet = LocalFleet(cast(Any, engine))
    with streaming(fleet, tmp_path, rlvr_stage(samples=2), 2) as stream:
        stream.take()
        stream.sync(iter(WEIGHTS), 1)
        calls, drawn = len(engine.calls), stream.queue.drawn
        answers = stream.answer(ASKED, GREEDY)
        assert engine.calls[calls:] == [([problem.id for problem in ASKED], GREEDY)]
        assert [one and list(one.tokens)[:1] for one in answers] == [[ord("r")]] * 5
        assert stream.queue.drawn == drawn, "no prompt is drawn for it"
        stream.take()


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """Something that a thread does meanwhile, and that must succeed."""
    with ThreadPoolExecutor(1) as threads:
        doing = threads.submit(work)
        yield
        doing.result()


def test_what_an_engine_lost_is_asked_again_and_in_the_end_given_up(tmp_path: Path) -> None:
    """It dies once while it works on all, and twice more on the one that it never answers."""
    fleet = FakeFleet(lambda request: 8, engines=1, slots=20, token_seconds=5e-3)
    fleet.deaf = is_aside

    def open_asides() -> list[str]:
        return sorted(one.request.problem_id for one in list(fleet.running.values()) if is_aside(one.request))

    with streaming(fleet, tmp_path, rlvr_stage(), 4) as stream:

        def kill() -> None:
            for left in ([problem.id for problem in ASKED], ["a2"], ["a2"]):
                until(lambda left=left: open_asides() == left)  # type: ignore[misc]
                with stream._alone():
                    fleet.deaf = lambda request: request.problem_id == "a2"
                    fleet.kill("fake-0")

        stream.take()
        stream.sync(iter(WEIGHTS), 1)
        with beside(kill):
            answers = stream.answer(ASKED, GREEDY)
    assert [one is None for one in answers] == [False, False, True, False, False]
    assert [len(one.tokens) for one in answers if one is not None] == [8] * 4
    asked = [request.problem_id for request in fleet.submitted if is_aside(request)]
    assert [asked.count(problem.id) for problem in ASKED] == [2, 2, 3, 2, 2]


def test_an_engine_that_never_answers_ends_the_look_and_not_the_run(tmp_path: Path) -> None:
    fleet = FakeFleet(lambda request: 4, engines=1, slots=20)
    fleet.deaf = is_aside
    with streaming(fleet, tmp_path, rlvr_stage(), 3) as stream:
        stream.take()
        stream.sync(iter(WEIGHTS), 1)
        assert stream.pump is not None
        asides = stream.pump.dispatch.asides
        patience, asides.seconds = asides.seconds, 0.3
        assert stream.answer(ASKED, GREEDY) == [None] * 5
        fleet.deaf, asides.seconds = lambda _: False, patience
        stream.take()
        stream.sync(iter(WEIGHTS), 2)
        assert all(one is not None for one in stream.answer(ASKED, GREEDY))
        assert len(stream.take().trained) == 4


class Slow(dict[str, Request]):
    """Open requests, of which nothing is noted for a while after one was taken away."""

    def pop(self, *key: Any) -> Any:
        found = super().pop(*key)
        time.sleep(0.1)
        return found


def test_a_look_does_not_end_between_an_answer_and_its_note(tmp_path: Path) -> None:
    fleet = FakeFleet(lambda request: 4, engines=1, slots=20)
    with streaming(fleet, tmp_path, rlvr_stage(), 2) as stream:
        assert stream.pump is not None
        stream.pump.dispatch.asides._open = Slow()
        assert all(one is not None for one in stream.answer(ASKED[:1], GREEDY))


def test_a_long_look_says_for_what_it_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from tulu.rollout.status import Status

    caplog.set_level(logging.INFO, "tulu")
    fleet = FakeFleet(lambda request: 30, engines=1, slots=40)
    fleet.deaf = is_aside
    told = "waiting for the engines to answer 5 problems of a look since"
    with Status(tell_after=0.05) as status, streaming(fleet, tmp_path, rlvr_stage(), 2, status=status) as stream:
        stream.take()
        stream.sync(iter(WEIGHTS), 1)

        def wait() -> None:
            try:
                until(lambda: told in caplog.text)
            finally:
                with stream._alone():
                    fleet.deaf = lambda _: False
                    fleet.kill("fake-0")

        with beside(wait):
            assert all(one is not None for one in stream.answer(ASKED, GREEDY))


def test_more_problems_than_engines_have_at_a_time_are_sent_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tulu.rollout.asides.MOST_OPEN", 3)
    most = [0]

    class Counting(FakeFleet):
        def submit(self, requests: Sequence[Request]) -> None:
            super().submit(requests)
            most[0] = max(most[0], sum(is_aside(one.request) for one in self.running.values()))

    with streaming(Counting(lambda request: 4, slots=40), tmp_path, rlvr_stage(), 2) as stream:
        problems = [Problem(f"a{place}", (), [place], "7", ("gsm8k",)) for place in range(11)]
        assert all(one is not None for one in stream.answer(problems, GREEDY))
    assert most[0] == 3
