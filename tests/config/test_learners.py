"""How many processes train: --gpus and the recipe say the same, or nothing trains."""

import pytest

from tulu.config.learners import Learners, learners_of
from tulu.config.load import load_recipe
from tulu.config.recipe_stages import stages_in
from tulu.errors import RecipeError


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def asked(gpus: int | None, *overrides: str) -> Learners:
    return learners_of(stages_in(dict(load_recipe("quickstart", overrides))), gpus)


def test_gpus_or_the_recipe_says_how_many() -> None:
    assert asked(None).count is None
    assert asked(8) == Learners(8, "--gpus", False)
    assert asked(None, "rlvr.resources.learners=8") == Learners(8, "rlvr.resources.learners", False)
    assert asked(8, "rlvr.resources.learners=8").count == 8


def test_two_different_numbers_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"rlvr.resources.learners=8 and --gpus=4: give both the same number"):
        asked(4, "rlvr.resources.learners=8")


def test_ray_starts_those_of_the_recipe_where_there_is_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert asked(None, "rlvr.resources.learners=8").in_ray
    assert asked(8, "rlvr.resources.learners=8").in_ray
    assert not asked(8).in_ray, "--gpus means this machine"
