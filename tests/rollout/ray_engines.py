"""Fleets of fake engines under a real Ray, for tests: requests, what must come of them, and waiting for it."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import ray
import torch
from safetensors.torch import save_file

from tests.rollout import fake_replica
from tests.rollout.fake_replica import FakeReplica, token_of
from tulu.rollout.engine import EngineSpec
from tulu.rollout.fleet import Ended, Finished, Request, Returned
from tulu.rollout.fleet_member import Limits
from tulu.rollout.ray_fleet import RayFleet
from tulu.types import SamplingParams

LIMITS = Limits(start=600, sync=100, answer=100, silent=100)
SHORT = Limits(start=600, sync=5, answer=4, silent=3)
"""Of tests in which an engine hangs."""
SOON = 300.0
"""Far more than anything here takes on a busy machine, and far less than a hang."""


def weights(value: float) -> dict[str, torch.Tensor]:
    """Two tensors, of which the first is larger than half of all; their sum is 150 times the value."""
    return {"a.weight": torch.full((10, 10), value), "b.weight": torch.full((50,), value)}


@contextmanager
def started(model: Path) -> Iterator[RayFleet]:
    """Two engines over a model of the test's own weights, 0 everywhere."""
    save_file(weights(0.0), str(model / "model.safetensors"))
    ray.cloudpickle.register_pickle_by_value(fake_replica)
    made = RayFleet(EngineSpec(str(model), 64), engines=2, limits=LIMITS, replica=FakeReplica)
    try:
        yield made
    finally:
        made.close()
    assert not ray.is_initialized()


@contextmanager
def impatient(fleet: RayFleet) -> Iterator[None]:
    """While the context lasts, engines that hang are given up after seconds; elsewhere a busy machine must not look like that."""

    def give(limits: Limits) -> None:
        fleet.limits = limits
        for member in fleet.members:
            member.limits = limits

    asked = [member.ear for member in fleet.members]
    give(SHORT)
    try:
        # What an engine was asked before still has the time of then.
        deadline = time.monotonic() + SOON
        while any(member.ear is ear for member, ear in zip(fleet.members, asked, strict=True)):
            assert time.monotonic() < deadline, fleet.states()
            time.sleep(0.02)
        yield
    finally:
        give(LIMITS)


def fresh(fleet: RayFleet) -> RayFleet:
    """Both engines, with weights 1; one that the test before has ended may still be on its way back."""
    fleet.sync(weights(1.0).items(), 1)
    back(fleet)
    fleet.check()
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


def submit_and_see(fleet: RayFleet, wanted: Sequence[Request], each: int = 2) -> None:
    """Submit these, and wait until the engines have sampled so many tokens for each: they are in flight then, on any machine."""
    until = sampled(fleet) + each * len(wanted)
    fleet.submit(wanted)
    deadline = time.monotonic() + SOON
    while sampled(fleet) < until:
        assert time.monotonic() < deadline, fleet.states()
        time.sleep(0.005)


def sampled(fleet: RayFleet) -> int:
    """Tokens that the engines have sampled since they started, collected or not."""
    asked = [member.actor.__ray_call__.remote(lambda replica: replica.tokens) for member in fleet.members]
    return sum(ray.get(asked, timeout=SOON))


def process(fleet: RayFleet, index: int = 0) -> int:
    return int(ray.get(fleet.members[index].actor.__ray_call__.remote(lambda replica: os.getpid()), timeout=SOON))


def standing_by(fleet: RayFleet) -> int:
    """The process that stands by, as soon as there is one that has imported what it needs."""
    deadline = time.monotonic() + SOON
    while fleet.standby.actor is None:
        assert time.monotonic() < deadline, fleet.states()
        time.sleep(0.05)
    return int(ray.get(fleet.standby.actor.__ray_call__.remote(lambda replica: os.getpid()), timeout=SOON))
