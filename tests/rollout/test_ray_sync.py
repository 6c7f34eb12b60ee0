"""How new weights come to engines in processes of their own: by broadcast, off the shelf, and to engines that slept.

The replicas sample without a model; Ray, its processes, its object store and the group of learner and engines are the real ones.
"""

import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="ray is not installed")

import ray
import torch

from tests.rollout.ray_engines import (
    MADE,
    SOON,
    back,
    fresh,
    gather,
    impatient,
    process,
    requests,
    started,
    tokens_of,
    weights,
    whole,
)
from tulu.rollout.fleet import Finished, Returned
from tulu.rollout.pieces import ObjectShelf
from tulu.rollout.ray_fleet import RayFleet
from tulu.rollout.transport import Group


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fleet")


@pytest.fixture(scope="module")
def fleet(model: Path) -> Iterator[RayFleet]:
    with started(model) as made:
        yield made


@pytest.fixture
def synced(fleet: RayFleet) -> RayFleet:
    return fresh(fleet)


@pytest.fixture
def by_broadcast(synced: RayFleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayFleet]:
    """The fleet with a group of learner and engines, over gloo in place of NCCL."""
    group = Group("gloo", torch.device("cpu"), "127.0.0.1", meet=SOON, each=SOON)
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
    by_broadcast: RayFleet, model: Path, trick: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = by_broadcast.transport
    assert isinstance(group, Group)
    monkeypatch.setattr(group, "joining", replace(group.joining, each=2.0))
    with impatient(by_broadcast):
        (model / trick).touch()
        began = time.monotonic()
        report = by_broadcast.sync(weights(4.0).items(), 23)
    assert time.monotonic() - began < SOON
    assert len(report.engines) == 1
    back(by_broadcast)
    finished, _ = whole(by_broadcast, requests(6))
    assert all(list(end.completion.tokens) == tokens_of(end, 600.0) for end in finished.values())
    assert {end.engine for end in finished.values()} == {"engine-1", "engine-2"}


def test_a_group_that_does_not_meet_costs_the_short_way_and_not_the_sync(
    by_broadcast: RayFleet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways(by_broadcast)
    group = by_broadcast.transport
    assert isinstance(group, Group)
    monkeypatch.setattr(group, "workers", 2)
    monkeypatch.setattr(group, "joining", replace(group.joining, seconds=1.0))
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


def test_an_engine_that_starts_when_the_learner_is_about_to_train_is_waited_for(
    synced: RayFleet, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the learner's GPU it would else load its model beside the training."""
    monkeypatch.setattr(synced, "spec", replace(synced.spec, sleeps=True))
    (model / "start-slowly").touch()
    os.kill(process(synced, 1), signal.SIGKILL)
    deadline = time.monotonic() + SOON
    while synced.states()[1].status == "ready":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert synced.states()[1].status == "starting"
    synced.rest()
    assert [state.status for state in synced.states()] == ["asleep", "asleep"]
    assert sorted(synced.sync(weights(2.0).items(), 31).engines) == ["engine-1", "engine-2"]


def test_a_cluster_s_engines_read_the_object_store(synced: RayFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synced, "shelf", ObjectShelf())
    report = synced.sync(weights(7.0).items(), 25)
    assert report.way == "the object store"
    finished, _ = whole(synced, requests(4))
    assert all(list(end.completion.tokens) == tokens_of(end, 1050.0) for end in finished.values())
    synced.sync(weights(1.0).items(), 26)
    finished, _ = whole(synced, requests(4))
    assert all(list(end.completion.tokens) == tokens_of(end, 150.0) for end in finished.values())
