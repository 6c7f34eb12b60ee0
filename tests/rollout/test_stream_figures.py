"""What a step says of itself: seconds in which the learner waited or worked, for whom, and many masked completions once."""

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from torch import Tensor

from tests.rollout.fakes import FakeFleet, Hands, Numbers, rlvr_stage
from tests.rollout.scripted import ScriptedEngine, ScriptedGrader, make_problems, stage
from tests.rollout.test_stream import steps_of, streaming, until
from tulu.model.parallel import Parallel
from tulu.rollout.draws import Queue
from tulu.rollout.fleet import SyncReport
from tulu.rollout.journal import StreamLog
from tulu.rollout.local_fleet import LocalFleet
from tulu.rollout.sampler import RolloutGrader
from tulu.rollout.status import Status
from tulu.rollout.stream import Stream
from tulu.rollout.team import Team


class SlowToSync(LocalFleet):
    """Engines that take new weights in a quarter of a second, most of it to load them."""

    hands = Hands()

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> SyncReport:
        self.hands.at += 0.25
        super().sync(weights, version)
        return SyncReport(version, seconds=0.25, parts={"load": 0.2})


def test_seconds_of_a_sync_are_no_work_and_many_masked_completions_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each step's 8 completions 2 time out; of its second a quarter is waited for rollouts, and as much for the sync."""
    caplog.set_level(logging.WARNING, "tulu")
    monkeypatch.setattr("tulu.rollout.stream.time", SimpleNamespace(monotonic=SlowToSync.hands))
    engine: Any = ScriptedEngine(lambda *_: "?rwr")
    settings = stage(prompts=2, samples=4, batch=8)
    grader = RolloutGrader(ScriptedGrader(), cast(Any, Numbers()), make_problems(3), settings)
    queue = Queue.of(settings, 3, 3)
    stream = Stream(SlowToSync(engine), grader, Team(Parallel(settings)), queue, StreamLog(tmp_path), Status())
    stream.sync(iter(()), 0)
    stream.resume({})
    for step in (1, 2):
        stream.take()
        stream.sync(iter(()), step)
        figures = stream.figures(1.0, 0.25)
        assert figures["masked"] == pytest.approx(2 / 8)
        assert (figures["sync_seconds"], figures["share_weight_sync"]) == (0.25, 0.25)
        assert (figures["learner_idle"], figures["sync/load"]) == (0.25, 0.2)
        trained = sum(rollout.group.n_tokens for rollout in stream.taken.rollouts.trained)
        assert figures["learner_tokens_per_second"] == pytest.approx(trained / 0.5)
    [told] = [record.message for record in caplog.records if "masked" in record.message]
    assert told.startswith("25% of a step's completions are masked")
    assert "the verifier exact failed on 2 of 8 completions, 2 times with timeout: 10 s. Check the verifier" in told
    stream.close()


def test_a_wait_says_for_whom(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tulu")
    fleet = FakeFleet()
    fleet.deaf = lambda request: request.key == "1:1"
    status = Status(tmp_path / "status.json", tell_after=0.2)
    with status, streaming(fleet, tmp_path, rlvr_stage(prompts=2, samples=2, refill=False), 1, status=status) as stream:

        def told() -> bool:
            names = [request.problem_id for request in fleet.submitted if request.key == "1:1"]
            oldest = f"the oldest is {names[0]} with 1 of 2 completions, 1 with" if names else "nothing is asked"
            return f"waiting for rollouts (1 sampling, 1 graded; {oldest}" in caplog.text

        def wait() -> None:
            try:
                # It is told again and again, and so when all else has come, too.
                until(told)
            finally:
                with stream._alone():
                    fleet.deaf = lambda _: False
                    for engine in fleet.names:
                        fleet.kill(engine)

        with ThreadPoolExecutor(1) as beside:
            waiting = beside.submit(wait)
            [step] = steps_of(stream, 1)
            waiting.result()
    assert all(one.fault is None for rollout in step.trained for one in rollout.grades)
