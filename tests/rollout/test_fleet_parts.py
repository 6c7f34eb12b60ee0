"""The parts of a fleet that need no process of their own: how many requests, which GPUs, what a replica refuses."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.rollout.fake_replica import FakeReplica
from tulu.errors import EngineError, RecipeError
from tulu.rollout import fleet_places
from tulu.rollout.engine import EngineSpec
from tulu.rollout.fleet import Request
from tulu.rollout.fleet_admission import WINDOW_SECONDS, Admission
from tulu.rollout.fleet_member import Limits, Member, why_hopeless
from tulu.rollout.fleet_places import load_threads, places
from tulu.rollout.fleet_replica import Report
from tulu.rollout.pieces import Objects, Piece, SharedMemory
from tulu.rollout.sync import Layout, WeightsRefused, pack_weights
from tulu.types import SamplingParams

WEIGHTS = {"a": torch.arange(100, dtype=torch.float32), "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.ones(0)}


def climb(admission: Admission, saturation: int, windows: int) -> list[int]:
    """The limits of an engine whose speed rises with its requests up to a number, as many as it is given."""
    now, tokens, limits = 0.0, 0, []
    for _ in range(2 * windows):
        admission.observe(admission.limit, 0, tokens, now)
        limits.append(admission.limit)
        now += WINDOW_SECONDS
        tokens += int(100 * min(admission.limit, saturation) * WINDOW_SECONDS)
    return limits


def test_an_engine_gets_more_requests_as_long_as_that_makes_it_faster() -> None:
    # 32, 48, 72, 108: the last is no faster than 100 allow by more than a factor; 162 is not faster at all.
    limits = climb(Admission(limit=32), 100, 10)
    assert limits[-1] in (72, 108)
    assert max(limits) <= 162
    assert climb(Admission(), 10**6, 20)[-1] == Admission().most


def test_an_engine_without_memory_for_its_requests_gets_fewer() -> None:
    admission = Admission(limit=64)
    admission.observe(64, 24, 100, 1.0)
    assert admission.limit == 40


def test_nothing_is_concluded_while_an_engine_has_less_to_do_than_it_could() -> None:
    admission = Admission()
    for second in range(60):
        admission.observe(5, 0, 100 * second, float(second))
    assert admission.limit == Admission().limit


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((2, 1, 1, 0), ([[], []], False)),
        ((3, 2, 2, 8), ([[2, 3], [4, 5], [6, 7]], False)),
        ((1, 1, 1, 1), ([[0]], True)),
        ((2, 1, 4, 4), ([[0], [1]], True)),
    ],
)
def test_engines_get_the_gpus_that_learners_leave(
    arguments: tuple[int, int, int, int], expected: tuple[list[list[int]], bool]
) -> None:
    assert places(*arguments) == expected


def test_colocated_engines_have_the_learners_gpus_also_where_others_are_free() -> None:
    assert places(2, 1, 2, 8, colocated=True) == ([[0], [1]], True)


def test_more_gpus_than_the_machine_has_are_refused_with_the_cure() -> None:
    with pytest.raises(RecipeError, match=r"3 engines of 2 GPUs need 6, and this machine has 4; .*RAY_ADDRESS"):
        places(3, 2, 1, 4)


def test_workers_share_the_cores_while_weights_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_places, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [load_threads(workers) for workers in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]


@pytest.mark.parametrize(("said", "threads"), [("3", 3), ("3,2", 3), ("0", 4), ("many", 4), ("", 4)])
def test_a_number_of_threads_that_was_set_holds_while_weights_come(
    monkeypatch: pytest.MonkeyPatch, said: str, threads: int
) -> None:
    monkeypatch.setattr(fleet_places, "cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert load_threads(2) == threads


@pytest.mark.parametrize("most", [1, 7, 64, 10**6])
def test_slices_of_any_size_lie_in_shared_memory_as_they_were_sent(most: int) -> None:
    (parcel,) = pack_weights(WEIGHTS.items(), torch.float32)
    parts = list(parcel.slices(most))
    assert all(sum(len(array) for _, _, array in part) <= most for part in parts)
    layout = Layout.of(parcel.infos)
    assert all(start % 64 == 0 for start in layout.starts.values())
    shared = SharedMemory(layout.size)
    for part in reversed(parts):
        shared.write(layout, part)
    memory = torch.from_file(shared.path, shared=True, size=layout.size, dtype=torch.uint8)
    shared.close()
    assert not Path(shared.path).exists()
    assert layout.digests(memory.numpy()) == {name: info.digest for name, info in parcel.infos.items()}
    assert all(torch.equal(tensor.float(), WEIGHTS[name].float()) for name, tensor in layout.tensors(memory))


def test_a_replica_refuses_weights_that_are_not_its_model_s_and_samples_from_none_of_them(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(4), "b": torch.zeros(2)}, str(tmp_path / "model.safetensors"))
    request = Request("k", "p", [1], SamplingParams(2))

    async def refuse() -> None:
        replica = FakeReplica(EngineSpec(str(tmp_path), 64, timeout=5))
        await replica.start()
        with pytest.raises(EngineError, match="version -1, not 1: sync it"):
            await replica.submit([request], 1)
        await replica.begin()
        for name, tensor, told in (
            ("a", torch.zeros(5), r"a has shape \(5,\)"),
            ("z", torch.zeros(4), "z is not a weight"),
            ("a", torch.zeros(4, dtype=torch.bfloat16), "a comes as torch.bfloat16"),
        ):
            (parcel,) = pack_weights([(name, tensor)], tensor.dtype)
            with pytest.raises(WeightsRefused, match=told):
                await replica.take(Piece(Objects([]), parcel.infos))
        (parcel,) = pack_weights([("a", torch.ones(4))], torch.float32)
        await replica.take(Piece(Objects([_there(part) for part in parcel.slices()]), parcel.infos))
        with pytest.raises(WeightsRefused, match="b is missing; a set of 1 tensors for 2"):
            await replica.finish(1)
        with pytest.raises(EngineError, match="version -1"):
            await replica.submit([request], 1)

    asyncio.run(refuse())


async def _there(value: object) -> object:
    return value


class NoActor:
    """What answers nothing."""

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *given: None)


def members(*causes: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> list[Member]:
    """Engines that failed of these one after the other; "token" is that it sampled one."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(kill=lambda *given, **named: None))
    made = []
    for number, history in enumerate(causes, 1):
        member = Member(f"engine-{number}", NoActor, Limits(), 0)
        for cause in history:
            if cause == "token":
                member.heard(Report([], 0, 0, 0, member.tokens + 1, 0.0))
            else:
                assert member.status != "dead"
                member.fail(cause or "it was killed", cause=cause)
        made.append(member)
    return made


@pytest.mark.parametrize(
    ("causes", "dead", "hopeless"),
    [
        # What may be mended by a new process is tried four times.
        ([["", "", ""]], [False], False),
        ([["", "", "", ""]], [True], True),
        ([["", "", "", "token", ""]], [False], False),
        # What is wrong in the same words is tried twice, unless a token was ever sampled or something else failed between.
        ([["head", "head"]], [True], True),
        ([["head", "token", "head"]], [False], False),
        ([["token", "head", "head", "head"]], [False], False),
        ([["token", "head", "head", "head", "head"]], [True], True),
        ([["head", "", "head"]], [False], False),
        # Others that failed of it too are not waited for; those that have not, or that sample, may go on.
        ([["head", "head"], ["head"]], [True, False], True),
        ([["head", "head"], []], [True, False], False),
        ([["head", "head"], ["head", "token"]], [True, False], False),
        ([["head", "head"], ["token", "head"]], [True, False], False),
        ([["head", "head"], ["disk"]], [True, False], False),
    ],
)
def test_what_fails_for_ever_is_given_up_and_nothing_else(
    causes: list[list[str]], dead: list[bool], hopeless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = members(*causes, monkeypatch=monkeypatch)
    assert [member.status == "dead" for member in made] == dead
    told = why_hopeless(made)
    assert bool(told) == hopeless
    assert not hopeless or all(member.name in told and member.reason in told for member in made)
