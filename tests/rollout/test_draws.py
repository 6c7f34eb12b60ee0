"""Which prompts are drawn and trained: bounds on age and number, and no preference for short completions."""

import heapq
import math
import random
import statistics
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from tulu.rollout.draws import MAX_ROUNDS, Draw, Queue
from tulu.rollout.problem_order import ProblemOrder

GRADED: Any = object()
"""What a group is graded with does not matter here."""


def queue_of(prompts: int, max_staleness: int, total: int, step: int = 0, refill: bool = True) -> Queue:
    return Queue(prompts, max_staleness, total, ProblemOrder(50, seed=0), step, refill)


def grade(queue: Queue, position: int, teaches: bool = True) -> None:
    queue.grade(queue.records[position], GRADED, GRADED, teaches)


def taken(queue: Queue) -> list[int] | None:
    step = queue.next_step()
    return None if step is None else [draw.position for draw in step.trained]


def train(queue: Queue) -> list[int]:
    step = queue.next_step()
    assert step is not None
    queue.begin(step)
    queue.end()
    return [draw.position for draw in step.trained]


def test_on_policy_a_step_waits_for_all_and_nothing_is_drawn_beside_it() -> None:
    queue = queue_of(2, 0, 2)
    queue.draw(queue.wanted(), 0)
    grade(queue, 1)
    assert (queue.wanted(), taken(queue)) == (0, None)
    grade(queue, 0)
    step = queue.next_step()
    assert step is not None
    queue.begin(step)
    assert queue.wanted() == 0, "the next step samples with the weights that this one leaves"
    queue.end()
    assert queue.wanted() == 2
    assert [draw.position for draw in queue.draw(2, 1)] == [2, 3]
    grade(queue, 2)
    grade(queue, 3)
    assert train(queue) == [2, 3]
    assert queue.wanted() == 0, "the run is over"


def test_on_policy_refills_in_rounds() -> None:
    """A seed follows from the first prompt of a round, so what is in a round must not depend on which engine is faster."""
    queue = queue_of(3, 0, 1)
    queue.draw(3, 0)
    grade(queue, 1, teaches=False)
    assert queue.wanted() == 0, "the round is not over"
    grade(queue, 0)
    grade(queue, 2, teaches=False)
    [third, fourth] = queue.draw(queue.wanted(), 0)
    assert [(one.position, one.first, one.round) for one in (third, fourth)] == [(3, 3, 2), (4, 3, 2)]
    grade(queue, 3)
    grade(queue, 4)
    step = queue.next_step()
    assert step is not None
    assert [[draw.position for draw in part] for part in (step.trained, step.aside)] == [[0, 3, 4], [1, 2]]


def test_running_ahead_is_bounded() -> None:
    queue = queue_of(2, 2, 10)
    assert queue.wanted() == 6
    queue.draw(4, 0)
    assert queue.wanted() == 2
    grade(queue, 0, teaches=False)
    assert queue.wanted() == 3, "one that teaches nothing makes room"
    queue.draw(3, 0)
    grade(queue, 1)
    grade(queue, 2)
    step = queue.next_step()
    assert step is not None
    queue.begin(step)
    assert queue.wanted() == 0, "what is being trained is not trained yet"
    queue.end()
    assert queue.wanted() == 2


def test_the_oldest_are_taken_and_a_slow_one_is_passed_over_until_it_is_due() -> None:
    queue = queue_of(2, 1, 10)
    queue.draw(4, 0)
    for position in (1, 2, 3):
        grade(queue, position)
    # Prompt 0 is passed over: there is room for it in the next step.
    assert train(queue) == [1, 2]
    assert [draw.position for draw in queue.draw(queue.wanted(), 1)] == [4, 5]
    grade(queue, 4)
    # It was drawn with the weights of step 0 and is due in step 2, which waits for it although 3 and 4 are there.
    assert taken(queue) is None
    grade(queue, 0)
    assert train(queue) == [0, 3]


def test_many_slow_ones_are_not_put_off_until_they_cannot_all_be_trained_in_time() -> None:
    """Passing over four of six twice would leave four that are due in the one step that is left."""
    queue = queue_of(2, 2, 10)
    queue.draw(6, 0)
    grade(queue, 4)
    grade(queue, 5)
    assert train(queue) == [4, 5]
    queue.draw(2, 1)
    grade(queue, 6)
    grade(queue, 7)
    assert taken(queue) is None, "0 to 3 have two steps left, of two prompts each"
    grade(queue, 3)
    assert taken(queue) is None
    grade(queue, 2)
    assert train(queue) == [2, 3]


def test_a_step_goes_without_a_prompt_that_was_replaced_too_often() -> None:
    queue = queue_of(2, 0, 1)
    position = 0
    for number in range(1, MAX_ROUNDS + 1):
        drawn = queue.draw(queue.wanted(), 0)
        assert [one.round for one in drawn] == [number] * (2 if number == 1 else 1)
        for one in drawn:
            grade(queue, one.position, teaches=one.position == 0)
        position += len(drawn)
    assert queue.wanted() == 0
    assert train(queue) == [0]
    assert queue.drawn == position == MAX_ROUNDS + 1


def test_without_refill_a_step_goes_without_what_teaches_nothing() -> None:
    queue = queue_of(3, 1, 2, refill=False)
    queue.draw(6, 0)
    grade(queue, 1, teaches=False)
    assert queue.wanted() == 0, "it is not replaced"
    for position in (0, 2, 3, 4, 5):
        grade(queue, position)
    assert train(queue) == [0, 2]
    assert train(queue) == [3, 4, 5]


def test_more_groups_are_given_up_than_a_step_has_while_another_is_due() -> None:
    """Running ahead, the step would go without any group, and the one that is due then would never be in time again."""
    queue = queue_of(2, 1, 10, refill=False)
    queue.draw(4, 0)
    grade(queue, 0)
    grade(queue, 1)
    assert train(queue) == [0, 1]
    queue.draw(2, 1)
    for position in (3, 4, 5):
        grade(queue, position, teaches=False)
    assert taken(queue) is None, "2 is due"
    assert queue.wanted() == 0
    grade(queue, 2)
    assert train(queue) == [2]
    assert queue.wanted() == 2, "the step after it goes without two"
    queue.draw(2, 2)
    assert train(queue) == []
    grade(queue, 6)
    grade(queue, 7)
    assert train(queue) == [6, 7]


@pytest.mark.parametrize("refill", [True, False])
def test_no_order_of_ends_and_no_share_of_signal_makes_a_run_wait_for_ever(refill: bool) -> None:
    for seed in range(200):
        draw, known = random.Random(seed), list[Draw]()
        share, queue = draw.random(), queue_of(draw.randint(1, 4), draw.randint(0, 3), 8, refill=refill)
        for _ in range(10_000):
            known += queue.draw(queue.wanted(), queue.step)
            if ungraded := [one for one in known if one.rollout is None]:
                grade(queue, draw.choice(ungraded).position, draw.random() < share)
            if queue.training is not None and (draw.random() < 0.5 or not ungraded):
                queue.end()
            elif queue.training is None and (step := queue.next_step()) is not None:
                assert all(one.version >= queue.step - queue.max_staleness for one in step.trained)
                queue.begin(step)
            if queue.step == queue.total:
                break
        assert queue.step == queue.total, f"seed {seed} waits for ever"


def test_a_restored_queue_goes_on_as_the_one_before() -> None:
    queue = queue_of(2, 2, 10)
    queue.draw(6, 0)
    grade(queue, 0, teaches=False)
    for position in (1, 2, 4):
        grade(queue, position)
    train(queue)
    queue.draw(1, 1)
    grade(queue, 3, teaches=False)
    again = queue_of(2, 2, 10, step=1)
    again.restore(queue.state())
    assert again.state() == queue.state()
    assert (again.wanted(), list(again.waiting), [draw.position for draw in again.aside]) == (
        queue.wanted(),
        list(queue.waiting),
        [3],
    )
    grade(again, 4)
    grade(again, 5)
    assert train(again) == [4, 5]


@dataclass
class Simulated:
    """What a simulation of engines and a learner found."""

    sampled: dict[tuple[int, int], int]
    """(position, sample) -> length."""
    trained: list[list[int]] = field(default_factory=list)
    """Positions of each step."""
    lags: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def lengths(self, steps: slice) -> list[int]:
        chosen = {position for step in self.trained[steps] for position in step}
        return [length for (position, _), length in self.sampled.items() if position in chosen]


def simulate(
    max_staleness: int, steps: int = 150, prompts: int = 8, samples: int = 4, slots: int = 32, seed: int = 0
) -> Simulated:
    """Engines with so many slots, a token a second in each, beside a learner, by a clock of their own.

    Lengths have a Pareto tail with exponent 1.2, of at most 2000 tokens; one group of four teaches nothing.
    """
    chance, queue = random.Random(seed), queue_of(prompts, max_staleness, steps)
    found, now, trained_at = Simulated({}), 0.0, math.inf
    pending: list[tuple[int, int]] = []
    running: list[tuple[float, int, int]] = []
    begun: dict[int, int] = {}
    while queue.step < steps:
        for draw in queue.draw(queue.wanted(), queue.step):
            pending += [(draw.position, sample) for sample in range(samples)]
        while pending and len(running) < slots:
            position, sample = pending.pop(0)
            begun.setdefault(position, queue.step)
            length = found.sampled[position, sample] = min(2000, int(20 * chance.paretovariate(1.2)))
            heapq.heappush(running, (now + length, position, sample))
        assert (
            len(queue.records) - sum(len(step.aside) for step in [queue.training] if step) - len(queue.aside)
            <= (max_staleness + 1) * prompts
        )
        if queue.training is None and (step := queue.next_step()) is not None:
            queue.begin(step)
            found.trained.append([draw.position for draw in step.trained])
            found.lags += [queue.step - begun[draw.position] for draw in step.trained]
            trained_at = now + 60.0
        now = min(trained_at, running[0][0] if running else math.inf)
        if now == trained_at:
            queue.end()
            trained_at = math.inf
            continue
        _, position, sample = heapq.heappop(running)
        draw = queue.records[position]
        draw.completions[sample] = cast(Any, None)
        if draw.state(samples) == "sampled":
            grade(queue, position, teaches=position % 4 != 0)
    found.seconds = now
    return found


@pytest.mark.parametrize("max_staleness", [0, 1, 4])
def test_heavy_tails_what_is_trained_is_what_was_sampled(max_staleness: int) -> None:
    """Each group that teaches is trained exactly once, however long it took, and none is too old."""
    found = simulate(max_staleness)
    trained = [position for step in found.trained for position in step]
    drawn = {position for position, _ in found.sampled}
    assert sorted(trained) == [position for position in sorted(drawn) if position % 4], "none lost, none twice, none dropped"
    assert 0 <= max(found.lags) <= max_staleness
    teaching = [length for (position, _), length in found.sampled.items() if position % 4]
    assert statistics.mean(found.lengths(slice(None))) == pytest.approx(statistics.mean(teaching), rel=1e-12)
    # Nor is any part of the run shorter: the second half trains what is as long as the first, within its own spread.
    first, second = found.lengths(slice(10, 75)), found.lengths(slice(75, 140))
    spread = math.sqrt(statistics.variance(first) / len(first) + statistics.variance(second) / len(second))
    assert abs(statistics.mean(first) - statistics.mean(second)) < 3 * spread


def test_running_ahead_saves_time_where_lengths_have_a_heavy_tail() -> None:
    times = [simulate(max_staleness).seconds for max_staleness in (0, 1, 4)]
    assert times[0] > 1.2 * times[1] > 1.2 * times[2]


def test_dropping_by_age_would_train_on_shorter_completions() -> None:
    """The simulation shows the bias that this queue has not: what ends within the steps of a bound is shorter than the rest."""
    found = simulate(4)
    longest = {position: max(found.sampled[position, sample] for sample in range(4)) for position, _ in found.sampled}
    kept = [length for (position, _), length in found.sampled.items() if longest[position] <= 2 * 60]
    assert statistics.mean(kept) < 0.7 * statistics.mean(found.sampled.values())


def test_steps_whose_rollouts_were_forgotten_are_not_done_again() -> None:
    queue = queue_of(2, 1, 4)
    queue.draw(4, 0)
    for position in (1, 2):
        grade(queue, position)
    queue.plan([1, 2], [])
    found = [queue.can_do_again]
    assert taken(queue) == [1, 2]
    queue.records[2].rollout = None
    found.append(queue.can_do_again)
    assert found == [True, False], "as long as their rollouts are known"
    queue.put_back()
    assert (taken(queue), [*queue.waiting], queue.wanted()) == (None, [0, 1, 2, 3], 0)


def test_states() -> None:
    draw = Draw(0, 0, 0, 0)
    assert draw.state(2) == "drawn"
    draw.sent[0] = 1.0
    assert draw.state(2) == "sampling"
    del draw.sent[0]
    draw.completions = {0: cast(Any, None), 1: cast(Any, None)}
    assert draw.state(2) == "sampled"
    draw.rollout = GRADED
    assert draw.state(2) == "graded"
