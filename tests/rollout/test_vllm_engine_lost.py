"""A vLLM worker that is lost comes back with the weights that were sent last, and only what had not ended is sampled again.

Its process is made up here; tests/rollout/test_vllm_engine.py kills the real one.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.rollout.fakes import Hands
from tests.rollout.scripted import answer
from tulu.errors import EngineError
from tulu.rollout.engine import STALE, EngineSpec, Part
from tulu.rollout.fleet_calls import EngineLost
from tulu.rollout.sync import Parcel, WeightsRefused
from tulu.rollout.vllm_engine import Sent, VllmEngine
from tulu.types import Problem, SamplingParams

PARAMS = SamplingParams(8)
KILLED = EngineLost("engine", "its process died")
SAME = EngineLost("engine", "it failed (RuntimeError: head_dim=16)", cause="head_dim=16")

Fault = BaseException | None


class Engine(VllmEngine):
    """A worker that hands over one completion after the other, and is lost as its script says."""

    def __init__(self, script: Iterable[tuple[int, Fault]] = (), version: int = STALE) -> None:
        self.script = iter(script)
        """For each call that samples: how many completions end before this happens."""
        self.at_start: list[Fault] = []
        self.at_load: list[Fault] = []
        self.asked: list[list[tuple[int, int]]] = []
        self.held = STALE
        super().__init__(EngineSpec("folder", 64, version=version))

    def _start(self) -> None:
        assert self.worker is None
        if self.at_start and (fault := self.at_start.pop(0)):
            raise fault
        self.worker, self.held = object(), self.spec.version

    def _put(self, parcels: Iterable[Parcel], version: int) -> Sent:
        return Sent([*parcels], {}, version)

    def _load(self, sent: Sent) -> None:
        assert self.worker is not None
        if self.at_load and (fault := self.at_load.pop(0)):
            raise fault
        self.held = sent.version

    def _parts(self, prompts: Sequence[Problem], wanted: Sequence[tuple[int, int]], params: SamplingParams) -> Iterator[Part]:
        assert self.held == self.version != STALE
        self.asked.append(list(wanted))
        count, fault = next(self.script, (len(wanted), None))
        for index, sample in wanted[:count]:
            yield []
            yield [(index, sample, answer(chr(ord("a") + 4 * index + sample)))]
        if fault is not None:
            raise fault

    def _kill(self) -> None:
        self.worker, self.held = None, STALE


def problems(count: int = 2) -> list[Problem]:
    return [Problem(f"p{i}", (), [i + 1], None, ()) for i in range(count)]


def letters(engine: Engine) -> list[str]:
    groups = engine.generate(problems(), 4, PARAMS)
    return ["".join(chr(completion.tokens[0]) for completion in group.completions) for group in groups]


def synced(engine: Engine, version: int = 3) -> Engine:
    engine.deliver(iter(()), version)
    return engine


def test_what_had_ended_is_kept_and_the_rest_is_sampled_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tulu")
    engine = synced(Engine([(3, KILLED), (0, KILLED), (1, SAME)]))
    assert letters(engine) == ["abcd", "efgh"]
    assert [len(asked) for asked in engine.asked] == [8, 5, 5, 4]
    assert engine.asked[1] == [(0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]
    assert (engine.version, engine.restarts) == (3, 3)
    assert (
        "the vLLM engine failed: its process died; it is started again, and 5 of 8 completions are sampled again" in caplog.text
    )
    assert caplog.text.count(" s, with weights 3") == 3


def test_each_completion_is_handed_over_once_and_only_what_is_wanted() -> None:
    engine = synced(Engine([(1, KILLED)]))
    found = [(index, sample) for part in engine.sample(problems(), 4, PARAMS, [[3], [0, 2]]) for index, sample, _ in part]
    assert found == [(0, 3), (1, 0), (1, 2)]
    assert engine.asked == [[(0, 3), (1, 0), (1, 2)], [(1, 0), (1, 2)]]


def test_a_worker_that_is_lost_before_any_sync_has_the_folder_s_weights_again() -> None:
    engine = Engine([(0, KILLED)], version=0)
    assert letters(engine) == ["abcd", "efgh"]
    assert engine.version == 0


@pytest.mark.parametrize(
    ("script", "word", "calls"),
    [
        # A completion that ends makes the count begin again, and three new ones are tried behind the fourth.
        ([(0, KILLED), (0, KILLED), (0, KILLED), (2, KILLED)] + 9 * [(0, KILLED)], r"its process died \(4 times in a row", 7),
        # Of what fails in the same words twice, a third try would be wasted.
        (9 * [(0, SAME)], r"head_dim=16\) \(2 times in a row, and no completion ended between\)", 2),
        (9 * [(0, None)], r"it ended early \(2 times", 2),
    ],
)
def test_one_that_never_comes_back_ends_the_run(script: list[tuple[int, Fault]], word: str, calls: int) -> None:
    engine = synced(Engine(script))
    with pytest.raises(EngineError, match=rf"^the vLLM engine of folder is gone: .*{word}"):
        letters(engine)
    assert len(engine.asked) == calls
    assert engine.worker is None
    with pytest.raises(EngineError, match="stale"):
        letters(engine)
    # The next sync may try again.
    engine.script = iter(())
    assert letters(synced(engine, 4)) == ["abcd", "efgh"]


def test_a_worker_that_dies_between_steps_or_in_a_sync_takes_the_new_weights() -> None:
    engine = synced(Engine())
    engine.at_load = [KILLED, KILLED, None]
    assert letters(synced(engine, 4)) == ["abcd", "efgh"]
    assert (engine.version, engine.held, engine.restarts) == (4, 4, 2)


@pytest.mark.parametrize("fault", [EngineError("no memory is free yet"), KILLED])
def test_one_that_does_not_start_again_at_once_is_tried_again(fault: BaseException) -> None:
    engine = synced(Engine([(0, KILLED)]))
    engine.at_start = [fault]
    assert letters(engine) == ["abcd", "efgh"]
    assert engine.restarts == 2


def test_weights_that_are_refused_are_not_sent_to_the_next_worker() -> None:
    engine = synced(Engine())
    engine.at_load = [WeightsRefused("weight sync refused: w is corrupted")]
    with pytest.raises(WeightsRefused):
        synced(engine, 4)
    assert (engine.version, engine.sent) == (STALE, None)
    with pytest.raises(EngineError, match="stale"):
        letters(engine)


def test_the_first_start_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(engine: Engine) -> None:
        raise KILLED

    monkeypatch.setattr(Engine, "_start", start)
    with pytest.raises(EngineError, match=r"^the vLLM engine of folder does not start: its process died"):
        Engine()


def test_progress_counts_what_ended_over_all_workers() -> None:
    engine, told = synced(Engine([(3, KILLED)])), list[int]()
    engine.progress = lambda finished, total: told.append(finished * 10 + total)
    letters(engine)
    assert told == [10 * count + 8 for count in range(1, 9)]


def test_one_that_gives_no_sign_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sign moves the deadline, be it an empty part; here three come, and then none."""
    engine = synced(Engine())
    engine.spec = replace(engine.spec, timeout=0.2)
    signs = iter([[], [(0, 0, answer("a"))], []])
    left = [True, True, True]
    hands = Hands()
    monkeypatch.setattr("tulu.deadlines.now", hands)

    def wait(streams: list[object], timeout: float) -> tuple[list[object], list[object]]:
        hands.at += 0.0625
        return (streams, []) if left and left.pop() else ([], streams)

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(wait=wait))
    monkeypatch.setattr(engine, "_get", lambda part: part)
    engine.worker = SimpleNamespace(generate=SimpleNamespace(remote=lambda *given: signs))
    found = VllmEngine._parts(engine, problems(), [(0, 0), (0, 1)], PARAMS)
    assert [len(next(found)) for _ in range(3)] == [0, 1, 0]
    with pytest.raises(EngineLost, match=r"it hangs: no answer for 0 s"):
        list(found)
    assert hands.at == (3 + 4) * 0.0625, "four waits after the last sign"
