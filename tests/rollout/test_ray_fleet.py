"""Engines in processes of their own: they come back by themselves, hold what the learner sent, and lose no request.

The replicas sample without a model; Ray, its processes and its object store are the real ones.
"""

import logging
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="ray is not installed")

import ray
import torch
from safetensors.torch import save_file

from tests.rollout import fake_replica
from tests.rollout.fake_replica import FakeReplica, token_of
from tulu.errors import EngineError
from tulu.rollout.engine import STALE, EngineSpec
from tulu.rollout.fleet import Ended, Finished, Request, Returned
from tulu.rollout.fleet_member import Limits
from tulu.rollout.pieces import ObjectShelf, put
from tulu.rollout.ray_fleet import RayFleet
from tulu.rollout.sync import pack_weights
from tulu.rollout.transport import Group
from tulu.types import Completion, SamplingParams

pytestmark = pytest.mark.xdist_group("ray")

LIMITS = Limits(start=60, sync=5, answer=4, silent=3)
SOON = 60.0
"""Far more than anything here takes on a busy machine, and far less than a hang."""


def weights(value: float) -> dict[str, torch.Tensor]:
    """Two tensors, of which the first is larger than half of all; their sum is 150 times the value."""
    return {"a.weight": torch.full((10, 10), value), "b.weight": torch.full((50,), value)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet")
    save_file(weights(0.0), str(folder / "model.safetensors"))
    return folder


@pytest.fixture(scope="module")
def fleet(model: Path) -> Iterator[RayFleet]:
    ray.cloudpickle.register_pickle_by_value(fake_replica)
    made = RayFleet(EngineSpec(str(model), 64), engines=2, limits=LIMITS, replica=FakeReplica)
    try:
        with pytest.raises(EngineError, match="stale"):
            made.submit(requests(1))
        yield made
    finally:
        made.close()
    assert not ray.is_initialized()


@pytest.fixture
def synced(fleet: RayFleet) -> RayFleet:
    fleet.sync(weights(1.0).items(), 1)
    # An engine that the test before has ended may still be on its way back.
    back(fleet)
    return fleet


COUNT = iter(range(10**6))
MADE: dict[str, Request] = {}


def requests(count: int, tokens: int = 8, pace: float = 0.01) -> list[Request]:
    made = [Request(f"{next(COUNT)}:0", f"p{i}@{pace}", [1, 2, 3], SamplingParams(tokens, seed=5)) for i in range(count)]
    MADE.update({request.key: request for request in made})
    return made


def tokens_of(end: Finished, weight: float) -> list[int]:
    """What a request of `requests` gets with weights of that sum."""
    request = MADE[end.key]
    return [token_of(weight, request.seed, place) for place in range(request.params.max_tokens)]


def gather(fleet: RayFleet, count: int) -> dict[str, Ended]:
    """What ends, until so many have."""
    ended: dict[str, Ended] = {}
    deadline = time.monotonic() + SOON
    while len(ended) < count:
        assert time.monotonic() < deadline, f"{len(ended)} of {count} ended; {fleet.states()}"
        ended |= {end.key: end for end in fleet.collect(1.0)}
    return ended


def whole(fleet: RayFleet, wanted: Sequence[Request], submitted: bool = False) -> tuple[dict[str, Finished], list[Returned]]:
    """Submit these, unless that has been done, and those that come back again, until all have finished."""
    open_requests = {request.key: request for request in wanted}
    finished: dict[str, Finished] = {}
    returned: list[Returned] = []
    if not submitted:
        fleet.submit(wanted)
    deadline = time.monotonic() + SOON
    while open_requests:
        assert time.monotonic() < deadline, f"{len(open_requests)} are missing; {fleet.states()}"
        for end in fleet.collect(1.0):
            if isinstance(end, Finished):
                finished[end.key] = end
                del open_requests[end.key]
            else:
                returned.append(end)
                fleet.submit([replace(open_requests[end.key], begun=end.begun)])
    return finished, returned


def back(fleet: RayFleet) -> None:
    """Wait until every engine samples again."""
    deadline = time.monotonic() + SOON
    while {state.status for state in fleet.states()} != {"ready"}:
        assert time.monotonic() < deadline, fleet.states()
        time.sleep(0.05)


def process(fleet: RayFleet, index: int = 0) -> int:
    return int(ray.get(fleet.members[index].actor.__ray_call__.remote(lambda replica: os.getpid()), timeout=30))


def test_tokens_are_those_of_the_weights_that_were_sent(synced: RayFleet) -> None:
    wanted = requests(6)
    finished, returned = whole(synced, wanted)
    assert not returned
    assert {end.engine for end in finished.values()} == {"engine-1", "engine-2"}
    for request in wanted:
        completion = finished[request.key].completion
        assert list(completion.tokens) == [token_of(150.0, request.seed, place) for place in range(8)]
        assert completion.versions == [(0, 1)]


def test_requests_in_flight_go_on_with_the_new_weights(synced: RayFleet) -> None:
    wanted = requests(4, tokens=40, pace=0.02)
    synced.submit(wanted)
    time.sleep(0.3)
    report = synced.sync(weights(2.0).items(), 2)
    assert (report.version, report.tensors, report.bytes, list(report.engines)) == (2, 2, 600, ["engine-1", "engine-2"])
    assert {"pause", "pack", "send", "receive", "verify", "load", "resume"} <= report.parts.keys()
    ended = gather(synced, 4)
    for request in wanted:
        end = ended[request.key]
        assert isinstance(end, Finished)
        (_, first), (change, second) = end.completion.versions
        assert (first, second) == (1, 2)
        expected = [token_of(150.0 if place < change else 300.0, request.seed, place) for place in range(40)]
        assert list(end.completion.tokens) == expected


def test_a_request_that_is_cut_comes_back_and_goes_on(synced: RayFleet) -> None:
    (request,) = requests(1, tokens=60, pace=0.02)
    synced.submit([request])
    time.sleep(0.4)
    synced.cut([request.key])
    end = gather(synced, 1)[request.key]
    assert isinstance(end, Returned)
    assert end.begun is not None
    begun = len(end.begun.tokens)
    assert 0 < begun < 60
    finished, _ = whole(synced, [replace(request, begun=end.begun)])
    completion = finished[request.key].completion
    assert list(completion.tokens[:begun]) == list(end.begun.tokens)
    assert len(completion.tokens) == 60
    # The part behind draws with random numbers of its own.
    assert list(completion.tokens[begun:]) != [token_of(150.0, request.seed, place) for place in range(60 - begun)]


def test_a_killed_engine_comes_back_with_the_last_weights_and_no_request_is_lost(synced: RayFleet, model: Path) -> None:
    wanted = requests(12, tokens=30, pace=0.03)
    killed = process(synced)
    synced.submit(wanted)
    time.sleep(0.2)
    os.kill(killed, signal.SIGKILL)
    finished, returned = whole(synced, wanted, submitted=True)
    assert finished.keys() == {request.key for request in wanted}
    assert returned
    assert all("engine-1: its process died" in end.reason for end in returned)
    # The engine that is not back yet holds the weights of the folder, and gets no request.
    state = synced.states()[0]
    assert state.status == "ready" or (state.version, state.running, synced.members[0].room) == (STALE, 0, 0)
    back(synced)
    (recovery,) = synced.check()
    assert (recovery.engine, recovery.version) == ("engine-1", 1)
    print(f"back after {recovery.seconds:.1f} s")
    again, _ = whole(synced, requests(8))
    assert {end.engine for end in again.values()} == {"engine-1", "engine-2"}
    assert all(list(end.completion.tokens) == tokens_of(end, 150.0) for end in again.values())


def test_engines_that_hang_are_told_by_name_and_started_again(synced: RayFleet, model: Path) -> None:
    """One does not answer at all; the other answers, and samples nothing."""
    for trick in ("freeze", "stall"):
        (model / trick).touch()
    finished, returned = whole(synced, requests(8, tokens=10))
    assert len(finished) == 8
    reasons = {end.engine: end.reason for end in returned}
    assert sorted(reasons) == ["engine-1", "engine-2"]
    assert all(reason.startswith(f"{name}: it hangs: ") for name, reason in reasons.items())
    assert any("it has been silent for" in reason for reason in reasons.values())
    assert any("no token of" in reason for reason in reasons.values())
    back(synced)
    assert {recovery.engine for recovery in synced.check()} == {"engine-1", "engine-2"}


def test_one_parcel_that_is_spoilt_on_its_way_is_sent_again(
    synced: RayFleet, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (model / "corrupt").touch()
    with caplog.at_level(logging.WARNING, "tulu"):
        report = synced.sync(weights(3.0).items(), 3)
    assert list(report.engines) == ["engine-1", "engine-2"]
    assert re.search(r"(a|b)\.weight is corrupted in engine-[12]: its digest is not the learner's", caplog.text)
    finished, _ = whole(synced, requests(4))
    assert all(list(end.completion.tokens) == tokens_of(end, 450.0) for end in finished.values())


def test_an_engine_that_dies_in_a_sync_is_left_out_and_takes_the_same_weights_when_it_is_back(
    synced: RayFleet, model: Path
) -> None:
    wanted = requests(8, tokens=40, pace=0.02)
    synced.submit(wanted)
    (model / "freeze-in-sync").touch()
    report = synced.sync(weights(4.0).items(), 4)
    assert len(report.engines) == 1
    finished, returned = whole(synced, wanted, submitted=True)
    assert finished.keys() == {request.key for request in wanted}
    assert all("it has been pausing for" in end.reason for end in returned)
    back(synced)
    assert [state.version for state in synced.states()] == [4, 4]
    again, _ = whole(synced, requests(6))
    assert all(list(end.completion.tokens) == tokens_of(end, 600.0) for end in again.values())


@pytest.fixture
def by_broadcast(synced: RayFleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayFleet]:
    """The fleet with a group of learner and engines, over gloo in place of NCCL."""
    group = Group("gloo", torch.device("cpu"), "127.0.0.1", meet=SOON, each=2.0)
    monkeypatch.setattr(synced, "transport", group)
    yield synced
    group.close()


def ways(fleet: RayFleet) -> list[list[str]]:
    """Where each engine found the pieces that it took since this was asked last."""

    def asked(replica: Any) -> list[str]:
        found, replica.places = replica.places, []
        return list(found)

    return [ray.get(member.actor.__ray_call__.remote(asked), timeout=SOON) for member in fleet.members]


def test_weights_are_sent_once_for_all_engines_and_kept_for_one_that_is_restarted(by_broadcast: RayFleet) -> None:
    fleet = by_broadcast
    ways(fleet)
    report = fleet.sync(weights(2.0).items(), 20)
    assert (report.way, report.tensors, report.bytes) == ("gloo", 2, 600)
    assert ways(fleet) == [["Broadcast"], ["Broadcast"]]
    finished, _ = whole(fleet, requests(6))
    assert all(list(end.completion.tokens) == tokens_of(end, 300.0) for end in finished.values())
    before = fleet.states()[0].restarts
    os.kill(process(fleet), signal.SIGKILL)
    deadline = time.monotonic() + SOON
    while fleet.states()[0].restarts == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    back(fleet)
    assert ways(fleet) == [["Memory"], []]
    finished, _ = whole(fleet, requests(6))
    assert all(list(end.completion.tokens) == tokens_of(end, 300.0) for end in finished.values())
    # The restarted one is in the group again.
    fleet.sync(weights(3.0).items(), 21)
    assert ways(fleet) == [["Broadcast"], ["Broadcast"]]


def test_what_is_spoilt_in_a_broadcast_comes_again_off_the_shelf(
    by_broadcast: RayFleet, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ways(by_broadcast)
    (model / "corrupt").touch()
    with caplog.at_level(logging.WARNING, "tulu"):
        by_broadcast.sync(weights(3.0).items(), 22)
    assert "is corrupted in engine-" in caplog.text
    assert sorted(ways(by_broadcast)) == [["Broadcast"], ["Broadcast", "Memory"]]
    finished, _ = whole(by_broadcast, requests(4))
    assert all(list(end.completion.tokens) == tokens_of(end, 450.0) for end in finished.values())


@pytest.mark.parametrize("trick", ["die-in-broadcast", "freeze-in-broadcast"])
def test_an_engine_that_goes_in_mid_broadcast_does_not_hold_up_the_learner(
    by_broadcast: RayFleet, model: Path, trick: str
) -> None:
    (model / trick).touch()
    began = time.monotonic()
    report = by_broadcast.sync(weights(4.0).items(), 23)
    assert time.monotonic() - began < 30
    assert len(report.engines) == 1
    back(by_broadcast)
    finished, _ = whole(by_broadcast, requests(6))
    assert all(list(end.completion.tokens) == tokens_of(end, 600.0) for end in finished.values())
    assert {end.engine for end in finished.values()} == {"engine-1", "engine-2"}


def test_a_group_that_does_not_meet_costs_the_short_way_and_not_the_sync(
    by_broadcast: RayFleet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways(by_broadcast)
    monkeypatch.setattr(by_broadcast.transport, "workers", 2)
    monkeypatch.setattr(by_broadcast.transport, "joining", replace(by_broadcast.transport.joining, seconds=1.0))
    with caplog.at_level(logging.WARNING, "tulu"):
        by_broadcast.sync(weights(5.0).items(), 24)
    assert "gloo between learner and engines does not work now (the group of 5 processes did not meet" in caplog.text
    assert ways(by_broadcast) == [["Memory"], ["Memory"]]


def calls_of(fleet: RayFleet) -> list[list[str]]:
    """What each engine did since this was asked last, in order."""

    def asked(replica: Any) -> list[str]:
        found, replica.calls = replica.calls, []
        return list(found)

    return [ray.get(member.actor.__ray_call__.remote(asked), timeout=SOON) for member in fleet.members]


def test_engines_sleep_while_the_learner_trains_and_wake_in_the_order_that_memory_allows(
    synced: RayFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls_of(synced)
    synced.rest()
    assert calls_of(synced) == [[], []], "engines with GPUs of their own do not sleep"
    monkeypatch.setattr(synced, "spec", replace(synced.spec, sleeps=True))
    wanted = requests(2, tokens=60, pace=1.0)
    synced.submit(wanted)
    synced.rest()
    assert [state.status for state in synced.states()] == ["asleep", "asleep"]
    assert synced.room() == 0
    later = requests(1)
    synced.submit(later)
    assert [state.running for state in synced.states()] == [1, 1]
    os.kill(process(synced, 1), signal.SIGKILL)
    (gone,) = gather(synced, 1).values()
    assert isinstance(gone, Returned)
    assert synced.members[1].actor is None
    synced.submit([replace(MADE[gone.key], begun=gone.begun)])
    report = synced.sync(weights(2.0).items(), 30)
    assert list(report.engines) == ["engine-1"], "the other one loads its model only now that the learner does not train"
    assert calls_of(synced)[0] == ["sleep", "wake weights", "pause", "take", "adopt", "wake kv_cache", "resume"]
    # What was in flight when they fell asleep goes on; what came meanwhile is sampled with the new weights alone.
    synced.cut([request.key for request in wanted])
    ended = gather(synced, 3)
    assert ended.keys() == {request.key for request in [*wanted, *later]}
    finished = ended[later[0].key]
    assert isinstance(finished, Finished)
    assert finished.completion.versions == [(0, 30)]
    back(synced)


def test_a_cluster_s_engines_read_the_object_store(synced: RayFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synced, "shelf", ObjectShelf())
    report = synced.sync(weights(7.0).items(), 25)
    assert report.way == "the object store"
    finished, _ = whole(synced, requests(4))
    assert all(list(end.completion.tokens) == tokens_of(end, 1050.0) for end in finished.values())
    synced.sync(weights(1.0).items(), 26)
    finished, _ = whole(synced, requests(4))
    assert all(list(end.completion.tokens) == tokens_of(end, 150.0) for end in finished.values())


def test_a_full_object_store_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(value: object) -> None:
        raise ray.exceptions.ObjectStoreFullError("Failed to put object; the object store is full.\nIt holds other things.")

    monkeypatch.setattr(ray, "put", full)
    (parcel,) = pack_weights(weights(5.0).items(), torch.float32)
    with pytest.raises(
        EngineError, match=r"(?s)no room for 0 MB of weights \(Failed to put .* full\.\)\n.*--object-store-memory"
    ):
        put(parcel)


def test_a_request_that_does_not_fit_or_comes_twice_is_refused(synced: RayFleet) -> None:
    (request,) = requests(1, tokens=62)
    with pytest.raises(EngineError, match="exceed the 64 tokens"):
        synced.submit([request])
    (request,) = requests(1)
    synced.submit([request])
    with pytest.raises(EngineError, match="twice"):
        synced.submit([request])
    gather(synced, 1)


def test_a_model_that_predicts_nan_is_told(synced: RayFleet) -> None:
    broken = Completion([1, 2], [True, True], [-1.0, float("nan")], "length", [(0, 1)])
    with pytest.raises(EngineError, match=r"^7:0: the model predicts NaN"):
        synced._take_over([Finished("7:0", broken, "engine-1")])


def test_weights_that_are_always_spoilt_end_the_run_with_the_names(
    synced: RayFleet, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines that hold half of new weights must not go on, and here they may not start again either."""
    monkeypatch.setattr("tulu.rollout.fleet_member.MOST_FAILURES", 0)
    wanted = requests(4, tokens=60, pace=1.0)
    synced.submit(wanted)
    (model / "always-corrupt").touch()
    with pytest.raises(EngineError, match=r"weight sync refused: .*\.weight is corrupted in engine-.*, twice"):
        synced.sync(weights(6.0).items(), 6)
    returned = gather(synced, 4)
    assert all(isinstance(end, Returned) for end in returned.values())
    with pytest.raises(EngineError, match=r"every engine failed too often.*engine-1: .*corrupted.*engine-2: .*corrupted"):
        synced.collect(SOON)
    assert [state.status for state in synced.states()] == ["dead", "dead"]
    with pytest.raises(EngineError, match="every engine failed"):
        synced.submit(requests(1))
