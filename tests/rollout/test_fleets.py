"""A recipe's resources decide whether the engine is in the learner's process or engines are in processes of their own."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.rollout.fakes import rlvr_stage
from tulu.config.parts import Resources
from tulu.errors import RecipeError
from tulu.rollout import fleets
from tulu.rollout.engine import EngineSpec
from tulu.rollout.local_fleet import LocalFleet
from tulu.rollout.team import Team

SPEC = EngineSpec("folder", 64, version=0)


def test_without_engines_of_their_own_the_engine_is_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SimpleNamespace(version=0)
    monkeypatch.setattr(fleets, "make_engine", lambda *given: (engine, given)[0])
    fleet = fleets.make_fleet("auto", SPEC, Resources())
    assert isinstance(fleet, LocalFleet)
    assert fleet.engine is engine


def test_engines_of_their_own_are_vllm_with_the_width_and_learners_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(fleets, "RayFleet", lambda *given: made.append(given))
    monkeypatch.setattr("tulu.rollout.engines.has_vllm", lambda: True)
    fleets.make_fleet("auto", SPEC, Resources(engines=3, tensor_parallel=2), learners=4)
    assert made == [(SPEC, 3, 2, 4)]
    resized: Any = SimpleNamespace(model=SimpleNamespace(tulu_resized=True))
    with pytest.raises(RecipeError, match="resize_embeddings: vLLM starts from folder"):
        fleets.make_fleet("vllm", SPEC, Resources(engines=1), policy=resized)
    monkeypatch.setattr("tulu.rollout.engines.has_vllm", lambda: False)
    with pytest.raises(RecipeError, match="vllm is not installed"):
        fleets.make_fleet("auto", SPEC, Resources(engines=1))
    assert len(made) == 1


def test_every_process_of_a_learner_asks_for_its_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without engines of their own each has one; else the main process has all of them."""
    engine, policy = SimpleNamespace(version=3, generate=None), cast(Any, None)
    monkeypatch.setattr(fleets, "make_engine", lambda *given: engine)
    monkeypatch.setattr(fleets, "make_fleet", lambda *given: given[2:4])
    for rank in range(2):
        team = Team(cast(Any, SimpleNamespace(world=2, is_main=rank == 0)))
        own = fleets.fleet_of(rlvr_stage(), SPEC, policy, team)
        assert isinstance(own, LocalFleet)
        assert own.version == 3
        apart = rlvr_stage(resources={"engines": 3}, engine="vllm")
        made: Any = fleets.fleet_of(apart, SPEC, policy, team)
        assert made == ((apart.resources, 2) if rank == 0 else None)
