"""Groups that are left out of a step, and problems that are drawn no more once they are solved."""

import json

import pytest

from tests.rollout.scripted import ids, sampler, stage
from tulu.data.mixing import order
from tulu.errors import TrainingError, TuluError
from tulu.rollout.problem_order import ProblemOrder


def test_groups_without_signal_may_be_left_out_without_another_in_their_place() -> None:
    flat = {f"p{i}" for i in order(10, 0, 0)[:4:2]}
    made, engine = sampler(lambda problem, _: "rr" if problem.id in flat else "rw", stage(refill=False, drop_equal=True))
    collected = made.collect(0)
    assert ids(collected.trained) == [name for name in ids(collected.sampled) if name not in flat]
    assert (len(collected.sampled), len(collected.trained), collected.rounds, len(engine.calls)) == (4, 2, 1, 1)


def test_what_is_solved_is_drawn_no_more_once_its_epoch_is_over() -> None:
    """Of four problems p0 is always solved and p1 half: with 1.0, p0 is gone from the second epoch on, with 0.5 both are."""
    script = {"p0": "rr", "p1": "rw", "p2": "ww", "p3": "ww"}
    for limit, left in ((1.0, {"p1", "p2", "p3"}), (0.5, {"p2", "p3"})):
        made, _ = sampler(lambda problem, _: script[problem.id], stage(refill=False, retire_at=limit), 4)
        assert set(ids(made.collect(0).sampled)) == set(script)
        assert {name for drawn in (4, 8, 12) for name in ids(made.collect(drawn).sampled)} == left
        assert made.order.retired == 4 - len(left)


def test_a_resumed_sampler_knows_what_was_retired() -> None:
    script = {f"p{i}": "rr" if i < 3 else "rw" for i in range(10)}
    settings = stage(refill=False, retire_at=1.0)
    whole, engine = sampler(lambda problem, _: script[problem.id], settings)
    asked = [ids(whole.collect(drawn).sampled) for drawn in range(0, 40, 4)]
    for broken_off in (4, 12, 20):
        first, _ = sampler(lambda problem, _: script[problem.id], settings)
        for drawn in range(0, broken_off, 4):
            first.collect(drawn)
        again, second = sampler(lambda problem, _: script[problem.id], settings)
        again.order = ProblemOrder(10, settings.seed, json.loads(json.dumps(first.order.state())))
        assert [ids(again.collect(drawn).sampled) for drawn in range(broken_off, 40, 4)] == asked[broken_off // 4 :]
        assert second.calls == engine.calls[broken_off // 4 :]


def test_a_run_whose_problems_are_all_solved_says_so() -> None:
    made, _ = sampler(lambda problem, _: "rr", stage(refill=False, retire_at=0.9), 4)
    made.collect(0)
    with pytest.raises(
        TuluError, match=r"rlvr\.retire_at: all 4 problems are solved .* none is left to sample\n.*rlvr\.steps"
    ) as end:
        made.collect(4)
    assert not isinstance(end.value, TrainingError), "advice on numbers that are not finite would be added to that"


def test_a_verdict_that_failed_does_not_count_against_a_problem() -> None:
    made, _ = sampler(lambda problem, _: "r?", stage(refill=False, retire_at=1.0), 4)
    made.collect(0)
    assert made.order.retired == 4
    masked, _ = sampler(lambda problem, _: "r?", stage(refill=False), 4)
    masked.collect(0)
    assert masked.order.retired == 0
