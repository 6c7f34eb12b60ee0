"""Whether learner and engines hold the same weights, judged by numbers that fit on paper."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.rollout.test_token_notes import STAGE, rollout
from tulu.errors import EngineError
from tulu.rollout.batches import pack_rollouts
from tulu.rollout.fleet import first_tokens, joined, sampled_by
from tulu.rollout.journal import completion_row, read_completion
from tulu.rollout.mismatch import Beyond, Sum, beyond, check_weights, message, of_tokens
from tulu.rollout.token_notes import TokenNotes
from tulu.types import Completion


def table(*parts: tuple[str, int, float, int]) -> dict[tuple[str, int], Sum]:
    """(engine, age, mean in nats, tokens) as what is judged."""
    return {(engine, age): of_tokens(age, mean * tokens, tokens) for engine, age, mean, tokens in parts}


def judged(*parts: tuple[str, int, float, int]) -> list[tuple[str, int | None, float, float, int]]:
    """What is beyond its limit: (engine, age, mean, limit, tokens)."""
    return [(one.engine, one.age, one.sum.mean, one.sum.limit, one.sum.tokens) for one in beyond(table(*parts))]


def test_present_weights_may_be_half_a_nat_off_and_each_step_of_age_adds_as_much() -> None:
    for age, limit in ((0, 0.5), (1, 1.0), (3, 2.0), (8, 4.5)):
        assert judged(("", age, limit, 1000)) == [], "at its limit"
        assert judged(("", age, limit + 0.25, 1000)) == [("", age, limit + 0.25, limit, 1000)]


def test_permission_to_run_ahead_excuses_no_token_of_the_present_weights() -> None:
    """Nine tenths of the tokens are 8 steps old and may be 4.5 nats off: the others are 3 nats off and may not."""
    assert judged(("", 0, 3.0, 100), ("", 8, 3.0, 900)) == [("", 0, 3.0, 0.5, 100)]
    assert judged(("", 0, 0.1, 100), ("", 8, 3.0, 900)) == []


def test_ages_are_judged_together_too() -> None:
    """Each age has 7 nats more than its limit, which chance may be; both have 14, which as all tokens there are it may not."""
    # (0.5 + 7/100) and (1 + 7/100); together 57 + 107 of 50 + 100 allowed.
    assert judged(("", 0, 0.57, 100), ("", 1, 1.07, 100)) == [("", None, 0.82, 0.75, 200)]
    both = ("engine-1", 0, 0.57, 100), ("engine-1", 1, 1.07, 100)
    assert judged(*both, ("engine-2", 0, 0.0, 100)) == [("engine-1", None, 0.82, 0.75, 200)], "of an engine 8 nats are tolerated"


def test_one_wrong_engine_of_56_is_named() -> None:
    """Over all engines the mean is (55 × 0.01 + 3) / 56 = 0.06 nats."""
    rest = [(f"engine-{number}", 0, 0.01, 640) for number in range(1, 57) if number != 17]
    assert judged(*rest, ("engine-17", 0, 3.0, 640)) == [("engine-17", 0, 3.0, 0.5, 640)]
    told = message(12, beyond(table(*rest, ("engine-17", 0, 3.0, 640))), 56)
    assert told.splitlines()[0] == (
        "step 12: learner and engine-17, one of 56 engines, disagree by 3.00 nats a token on 640 tokens "
        "of the learner's present weights, where 0.50 are allowed: they do not hold the same weights"
    )
    assert "The checkpoint before is intact. Run the same command again" in told


def test_few_tokens_of_an_engine_prove_nothing() -> None:
    """Its limit may be exceeded by 8 nats in sum: 4 tokens that are 3 nats off have 12 of 2 + 8, 3 such tokens 9 of 1.5 + 8."""
    fine = ("engine-1", 0, 0.0, 100)
    assert judged(fine, ("engine-2", 0, 3.0, 3)) == []
    assert judged(fine, ("engine-2", 0, 3.0, 4)) == [("engine-2", 0, 3.0, 0.5, 4)]
    assert judged(("engine-2", 0, 3.0, 3)) == [("", 0, 3.0, 0.5, 3)], "all tokens that there are have no such tolerance"


def test_if_all_engines_are_off_they_are_told_together() -> None:
    parts = ("engine-1", 0, 3.0, 50), ("engine-2", 0, 2.0, 50)
    assert judged(*parts) == [("", 0, 2.5, 0.5, 100)]
    assert "step 3: learner and its 2 engines disagree by 2.50 nats" in message(3, beyond(table(*parts)), 2)
    assert "step 3: learner and the engine disagree by 2.00 nats" in message(3, beyond(table(("", 0, 2.0, 50))), 1)


def test_what_is_not_a_number_is_not_small() -> None:
    [found] = beyond(table(("engine-1", 0, 0.0, 100), ("engine-2", 2, math.nan, 10)))
    assert (found.engine, found.age) == ("engine-2", 2)
    assert beyond({}) == []
    assert beyond({("engine-1", 0): Sum()}) == [], "nothing was trained"


def test_many_engines_are_not_all_named() -> None:
    found = [Beyond(f"engine-{number}", 1, of_tokens(1, 300.0, 100)) for number in range(11)]
    told = message(1, found, 20)
    assert "learner and 11 of 20 engines disagree: engine-0 by 3.00" in told
    assert "engine-7 by 3.00 nats a token on 100 tokens of weights one step older, where 1.00 are allowed; and 3 more:" in told
    assert "engine-8" not in told


class Ranks:
    """One of two processes, of which the other gives what is given here."""

    world = 2

    def __init__(self, other: Any, rank: int = 0) -> None:
        self.other, self.rank = other, rank

    def exchange(self, item: Any) -> list[Any]:
        return [item, self.other]


def test_processes_judge_what_all_of_them_trained_on() -> None:
    """Either has 3 tokens of the engine that is wrong, which alone prove nothing."""
    other = [("engine-1", 0, of_tokens(0, 1.0, 100)), ("engine-2", 0, of_tokens(0, 9.0, 3))]
    parallel: Any = Ranks(other)
    own = table(("engine-1", 0, 0.03, 100), ("engine-2", 0, 3.0, 3))
    with pytest.raises(EngineError, match=r"learner and engine-2, one of 2 engines, disagree by 3.00 nats a token on 6 tokens"):
        check_weights(parallel, own, 1, by_rank=False)
    fine = table(("engine-1", 0, 0.03, 100))
    with_less: Any = Ranks([("engine-1", 0, of_tokens(0, 1.0, 100)), ("engine-2", 0, of_tokens(0, 1.0, 4))])
    assert check_weights(with_less, fine, 1, by_rank=False) == pytest.approx(
        {"engine/engine-1/mismatch": 0.02, "engine/engine-2/mismatch": 0.25}
    )


def test_engines_without_a_name_are_told_apart_by_their_ranks() -> None:
    parallel: Any = Ranks([("engine-of-rank-1", 0, of_tokens(0, 300.0, 100))])
    with pytest.raises(EngineError, match=r"learner and engine-of-rank-1, one of 2 engines, disagree by 3.00 nats"):
        check_weights(parallel, table(("", 0, 0.0, 100)), 1, by_rank=True)
    alone: Any = SimpleNamespace(world=1, rank=0, exchange=lambda item: [item])
    assert check_weights(alone, table(("", 0, 0.1, 100)), 1, by_rank=True) == {}, "it is that of the step"


def notes_of(first: Completion, second: Completion, moved: bool = False) -> TokenNotes:
    """Notes of a group of two: 0.1 and -0.3 nats on the trained tokens of the first, 0.4 and 0.5 on those of the second."""
    one = rollout()
    for completion, own in zip(one.group.completions, (first, second), strict=True):
        object.__setattr__(completion, "engines", own.engines)
        object.__setattr__(completion, "versions", own.versions)
    [batch] = pack_rollouts([one], STAGE)
    notes = TokenNotes()
    notes.moved = moved
    notes.add(batch, torch.tensor([0.1, -0.3, 0.4, 0.5]), None)
    return notes


def spans(length: int, versions: list[tuple[int, int]], engines: list[tuple[int, str]]) -> Completion:
    return Completion([1] * length, [True] * length, versions=versions, engines=engines)


def nats(notes: TokenNotes, version: int) -> dict[tuple[str, int], Any]:
    return {source: (pytest.approx(one.nats), one.tokens) for source, one in notes.by_source(version).items()}


def test_every_token_counts_for_its_engine_and_the_age_of_its_weights() -> None:
    """The first completion has a token by a with weights 3, one of a tool, and one by b with weights 5; the second all by a."""
    first = spans(3, [(0, 3), (2, 5)], [(0, "a"), (2, "b")])
    second = spans(2, [(0, 4), (1, 5)], [(0, "a")])
    assert nats(notes_of(first, second), 5) == {("a", 2): (0.1, 1), ("b", 0): (0.3, 1), ("a", 1): (0.4, 1), ("a", 0): (0.5, 1)}
    moved = notes_of(first, second, moved=True)
    assert set(moved.by_source(5)) == {("a", 3), ("b", 1), ("a", 2), ("a", 1)}, "a later mini-batch is a step younger"
    nobody = notes_of(spans(3, [], []), spans(2, [], []))
    assert nats(nobody, 5) == {("", 0): (1.3, 4)}, "what is not known is taken for new"


def test_engines_stay_known_where_another_one_goes_on() -> None:
    begun = sampled_by("a", Completion([1, 2, 3], [True] * 3, [-1.0] * 3, versions=[(0, 0)]), None)
    assert begun.engines == ((0, "a"),)
    kept = first_tokens(begun, 2)
    whole = sampled_by("b", joined(kept, Completion([4, 5], [True] * 2, [-1.0] * 2, "stop", [(0, 1)])), kept)
    assert (whole.engines, whole.versions) == (((0, "a"), (2, "b")), [(0, 0), (2, 1)])
    assert sampled_by("b", whole, whole).engines == whole.engines, "it sampled nothing more"
    own = sampled_by("a", joined(kept, Completion([4], [True], [-1.0], "stop", [(0, 0)])), kept)
    assert own.engines == ((0, "a"),)
    assert read_completion(completion_row(whole)).engines == whole.engines
