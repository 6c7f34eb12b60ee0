"""The simulation of `tulu plan` beside the real stream of rollouts, both in a time that passes only where everybody sleeps."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks import stream
from benchmarks.sleeping_fleet import SleepingFleet
from benchmarks.stream import Measured, in_turn, loop_of, main, measure, predict
from benchmarks.stream_case import WEIGHTS, Case, streaming
from tests.benchmarks.virtual_time import VirtualClock
from tests.config.test_simulation import Ticks
from tulu.config.lengths import Lengths
from tulu.config.simulation import simulate
from tulu.rollout.fleet import Finished, Request
from tulu.rollout.sampler import StepRollouts
from tulu.types import SamplingParams

CASE = Case(
    Ticks(writing=0.05, cached=0.0001, prompt=0.01),
    token_seconds=0.06,
    lengths=Lengths(100, 800),
    prompts=4,
    samples=4,
    engines=3,
    room=5,
    prompt=50,
    sync_seconds=15.0,
    grading_seconds=0.0,
    steps=5,
)
"""Steps of minutes in which learner and engines have about as much to do."""


def run(case: Case, change: Callable[[StepRollouts], StepRollouts] | None = None) -> Measured:
    """Measure a case; `change` is done to the rollouts of every step before the learner has them."""
    clock = VirtualClock()
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder, streaming(case, clock, Path(folder)) as made:
        clock.stream = made
        if change is not None:
            take = made.take
            made.take = lambda: change(take())  # type: ignore[method-assign]
        return measure(case, made, clock)


@pytest.mark.parametrize("max_staleness", [0, 1, 4])
def test_what_is_predicted_is_measured(max_staleness: int) -> None:
    """The engines here go from token to token, and the simulation from end to end; else both must do the same."""
    case = replace(CASE, max_staleness=max_staleness)
    measured, predicted = run(case), predict(case)
    assert predicted.step_seconds == pytest.approx(measured.step_seconds, rel=0.03)
    assert predicted.learner_idle == pytest.approx(measured.learner_idle, abs=0.02)
    assert predicted.engines_idle == pytest.approx(measured.engines_idle, abs=0.02)
    assert predicted.staleness == pytest.approx(measured.staleness, abs=0.1)
    assert predicted.groups == measured.groups == case.prompts
    assert measured.trained_length == measured.sampled_length, "nothing is left out because it took long"


@pytest.mark.parametrize("max_staleness", [0, 1, 4])
def test_slow_graders_are_predicted(max_staleness: int) -> None:
    """Sixteen answers of 150 seconds over four graders are 600 a step, and more are sampled in place of what teaches nothing."""
    case = replace(CASE, max_staleness=max_staleness, graders=4, verdict_seconds=150.0)
    measured, predicted = run(case), predict(case)
    assert predicted.step_seconds == pytest.approx(measured.step_seconds, rel=0.03)
    assert predicted.graders_idle == pytest.approx(measured.graders_idle, abs=0.02)
    assert measured.step_seconds > 1.3 * run(replace(case, verdict_seconds=0.0)).step_seconds
    assert measured.step_seconds > 600


def test_a_loop_that_drops_long_answers_is_found_out() -> None:
    """The engines know what they ended, whatever becomes of it: here the longest group of each step is lost on the way."""

    def drop(step: StepRollouts) -> StepRollouts:
        kept = sorted(step.trained, key=lambda one: one.group.n_tokens)[:-1]
        return replace(step, trained=kept, sampled=kept)

    measured = run(replace(CASE, max_staleness=1), drop)
    assert measured.trained_length < 0.9 * measured.sampled_length


def test_the_plainest_loop_is_the_stream_that_samples_and_trains_in_turn(tmp_path: Path) -> None:
    case = replace(CASE, teaching=1.0, steps=3)
    plain = in_turn(case, VirtualClock())
    assert plain["groups"] == case.prompts
    assert plain["step_seconds"] == pytest.approx(simulate(loop_of(case), 0, 3).step_seconds, rel=0.01)
    slower = in_turn(case, VirtualClock(), lambda groups: 2 * case.train_seconds(groups))
    assert slower["step_seconds"] > plain["step_seconds"]


def test_an_engine_writes_a_token_a_step_and_notes_the_weights_of_each(tmp_path: Path) -> None:
    clock = VirtualClock()
    fleet = SleepingFleet(Ticks(), lambda request: int(request.key.split(":")[0]), engines=2, room=2, sync_seconds=5, clock=clock)
    fleet.sync(iter(WEIGHTS), 0)
    assert (clock.now(), fleet.room()) == (0, 4), "what is idle takes its first weights at once"
    params = SamplingParams(100)
    fleet.submit([Request(f"{length}:{n}", f"p{length}", [1], params, n) for length in (4, 6) for n in (0, 1)])
    assert [state.running for state in fleet.states()] == [2, 2], "each prompt's on one engine"
    ended = fleet.collect(100)
    assert (clock.now(), {end.key for end in ended}) == (4, {"4:0", "4:1"})
    fleet.sync(iter(WEIGHTS), 1)
    assert clock.now() == 9
    last = [*fleet.collect(100), *fleet.collect(0)]
    assert clock.now() == 11
    for end in last:
        assert isinstance(end, Finished)
        assert end.completion.versions == [(0, 0), (4, 1)]
        assert Counter(map(type, end.completion.tokens)) == {int: 6}
    assert [state.busy_seconds for state in fleet.states()] == [4, 11], "a sync is no idleness of what is being written"


def test_the_benchmark_writes_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In real time, so fast that the prediction is far off, which is told."""
    tiny = replace(CASE, speed=Ticks(), lengths=Lengths(2, 4), token_seconds=1e-5, sync_seconds=0.0, prompts=2, steps=1)

    class Fast(Ticks):
        def step_seconds(self, writing: float, cached: float) -> float:
            return 1e-4

    monkeypatch.setattr(stream, "on_h100s", lambda _faster, steps: replace(tiny, speed=Fast(), steps=steps))
    assert main(["--steps", "1", "--staleness", "1", "--out", str(tmp_path / "stream.json")]) in (0, 1)
    found = json.loads((tmp_path / "stream.json").read_text())
    [row] = found["stream"]
    assert row["measured"]["trained_length"] == row["measured"]["sampled_length"]
    assert row["predicted"].keys() <= row["measured"].keys()
    assert found["case"]["lengths"] == {"mean": 2, "longest": 4, "leaves_out": False}
    assert found["in_turn"]["groups_per_second"] > 0


def test_the_case_of_h100s_takes_longer_where_it_is_less_fast() -> None:
    four, one = stream.on_h100s(4, 3), stream.on_h100s(1, 3)
    assert four.speed.step_seconds(100, 50_000) == one.speed.step_seconds(100, 50_000) / 4
    assert four.token_seconds == one.token_seconds / 4
    # 6 · 1.3e9 operations a token and a little more, at 40 % of 989e12 a second
    assert one.token_seconds == pytest.approx(2.0e-5, rel=0.1)
