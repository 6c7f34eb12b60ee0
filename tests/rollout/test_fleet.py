"""What every fleet does with a request before and after it is sampled, and one engine in this process as a fleet."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pytest
from torch import Tensor

from tulu.errors import EngineError
from tulu.rollout.engine import STALE, Part, Places
from tulu.rollout.fleet import Finished, Request, Returned, joined, prepared
from tulu.rollout.local_fleet import LocalFleet
from tulu.types import Completion, Group, Problem, SamplingParams


def completion(tokens: Sequence[int], *versions: tuple[int, int], finish: str = "length") -> Completion:
    return Completion(list(tokens), [True] * len(tokens), [-float(token) for token in tokens], finish, list(versions))  # type: ignore[arg-type]


def test_two_parts_make_one_completion_and_every_span_keeps_its_version() -> None:
    begun, rest = completion([1, 2, 3], (0, 4), (2, 5)), completion([7, 8], (0, 5), (1, 6), finish="stop")
    both = joined(begun, rest)
    assert (both.tokens, both.versions, both.finish) == ([1, 2, 3, 7, 8], [(0, 4), (2, 5), (4, 6)], "stop")
    assert both.sampler_logps == [-1, -2, -3, -7, -8]
    assert joined(None, rest) is rest
    assert joined(begun, completion([], finish="stop")).versions == [(0, 4), (2, 5)]


def test_a_part_that_goes_on_draws_with_other_random_numbers() -> None:
    request = Request("0:1", "p", [1], SamplingParams(9, seed=3), sample=1)
    seeds = {request.seed, replace(request, sample=0).seed, replace(request, problem_id="q").seed}
    seeds |= {replace(request, begun=completion(range(n), (0, 1))).seed for n in (1, 2)}
    seeds.add(replace(request, params=SamplingParams(9, seed=4)).seed)
    assert len(seeds) == 6
    assert replace(request, begun=completion([])).seed == request.seed == replace(request, key="other").seed


def test_the_tokens_in_which_a_stop_text_might_have_begun_are_sampled_anew() -> None:
    """`</a>` is four bytes, so at most its first three tokens of a byte each stand before the cut."""
    begun = completion(range(10), (0, 1), (8, 2))
    request = Request("k", "p", [1], SamplingParams(20, stop=("</a>", "x")), begun=begun)
    ready = prepared(request)
    assert isinstance(ready, Request)
    assert ready.begun == completion(range(7), (0, 1))
    plain = prepared(replace(request, params=SamplingParams(20)))
    assert isinstance(plain, Request)
    assert plain.begun == begun


def test_what_had_begun_and_is_as_long_as_allowed_is_finished() -> None:
    ready = prepared(Request("k", "p", [1], SamplingParams(3), begun=completion([5, 6, 7, 8], (0, 1), (3, 2))))
    assert isinstance(ready, Finished)
    assert ready.completion == completion([5, 6, 7], (0, 1))


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (Request("k", "p", [1] * 8, SamplingParams(3)), "exceed the 10 tokens"),
        (Request("k", "p", [], SamplingParams(3)), "prompt of 0 tokens"),
        (Request("k", "p", [1], SamplingParams(0)), "max_tokens 0"),
    ],
)
def test_a_request_that_cannot_be_sampled_is_refused_by_name(request_: Request, word: str) -> None:
    with pytest.raises(EngineError, match=f"^p: .*{word}"):
        prepared(request_, 10)


class CountingEngine:
    """Samples the problem's number, the place in its group and the length of what it reads; notes every call."""

    def __init__(self) -> None:
        self.version = 0
        self.calls: list[tuple[list[str], int, SamplingParams]] = []
        self.broken = False

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        if self.broken:
            raise EngineError("broken")
        self.calls.append(([problem.id for problem in problems], n, params))
        return [
            Group(
                problem.prompt, [completion([sample, len(problem.prompt)], (0, self.version)) for sample in range(n)], problem.id
            )
            for problem in problems
        ]

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        self.version = version

    def close(self) -> None:
        self.version = STALE


def group(problem: str, prompt: Sequence[int], samples: int, params: SamplingParams) -> list[Request]:
    return [Request(f"{problem}:{sample}", problem, prompt, params, sample, samples) for sample in range(samples)]


def test_a_local_fleet_asks_its_engine_for_the_groups_that_were_submitted_in_one_call() -> None:
    """So the rollouts of RLVR are those that the engine alone gives: same order, same size of groups, same seed."""
    engine, params = CountingEngine(), SamplingParams(8, seed=11)
    fleet = LocalFleet(engine)
    assert fleet.collect(1.0) == []
    assert engine.calls == []
    fleet.submit([*group("a", [1, 2], 3, params), *group("b", [1], 3, params)])
    ended = fleet.collect(0.0)
    assert engine.calls == [(["a", "b"], 3, params)]
    assert [end.key for end in ended] == ["a:0", "a:1", "a:2", "b:0", "b:1", "b:2"]
    assert [end.completion.tokens for end in ended if isinstance(end, Finished)] == [
        [0, 2],
        [1, 2],
        [2, 2],
        [0, 1],
        [1, 1],
        [2, 1],
    ]
    (state,) = fleet.states()
    assert (state.status, state.tokens, state.running) == ("ready", 12, 0)


def test_a_part_of_a_group_gets_the_tokens_that_it_has_in_the_whole_group() -> None:
    engine = CountingEngine()
    fleet = LocalFleet(engine)
    fleet.submit(group("a", [1, 2], 4, SamplingParams(8))[2:3])
    (end,) = fleet.collect(0.0)
    assert isinstance(end, Finished)
    assert (engine.calls[0][1], end.completion.tokens) == (4, [2, 2])


def test_a_local_fleet_goes_on_behind_what_had_begun() -> None:
    engine = CountingEngine()
    fleet = LocalFleet(engine)
    begun = completion([5, 6, 7], (0, 0))
    fleet.submit([replace(group("a", [1, 2], 1, SamplingParams(8))[0], begun=begun)])
    engine.version = 4
    (end,) = fleet.collect(0.0)
    assert isinstance(end, Finished)
    assert (end.completion.tokens, end.completion.versions) == ([5, 6, 7, 0, 5], [(0, 0), (3, 4)])
    assert engine.calls[0][2].max_tokens == 5


def test_a_local_fleet_loses_nothing_when_its_engine_fails_or_a_request_is_cut() -> None:
    engine = CountingEngine()
    fleet = LocalFleet(engine)
    fleet.submit(group("a", [1], 2, SamplingParams(8)))
    # Of requests of which one is refused, none is taken.
    for refused in (
        group("a", [1], 1, SamplingParams(8)),
        2 * group("c", [1], 1, SamplingParams(8)),
        group("d", [], 1, SamplingParams(8)),
    ):
        with pytest.raises(EngineError, match=r"twice|prompt of 0 tokens"):
            fleet.submit([*group("b", [1], 1, SamplingParams(8)), *refused])
    fleet.cut(["a:0", "unknown"])
    engine.broken = True
    with pytest.raises(EngineError, match="broken"):
        fleet.collect(0.0)
    engine.broken = False
    cut, end = fleet.collect(0.0)
    assert cut == Returned("a:0", None, "it was cut", "engine")
    assert end.key == "a:1"
    fleet.close()
    assert (fleet.room(), fleet.states()[0].status) == (0, "stale")


class OneByOne(CountingEngine):
    """Hands over one completion after the other, those with the higher places first, and some parts are empty."""

    exact = False

    def __init__(self) -> None:
        super().__init__()
        self.handed: list[tuple[str, int]] = []
        self.breaks_at = -1

    def sample(self, problems: Sequence[Problem], n: int, params: SamplingParams, wanted: Places) -> Iterator[Part]:
        groups = self.generate(problems, n, params)
        for index, places in enumerate(wanted):
            for place in sorted(places, reverse=True):
                yield []
                if len(self.handed) == self.breaks_at:
                    raise EngineError("broken")
                self.handed.append((problems[index].id, place))
                yield [(index, place, groups[index].completions[place])]


def test_what_ended_is_handed_over_while_the_engine_works_on_and_what_is_submitted_meanwhile_waits() -> None:
    engine, params = OneByOne(), SamplingParams(8)
    fleet = LocalFleet(engine)
    fleet.submit(group("a", [1, 2], 2, params))
    assert ([end.key for end in fleet.collect(0.0)], fleet.works, engine.handed) == (["a:1"], True, [("a", 1)])
    with pytest.raises(EngineError, match="twice"):
        fleet.submit(group("a", [1, 2], 1, params))
    fleet.submit(group("b", [1], 3, params)[1:])
    assert fleet.states()[0].running == 3
    fleet.cut(["a:0", "b:2"])
    ended = fleet.collect(0.0)
    assert [(end.key, type(end)) for end in ended] == [("b:2", Returned), ("a:0", Finished)]
    assert not fleet.works
    assert [names for names, *_ in engine.calls] == [["a"]]
    assert [end.key for end in fleet.collect(0.0)] == ["b:1"]
    assert engine.handed[2:] == [("b", 1)], "the others of its group are there already"
    assert (fleet.collect(0.0), fleet.works, fleet.states()[0].tokens) == ([], False, 6)


@pytest.mark.parametrize("make", [CountingEngine, OneByOne])
def test_a_problem_may_be_asked_twice_in_one_call_and_another_may_have_its_name(make: type[CountingEngine]) -> None:
    engine, params = make(), SamplingParams(8)
    fleet = LocalFleet(engine)
    twice = [replace(request, key=f"again:{request.sample}") for request in group("a", [1, 2], 2, params)]
    other = [replace(request, key=f"other:{request.sample}") for request in group("a", [1, 2, 3], 2, params)]
    fleet.submit([*group("a", [1, 2], 2, params), *twice, *other])
    found = {end.key: list(end.completion.tokens) for end in fleet.collect_call() if isinstance(end, Finished)}
    assert found == {
        f"{name}:{place}": [place, 3 if name == "other" else 2] for name in ("a", "again", "other") for place in (0, 1)
    }


def test_a_whole_call_is_collected_where_its_turns_belong_together() -> None:
    fleet = LocalFleet(OneByOne())
    fleet.submit([*group("a", [1, 2], 2, SamplingParams(8)), *group("b", [1], 1, SamplingParams(8))])
    assert [end.key for end in fleet.collect_call()] == ["a:1", "a:0", "b:0"]


def test_what_had_ended_when_the_engine_failed_is_not_asked_for_again() -> None:
    engine, params = OneByOne(), SamplingParams(8)
    engine.breaks_at = 2
    fleet = LocalFleet(engine)
    fleet.submit([*group("a", [1, 2], 2, params), *group("b", [1], 2, params)])
    with pytest.raises(EngineError, match="broken"):
        fleet.collect_call()
    assert not fleet.works
    fleet.submit(group("c", [1], 1, params))
    engine.breaks_at = -1
    assert [end.key for end in fleet.collect_call()] == ["a:1", "a:0", "b:1", "b:0", "c:0"]
    assert engine.handed == [("a", 1), ("a", 0), ("b", 1), ("b", 0), ("c", 0)]
    # Groups of another size are a call of their own.
    assert [names for names, *_ in engine.calls] == [["a", "b"], ["b"], ["c"]]


def test_an_engine_that_ends_its_call_too_early_is_told() -> None:
    engine = OneByOne()
    engine.sample = lambda *given: iter([[]])  # type: ignore[method-assign]
    fleet = LocalFleet(engine)
    fleet.submit(group("a", [1, 2], 2, SamplingParams(8)))
    with pytest.raises(EngineError, match="ended its call without 2 of the completions"):
        fleet.collect(0.0)
