"""Engines in processes of their own: they come back by themselves, hold what the learner sent, and lose no request.

The replicas sample without a model; Ray, its processes and its object store are the real ones.
"""

import logging
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="ray is not installed")

import ray
import torch
from safetensors.torch import save_file

from tests.rollout.fake_replica import FakeReplica, token_of
from tests.rollout.ray_engines import (
    LIMITS,
    MADE,
    SOON,
    back,
    fresh,
    gather,
    impatient,
    process,
    requests,
    standing_by,
    started,
    submit_and_see,
    tokens_of,
    weights,
    whole,
)
from tulu.errors import EngineError
from tulu.rollout.engine import STALE, EngineSpec
from tulu.rollout.fleet import Finished, Returned
from tulu.rollout.pieces import put
from tulu.rollout.ray_fleet import RayFleet
from tulu.rollout.sync import pack_weights
from tulu.types import Completion


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fleet")


@pytest.fixture(scope="module")
def fleet(model: Path) -> Iterator[RayFleet]:
    (model / "die-at-start").touch()
    with started(model) as made:
        assert any(state.restarts for state in made.states()), "one was killed while it loaded its model"
        with pytest.raises(EngineError, match="stale"):
            made.submit(requests(1))
        yield made


@pytest.fixture
def synced(fleet: RayFleet) -> RayFleet:
    return fresh(fleet)


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
    submit_and_see(synced, wanted)
    report = synced.sync(weights(2.0).items(), 2)
    assert (report.version, report.tensors, report.bytes, list(report.engines)) == (2, 2, 600, ["engine-1", "engine-2"])
    assert {"pause", "gather", "shelve", "receive", "verify", "load", "resume"} <= report.parts.keys()
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
    submit_and_see(synced, [request])
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
    submit_and_see(synced, wanted)
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


def test_a_lost_engine_is_back_in_the_process_that_stood_by_and_another_stands_by_then(synced: RayFleet) -> None:
    first = standing_by(synced)
    os.kill(process(synced), signal.SIGKILL)
    back_again(synced)
    assert process(synced) == first
    # One that dies while it stands by is replaced, and no engine is the worse for it.
    second = standing_by(synced)
    assert second != first
    os.kill(second, signal.SIGKILL)
    os.kill(process(synced, 1), signal.SIGKILL)
    back_again(synced)
    assert process(synced, 1) != second
    finished, _ = whole(synced, requests(8))
    assert {end.engine for end in finished.values()} == {"engine-1", "engine-2"}
    assert all(list(end.completion.tokens) == tokens_of(end, 150.0) for end in finished.values())
    standing_by(synced)


def back_again(fleet: RayFleet) -> None:
    """Wait until the engine that was killed has been missed, and is back."""
    deadline = time.monotonic() + SOON
    while not fleet.check():
        assert time.monotonic() < deadline, fleet.states()
        time.sleep(0.05)
    back(fleet)


def test_engines_that_hang_are_told_by_name_and_started_again(synced: RayFleet, model: Path) -> None:
    """One does not answer at all; the other answers, and samples nothing."""
    with impatient(synced):
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
    with impatient(synced):
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


def test_weights_that_no_engine_lived_to_take_wait_for_those_that_come_back(synced: RayFleet, model: Path) -> None:
    """The only engine of a run may be killed at any moment."""
    wanted = requests(8, tokens=40, pace=0.02)
    synced.submit(wanted)
    (model / "all-die-in-sync").touch()
    report = synced.sync(weights(5.0).items(), 5)
    (model / "all-die-in-sync").unlink()
    assert (report.engines, report.tensors, report.bytes) == ([], 2, 600)
    finished, returned = whole(synced, wanted, submitted=True)
    assert finished.keys() == {request.key for request in wanted}
    assert all("its process died" in end.reason for end in returned)
    back(synced)
    assert [state.version for state in synced.states()] == [5, 5]
    again, _ = whole(synced, requests(6))
    assert all(list(end.completion.tokens) == tokens_of(end, 750.0) for end in again.values())


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


def test_an_engine_that_fails_of_the_same_twice_without_a_token_ends_the_run(
    fleet: RayFleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The Ray of the fleet beside it serves both."""

    def ask_again() -> None:
        while True:
            made.submit([MADE[end.key] for end in made.collect(1.0)])

    caplog.set_level(logging.WARNING, "tulu")
    save_file(weights(0.0), str(tmp_path / "model.safetensors"))
    (tmp_path / "always-broken").write_text("no head of 16")
    made = RayFleet(EngineSpec(str(tmp_path), 64, version=0), engines=1, limits=LIMITS, replica=FakeReplica)
    try:
        made.submit(requests(3))
        with pytest.raises(EngineError, match=r"every engine failed.*engine-1: sampling failed \(RuntimeError: no head of 16\)"):
            ask_again()
    finally:
        made.close()
    told = [record.getMessage() for record in caplog.records if "engine-1 failed: " in record.getMessage()]
    assert [line.partition("16); ")[2] for line in told] == [
        "it is started again, and its 3 requests are given back",
        "that is too often, and its 3 requests are given back",
    ]


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
