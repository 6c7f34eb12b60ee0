"""The simulated loop: on paper, by the rules of the real one, and what must hold of any loop.

tests/benchmarks/test_stream.py compares it with the real loop.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from tulu.config.simulated_draws import MAX_ROUNDS, Drawn, Draws
from tulu.config.simulated_graders import Graders
from tulu.config.simulation import Loop, Simulation, simulate
from tulu.rollout import draws as real
from tulu.rollout.draws import Draw, Queue
from tulu.rollout.problem_order import ProblemOrder


@dataclass
class Ticks:
    """An engine with a token every second, longer where it writes much or holds much."""

    writing: float = 0.0
    cached: float = 0.0
    prompt: float = 0.0

    def step_seconds(self, writing: float, cached: float) -> float:
        return 1.0 + self.writing * writing + self.cached * cached

    def prompt_seconds(self, tokens: float) -> float:
        return self.prompt * tokens


PLAIN = Loop(
    prompts=2,
    max_staleness=0,
    sampled=lambda _: ([10, 20], True),
    engines=1,
    room=4,
    speed=Ticks(),
    train_seconds=lambda groups: float(sum(groups)) / 20,
)
"""A step samples for 20 seconds and trains 60 tokens for 3."""


def heavy(teaching: float = 1.0, seed: int = 0) -> Callable[[int], tuple[list[int], bool]]:
    """Groups of four with a heavy tail."""

    def sampled(position: int) -> tuple[list[int], bool]:
        draw = random.Random(seed * 10**6 + position)
        return [min(2000, int(20 * draw.paretovariate(1.1))) for _ in range(4)], draw.random() < teaching

    return sampled


HEAVY = replace(PLAIN, prompts=8, sampled=heavy(0.7), engines=3, room=8, train_seconds=lambda groups: sum(groups) / 50)


def test_in_turn_a_step_is_sampling_grading_training_and_a_sync() -> None:
    found = simulate(replace(PLAIN, grading_seconds=2, sync_seconds=5), 1, 3)
    assert found.step_seconds == 20 + 2 + 3 + 5
    assert found.learner_idle == pytest.approx(22 / 30)
    assert found.engines_idle == pytest.approx(10 / 30)
    assert (found.staleness, found.groups, found.tokens) == (0, 2, 60)


def test_answers_wait_for_a_grader() -> None:
    """Nine answers of 2 s over four graders: four end at 2, four at 4, and the last one at 6, of 24 seconds 18 are work."""
    graders = Graders(4, 2.0)
    assert graders.grade(10.0, 9) == 16
    assert graders.busy(16.0) == 18
    assert graders.busy(12.0) == 8
    assert graders.grade(15.0, 1) == 17, "a grader that rests begins at once"
    assert graders.grade(15.0, 3) == 18, "two begin at once, and the third at 16, when the ninth has its verdict"
    assert Graders(10**12, 2.0).grade(1.0, 5) == 3
    assert Graders(1, 0.0).grade(1.0, 5) == 1


def test_in_turn_a_step_waits_for_the_verdicts_of_its_answers() -> None:
    # Four answers end within 20 seconds, together as groups: two graders with 7 seconds for each are done 14 seconds later.
    loop = replace(PLAIN, grading_seconds=2, sync_seconds=5, graders=2, verdict_seconds=7)
    found = simulate(loop, 1, 3)
    assert found.step_seconds == 20 + 14 + 2 + 3 + 5
    assert found.graders_idle == pytest.approx(1 - 14 / 44)


def test_groups_are_graded_as_they_end_but_by_an_engine_of_the_learner() -> None:
    """The groups end at 10, 20 and 30; one grader takes 15 seconds for each. 60 tokens train for 3 seconds."""
    lengths = [[10.0], [20.0], [30.0]]
    loop = replace(PLAIN, prompts=3, room=3, sampled=lambda position: (lengths[position % 3], True), verdict_seconds=15)
    assert simulate(loop, 0, 1).step_seconds == 10 + 3 * 15 + 3
    assert simulate(replace(loop, graders=2), 0, 1).step_seconds == 30 + 15 + 3, "10 to 25, 20 to 35 and 30 to 45"
    assert simulate(replace(loop, in_turn=True), 0, 1).step_seconds == 30 + 3 * 15 + 3
    assert simulate(replace(loop, in_turn=True, graders=2), 0, 1).step_seconds == 30 + 2 * 15 + 3


@pytest.mark.parametrize(("graders", "seconds"), [(1, 3.0), (4, 20.0), (32, 160.0), (10**9, 3.0)])
@pytest.mark.parametrize("max_staleness", [0, 1, 4])
def test_no_step_is_shorter_than_the_verdicts_of_its_answers(graders: int, seconds: float, max_staleness: int) -> None:
    """n answers of s seconds over g graders take n · s / g; one step ahead nothing is added to that where it is the longest."""
    loop = replace(HEAVY, sampled=heavy(1.0), max_staleness=max_staleness, graders=graders, verdict_seconds=seconds)
    found = simulate(loop, max_staleness + 2, 20)
    least = 8 * 4 * seconds / graders
    assert found.step_seconds >= 0.98 * least, "within what steps before and after share"
    assert 0 <= found.graders_idle <= 1
    assert found.graders_idle == pytest.approx(1 - least / found.step_seconds, abs=0.02)
    without = simulate(replace(loop, verdict_seconds=0.0), max_staleness + 2, 20)
    assert found.step_seconds >= 0.99 * without.step_seconds
    if max_staleness and least > 2 * without.step_seconds:
        assert found.step_seconds == pytest.approx(least, rel=0.02)
        assert found.graders_idle < 0.02


def test_verdicts_as_fast_as_rules_change_nothing() -> None:
    for max_staleness in (0, 1, 4):
        loop = replace(HEAVY, max_staleness=max_staleness)
        found = simulate(replace(loop, graders=32, verdict_seconds=0.0005), max_staleness + 2, 20)
        assert found.step_seconds == pytest.approx(simulate(loop, max_staleness + 2, 20).step_seconds, rel=1e-3)


def test_one_step_ahead_the_longer_of_both_counts() -> None:
    slow_learner = replace(PLAIN, max_staleness=1, train_seconds=lambda _: 30.0, sync_seconds=1)
    found = simulate(slow_learner, 2, 4)
    assert found.step_seconds == 31
    assert found.learner_idle == 0
    # What is drawn after an update is sampled while the next step trains, and trained in the one after that.
    assert found.staleness == 1
    assert found.engines_idle == pytest.approx(11 / 31)
    # Two steps ahead the engine has samples of three steps to do and room for one: it never rests.
    slow_engine = replace(PLAIN, max_staleness=2, train_seconds=lambda _: 3.0)
    found = simulate(slow_engine, 4, 10)
    assert found.engines_idle == 0
    assert found.step_seconds == pytest.approx(15, rel=0.05), "60 tokens, four at a time"


def test_a_token_knows_the_weights_that_it_was_sampled_with() -> None:
    # The learner trains for 10 seconds on what takes 40 to sample: tokens 0 to 10 of the next group see the weights before.
    loop = replace(PLAIN, prompts=1, max_staleness=1, room=9, sampled=lambda _: ([40.0], True), train_seconds=lambda _: 10.0)
    running = Simulation(loop, 20)
    running.run(6)
    # Two groups begin together with version 0. The first is trained at 40; the third begins at 50, when the weights are new.
    assert [step.seconds for step in running.steps[:4]] == [50, 10, 40, 10]
    assert [step.lag for step in running.steps[:4]] == [0, 40, 10, 40]


def test_engines_write_by_their_load_and_read_a_prompt_once() -> None:
    # Both answers: 2 cached prompts of 100 tokens and what grows; the second half of the longer one alone.
    speed = Ticks(cached=0.01, prompt=0.1)
    found = simulate(replace(PLAIN, prompts=1, prompt=100, speed=speed, train_seconds=lambda _: 0.0), 1, 2)
    first = 10 * (1 + 0.01 * (200 + 2 * 5))
    second = 10 * (1 + 0.01 * (110 + 5))
    assert found.step_seconds == pytest.approx(100 * 0.1 + first + second)


def test_what_has_no_room_waits() -> None:
    found = simulate(replace(PLAIN, room=1, train_seconds=lambda _: 0.0), 1, 2)
    assert found.step_seconds == 60
    two = simulate(replace(PLAIN, room=1, engines=2, train_seconds=lambda _: 0.0), 1, 2)
    assert two.step_seconds == 40, "10 and 10 on one engine, 20 on the other, and at last 20 on either"


def test_a_group_without_signal_is_replaced_in_a_further_round() -> None:
    loop = replace(PLAIN, prompts=2, sampled=lambda position: ([10, 20], position % 3 > 0), train_seconds=lambda _: 0.0)
    found = simulate(loop, 0, 1)
    assert (found.step_seconds, found.groups) == (40, 2), "of the places 0 and 1 one is replaced by 2"
    assert simulate(replace(loop, refill=False), 0, 1).groups == 1
    never = simulate(replace(PLAIN, sampled=lambda _: ([10, 20], False)), 0, 2)
    assert (never.groups, never.step_seconds) == (0, MAX_ROUNDS * 20), "it is given up, and the step trains nothing"


@pytest.mark.parametrize("max_staleness", [0, 1, 4])
@pytest.mark.parametrize("refill", [True, False])
def test_the_rules_are_those_of_the_stream(max_staleness: int, refill: bool) -> None:
    """The same prompts end at random in both queues, and both decide alike."""
    assert MAX_ROUNDS == real.MAX_ROUNDS
    draw, total, steps = random.Random(max_staleness), 12, 0
    one, other = Draws(3, max_staleness, total, refill), Queue(3, max_staleness, total, ProblemOrder(50, 0), refill=refill)
    known: dict[int, tuple[Drawn, Draw]] = {}
    while steps < total:
        assert one.wanted() == other.wanted()
        if count := other.wanted():
            pairs = [(one.draw(steps, [1.0], draw.random() < 0.6), theirs) for theirs in other.draw(count, steps)]
            assert all((mine.position, mine.round) == (theirs.position, theirs.round) for mine, theirs in pairs)
            known |= {mine.position: (mine, theirs) for mine, theirs in pairs}
        ungraded = [pair for pair in known.values() if not pair[0].graded]
        if ungraded:
            mine, theirs = draw.choice(ungraded)
            one.grade(mine)
            other.grade(theirs, cast(Any, "graded"), cast(Any, "rollout"), mine.teaches)
        if one.training:
            if draw.random() < 0.3 or not ungraded:
                one.end()
                other.end()
                steps += 1
            continue
        found, expected = one.next_step(), other.next_step()
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert [mine.position for mine in found] == [theirs.position for theirs in expected.trained]
            one.begin(found)
            other.begin(expected)
    assert one.drawn == other.drawn >= 3 * total * refill


@pytest.mark.parametrize("max_staleness", [0, 1, 4])
def test_every_group_that_teaches_is_trained_once_and_in_time(max_staleness: int) -> None:
    """The mean length of what is trained is that of what was sampled: nothing is left out because it took long."""
    trained: list[float] = []

    def train_seconds(groups: Any) -> float:
        trained.extend(groups)
        return float(sum(groups)) / 50

    loop = replace(HEAVY, max_staleness=max_staleness, train_seconds=train_seconds)
    running = Simulation(loop, 20)
    running.run(20)
    sampled = [loop.sampled(position) for position in range(running.draws.drawn)]
    assert sorted(trained) == sorted(sum(lengths) for lengths, teaches in sampled if teaches)
    assert len(trained) == 20 * 8
    for step in running.steps:
        assert -1e-6 <= step.lag / step.tokens <= max_staleness + 1e-6


def test_running_ahead_and_more_engines_make_steps_shorter() -> None:
    by_staleness = [simulate(replace(HEAVY, max_staleness=most), most + 2, 40).step_seconds for most in (0, 1, 2, 4)]
    assert by_staleness == sorted(by_staleness, reverse=True)
    for most in (0, 1, 4):
        by_engines = [simulate(replace(HEAVY, max_staleness=most, engines=n), most + 2, 40).step_seconds for n in (1, 2, 4, 16)]
        assert by_engines == sorted(by_engines, reverse=True)
        # No step is shorter than its training, whatever samples.
        assert by_engines[-1] >= simulate(replace(HEAVY, max_staleness=most), most + 2, 40).tokens / 50 * 0.9


def test_it_is_the_same_every_time_and_in_every_unit_of_time() -> None:
    loop = replace(HEAVY, max_staleness=1, sync_seconds=3, grading_seconds=1)
    assert simulate(loop, 3, 10) == simulate(loop, 3, 10)

    @dataclass
    class Slower(Ticks):
        def step_seconds(self, writing: float, cached: float) -> float:
            return 7.0

    slower = replace(loop, speed=Slower(), train_seconds=lambda groups: 7 * sum(groups) / 50, sync_seconds=21, grading_seconds=7)
    one, seven = simulate(loop, 3, 10), simulate(slower, 3, 10)
    assert seven.step_seconds == pytest.approx(7 * one.step_seconds)
    assert seven.engines_idle == pytest.approx(one.engines_idle)
    assert seven.staleness == pytest.approx(one.staleness)
