"""The stream over engines that work beside the learner: how old, how many, how long, and what becomes of what never ends."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.rollout.fakes import ByPosition, FakeFleet, Hands, Looks, Numbers, heavy_tailed, make_problems, rlvr_stage, teaches
from tests.rollout.scripted import ScriptedEngine, ScriptedGrader
from tulu.config.schema import Rlvr
from tulu.errors import EngineError, TuluError
from tulu.grading.grader import Scores
from tulu.model.parallel import Parallel
from tulu.rollout.draws import Queue
from tulu.rollout.fleet import Fleet
from tulu.rollout.journal import StreamLog
from tulu.rollout.local_fleet import LocalFleet
from tulu.rollout.sampler import RolloutGrader, StepRollouts
from tulu.rollout.status import Status
from tulu.rollout.stream import Stream
from tulu.rollout.team import Team
from tulu.types import Problem, Verdict

WEIGHTS = [("w", torch.zeros(1))]


@contextmanager
def streaming(
    fleet: Fleet,
    folder: Path,
    stage: Rlvr,
    steps: int,
    grader: Scores | None = None,
    status: Status | None = None,
    reward_model: Scores | None = None,
) -> Iterator[Stream]:
    """The stream of a run from its beginning, or from where the folder's journal says that an earlier one was."""
    verifiers = grader or ByPosition(stage.samples)
    rollout_grader = RolloutGrader(verifiers, cast(Any, Numbers()), make_problems(40), stage, reward_model)
    queue = Queue.of(stage, steps, 40)
    made = Stream(fleet, rollout_grader, Team(Parallel(stage)), queue, StreamLog(folder), status or Status())
    with closing(made):
        made.sync(iter(WEIGHTS), 0)
        made.resume({})
        yield made


def steps_of(stream: Stream, count: int, train: Callable[[int], None] = lambda _: None) -> list[StepRollouts]:
    """So many steps, each of which `train` takes some time for."""
    found = []
    for _ in range(count):
        found.append(stream.take())
        train(stream.queue.step)
        stream.sync(iter(WEIGHTS), stream.queue.step + 1)
    return found


def until(reached: Callable[[], bool]) -> None:
    """Wait for what must come."""
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def trained_lengths(rollouts: Sequence[StepRollouts]) -> list[int]:
    return [
        len(completion.tokens)
        for step in rollouts
        for rollout in step.trained
        if teaches(rollout.problem.id)
        for completion in rollout.group.completions
    ]


@pytest.mark.parametrize("max_staleness", [0, 1, 4])
def test_heavy_tails_beside_a_learner(max_staleness: int, tmp_path: Path) -> None:
    fleet = FakeFleet(heavy_tailed, token_seconds=2e-3 if max_staleness else 2e-4)
    stage = rlvr_stage(max_staleness=max_staleness, prompts=4, samples=4)
    with streaming(fleet, tmp_path, stage, 12) as stream:
        found = steps_of(stream, 12, lambda _: time.sleep(0.02))
    assert {len(step.trained) for step in found} == {4}
    trained = sorted(position for step in found for position in (int(one.problem.id[1:]) for one in step.trained))
    assert len(trained) == 48
    assert sorted(request.key for request in fleet.submitted) == sorted(
        f"{position}:{sample}" for position in range(stream.queue.drawn) for sample in range(4)
    ), "each completion is asked for once"
    untrained = set(stream.queue.records)
    asked = [one for one in fleet.submitted if teaches(one.problem_id) and int(one.key.split(":")[0]) not in untrained]
    assert sorted(trained_lengths(found)) == sorted(map(fleet.length, asked)), "whatever the engines were asked for, however long"
    for number, step in enumerate(found):
        for rollout in step.trained:
            for completion in rollout.group.completions:
                versions = [version for _, version in completion.versions]
                assert versions == sorted(set(versions)), "every span of tokens names its weights"
                assert number - max_staleness <= versions[0] <= versions[-1] <= number
    if max_staleness:
        spans = [len(part.versions) for step in found for one in step.trained for part in one.group.completions]
        assert max(spans) > 1, "a completion went on while the weights changed"


def test_engines_rest_from_when_a_step_is_taken_until_the_next_weights(tmp_path: Path) -> None:
    """No process of the learner is released to train before the engines gave their memory back."""
    fleet = FakeFleet(token_seconds=1e-4)
    with streaming(fleet, tmp_path, rlvr_stage(prompts=4, samples=4), 2) as stream:
        release, rested = stream.team.release, []

        def watched(parts: Sequence[Any]) -> Any:
            rested.append(fleet.rested)
            return release(parts)

        stream.team.release = watched  # type: ignore[method-assign]
        steps_of(stream, 2)
    assert rested == [1, 2]


def test_what_is_trained_does_not_depend_on_the_speed_of_engines_on_policy(tmp_path: Path) -> None:
    """Token by token, whichever engine was faster."""
    found = []
    for name, speed, slots in (("a", 0.0, 8), ("b", 3e-4, 3)):
        with streaming(FakeFleet(heavy_tailed, 2, slots, speed), tmp_path / name, rlvr_stage(), 5) as stream:
            steps = steps_of(stream, 5)
        found.append(
            [(one.problem.id, [part.tokens for part in one.group.completions]) for step in steps for one in step.trained]
        )
    assert found[0] == found[1]


def test_a_second_session_samples_and_grades_only_what_is_missing(tmp_path: Path) -> None:
    stage = rlvr_stage(prompts=4, samples=2, refill=False)
    first, grader = FakeFleet(), ByPosition(2)
    first.deaf = lambda request: request.key == "2:1"
    with streaming(first, tmp_path, stage, 1, grader) as stream:
        until(lambda: stream.depths() == {"drawn": 0, "sampling": 1, "sampled": 0, "graded": 3})
    assert grader.asked == 6
    second, again = FakeFleet(), ByPosition(2)
    with streaming(second, tmp_path, stage, 1, again) as stream:
        [step] = steps_of(stream, 1)
    assert [request.key for request in second.submitted] == ["2:1"]
    assert again.asked == 2, "the group that was not graded yet"
    assert [len(rollout.group.completions) for rollout in step.trained] == [2] * 4


def test_a_late_rollout_is_sent_again_and_at_last_given_up_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tulu")
    fleet = FakeFleet()
    fleet.deaf = lambda request: request.key == "1:0"
    stage = rlvr_stage(prompts=2, samples=4, rollout_seconds=0.05, refill=False)
    with streaming(fleet, tmp_path, stage, 1) as stream:
        [step] = steps_of(stream, 1)
        assert stream.figures(1.0, 0.5)["sent_again"] == 2
    assert [request.key for request in fleet.submitted].count("1:0") == 3
    [slow] = [rollout for rollout in step.trained if rollout.grades[0].fault is not None]
    assert slow.grades[0].verdict == Verdict(None, "timeout", "no engine finished it (3 times in 0.05 s)")
    assert slow.rewards[0] != slow.rewards[0], "it is masked, and no wrong answer"
    assert len(slow.to_train(mask_truncated=False).group.completions) == 3
    assert f"{slow.problem.id}, sample 1 of 4: no engine finishes it" in caplog.text


def test_a_slow_rollout_keeps_its_tokens_and_is_not_given_up_while_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 tokens in 10 ms each pass the deadline of 50 ms ten times or so; every time it goes on behind what it has."""
    # Engines and deadlines go by one clock.
    clock = Looks()
    monkeypatch.setattr("tulu.deadlines.now", clock)
    fleet = FakeFleet(lambda request: 60, token_seconds=0.01, clock=clock)
    with streaming(fleet, tmp_path, rlvr_stage(prompts=1, samples=2, rollout_seconds=0.05, refill=False), 1) as stream:
        [step] = steps_of(stream, 1)
    assert len(fleet.submitted) > 4
    begun = [len(request.begun.tokens) for request in fleet.submitted if request.begun]
    assert max(begun, default=0) >= 10
    assert [len(part.tokens) for part in step.trained[0].group.completions] == [60, 60]
    assert all(one.fault is None for one in step.trained[0].grades)


def test_requests_of_a_dead_engine_go_to_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hands = Hands()
    fleet = FakeFleet(lambda request: 30, token_seconds=0.02, clock=hands)
    with streaming(fleet, tmp_path, rlvr_stage(prompts=4, samples=4, refill=False), 1) as stream:
        until(lambda: len(fleet.submitted) == 16)
        hands.at += 0.3
        with stream._alone():
            fleet.kill("fake-0")
        hands.at += 1.0
        until(lambda: len(fleet.submitted) > 16)
        hands.at += 1.0
        [step] = steps_of(stream, 1)
    assert sum(len(rollout.group.completions) for rollout in step.trained) == 16
    assert len(fleet.submitted) > 16
    assert "rollouts come back unfinished and are sampled further: its process died on fake-0" in caplog.text


def test_a_prompt_that_kills_every_engine_is_given_up_alone(tmp_path: Path) -> None:
    """What an engine works on beside it is lost with it some times, and then sampled while it is not."""

    class Poisoned(FakeFleet):
        def collect(self, timeout: float) -> list[Any]:
            for one in [one for one in self.running.values() if one.request.key == "1:0"]:
                self.kill(one.engine)
            return super().collect(timeout)

    with streaming(Poisoned(engines=1), tmp_path, rlvr_stage(prompts=4, samples=2, refill=False), 1) as stream:
        [step] = steps_of(stream, 1)
    faults = [one.fault and one.fault.detail for rollout in step.trained for one in rollout.grades]
    assert faults == [None, None, "no engine finished it (on 10 engines: its process died)", *[None] * 5]


class Failing:
    """A grader whose verifier always fails."""

    def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        return [Verdict(None, "error", "no route to host") for _ in items]


class Broken:
    """A grader that raises."""

    def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        raise EngineError("the grader is broken")


@pytest.mark.parametrize(
    ("grader", "expected"), [(Failing(), "8 of 8 completions, 8 times with error: no route"), (Broken(), "the grader is broken")]
)
@pytest.mark.parametrize("max_staleness", [0, 2])
def test_what_fails_beside_the_learner_is_told_where_it_waits(
    grader: Scores, expected: str, max_staleness: int, tmp_path: Path
) -> None:
    stage = rlvr_stage(prompts=4, samples=2, max_staleness=max_staleness)
    with streaming(FakeFleet(), tmp_path, stage, 2, grader) as stream, pytest.raises(TuluError, match=expected):
        stream.take()
    assert "stream" not in {thread.name for thread in threading.enumerate()}


def test_slow_grading_does_not_keep_engines_waiting(tmp_path: Path) -> None:
    class Blocked(ByPosition):
        go = threading.Event()

        def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
            assert self.go.wait(60)
            return super().grade(items)

    fleet, grader = FakeFleet(lambda request: 5, slots=4, token_seconds=0.002), Blocked(2)
    with streaming(fleet, tmp_path, rlvr_stage(max_staleness=2, prompts=4, samples=2, refill=False), 6, grader) as stream:
        # All that may run ahead is sampled while no group is graded.
        until(lambda: len(fleet.submitted) == 24 and not fleet.running)
        assert stream.depths()["graded"] == grader.asked == 0
        grader.go.set()
        stream.take()


class Lengths:
    """A reward model whose score is the number of tokens; it remembers from which thread it was asked."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        self.threads.add(threading.current_thread().name)
        return [Verdict(float(problem.row["completion_tokens"])) for _, problem in items]


def test_a_reward_model_scores_where_the_learner_waits(tmp_path: Path) -> None:
    """It stands on the learner's device, so that it does not work while the learner does; verifiers do."""
    stage = rlvr_stage(prompts=3, samples=2, max_staleness=1, reward_model={"path": "rm", "weight": 2.0}, refill=False)
    judge = Lengths()
    with streaming(FakeFleet(), tmp_path, stage, 4, reward_model=judge) as stream:
        found = steps_of(stream, 4)
    assert judge.threads == {threading.current_thread().name}
    for step in found:
        for rollout in step.trained:
            verdicts = [float(teaches(rollout.problem.id)), 0.0]
            tokens = [len(completion.tokens) for completion in rollout.group.completions]
            assert rollout.rewards == tuple(right + 2 * count for right, count in zip(verdicts, tokens, strict=True))


def test_an_engine_in_the_process_of_the_learner_runs_ahead_too(tmp_path: Path) -> None:
    """It samples (max_staleness + 1) steps' prompts before the first step, and then one step's before each."""
    engine = ScriptedEngine(lambda problem, asked: "rw")
    stage = rlvr_stage(prompts=2, samples=2, max_staleness=2, refill=False)
    with streaming(LocalFleet(engine), tmp_path, stage, 5, ScriptedGrader()) as stream:
        found = steps_of(stream, 5)
    assert [len(names) for names, _ in engine.calls] == [6, 2, 2]
    assert {len(step.trained) for step in found} == {2}


def noted(team: Team) -> list[str]:
    """The jobs that a team runs from now on, by name."""
    asked, run = list[str](), team.run

    def note(job: str, items: Sequence[Any], *how: Any) -> list[Any]:
        asked.append(job)
        return run(job, items, *how)

    team.run = note  # type: ignore[method-assign]
    return asked


def test_graders_elsewhere_are_asked_by_the_main_process_and_the_reward_model_by_all(tmp_path: Path) -> None:
    """Both ways lead to the same rewards; only the main process is connected to a cluster."""
    found = []
    for name, resources in (("here", {}), ("elsewhere", {"graders": 2})):
        stage = rlvr_stage(prompts=3, samples=2, reward_model={"path": "rm"}, refill=False, resources=resources)
        engine = ScriptedEngine(lambda problem, asked: "rw")
        with streaming(LocalFleet(engine), tmp_path / name, stage, 2, ScriptedGrader(), reward_model=Lengths()) as stream:
            asked = noted(stream.team)
            found.append([rollout.rewards for step in steps_of(stream, 2) for rollout in step.trained])
        assert ("grade" in asked, "prefer" in asked) == (name == "here", name == "elsewhere")
    assert found[0] == found[1]


def test_a_stale_engine_is_told(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda problem, asked: "rw")
    with streaming(LocalFleet(engine), tmp_path, rlvr_stage(prompts=2), 1) as stream:
        engine.version = -1
        with pytest.raises(EngineError, match="the rollout engine is stale"):
            stream.take()
