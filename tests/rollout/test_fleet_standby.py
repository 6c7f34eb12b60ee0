"""The process that stands by: when it is made, taken and given up, with a clock and a Ray of the test's own."""

from typing import Any

import pytest

from tulu.rollout import fleet_standby
from tulu.rollout.fleet_places import actor_options, visible
from tulu.rollout.fleet_standby import CALM_SECONDS, MOST_DEATHS, Standby


class Made:
    """A Ray actor; its call to stand by is answered when it dies."""

    def __init__(self) -> None:
        self.dead = False
        self.killed = False
        self.stand_by = self

    def remote(self) -> "Made":
        return self


class World:
    """The clock, what Ray would say, and every process that was made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.made: list[Made] = []
        monkeypatch.setattr(fleet_standby.time, "monotonic", lambda: self.now)
        monkeypatch.setattr("ray.wait", lambda waited, timeout: ([one for one in waited if one.dead], waited))
        monkeypatch.setattr("ray.kill", lambda actor, no_restart: setattr(actor, "killed", True))

    def make(self) -> Made:
        self.made.append(Made())
        return self.made[-1]

    def pass_time(self, standby: Standby, seconds: float, calm: bool = True) -> None:
        standby.tend(calm)
        self.now += seconds
        standby.tend(calm)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_one_process_is_made_after_a_calm_and_taken_once(world: World) -> None:
    standby = Standby(world.make)
    assert standby.take() is None
    world.pass_time(standby, CALM_SECONDS * 0.9)
    assert not world.made
    world.pass_time(standby, 10, calm=False)
    world.pass_time(standby, CALM_SECONDS * 0.9)
    assert not world.made, "the calm begins anew behind an engine that started"
    world.pass_time(standby, CALM_SECONDS)
    world.pass_time(standby, 100)
    (process,) = world.made
    assert standby.take() is process
    assert standby.take() is None
    world.pass_time(standby, CALM_SECONDS)
    assert len(world.made) == 2
    standby.end()
    assert [one.killed for one in world.made] == [False, True], "what was taken is an engine now, and not the standby's to end"


def test_one_that_died_is_not_taken_and_is_made_again_but_not_for_ever(world: World) -> None:
    standby = Standby(world.make)
    world.pass_time(standby, CALM_SECONDS)
    world.made[-1].dead = True
    assert standby.take() is None
    for count in range(2, MOST_DEATHS + 3):
        world.pass_time(standby, CALM_SECONDS)
        world.pass_time(standby, CALM_SECONDS)
        assert len(world.made) == min(count, MOST_DEATHS)
        world.made[-1].dead = True


def test_where_none_may_stand_by_none_does(world: World) -> None:
    standby = Standby(None)
    world.pass_time(standby, 100)
    assert standby.take() is None
    standby.end()


@pytest.mark.parametrize(
    ("seen", "gpus", "expected"),
    [(None, [2, 3], "2,3"), ("4,5,6,7", [1, 2], "5,6"), ("", [0], "0"), ("GPU-a,GPU-b", [1], "GPU-b")],
)
def test_a_process_learns_its_gpus_when_it_becomes_an_engine(
    monkeypatch: pytest.MonkeyPatch, seen: str | None, gpus: list[int], expected: str
) -> None:
    """So the same process can stand by for every engine of a machine."""
    if seen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert visible(gpus) == {"CUDA_VISIBLE_DEVICES": expected}
    assert visible([]) == {}


def test_what_ray_is_asked_for_is_the_same_for_every_engine_of_a_machine() -> None:
    options: dict[str, Any] = actor_options(1, cluster=False)
    assert "CUDA_VISIBLE_DEVICES" not in options["runtime_env"]["env_vars"]
    assert options["num_cpus"] == 0
